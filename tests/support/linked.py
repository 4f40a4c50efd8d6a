"""A replica as the gateway calls it, once its link is open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from poste.upstream.replica import Replica
from support.waiting import until


@contextlib.asynccontextmanager
async def linked(target: str) -> AsyncIterator[Replica]:
    """Link with the service at `target` while the body runs."""
    replica = Replica(target, library=True, changed=lambda: None)
    watch = asyncio.create_task(replica.watch())
    try:
        await until(lambda: replica.linked, what="the link")
        yield replica
    finally:
        watch.cancel()
        await asyncio.wait([watch])
        await replica.close()
