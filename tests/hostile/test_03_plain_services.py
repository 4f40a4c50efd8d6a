"""Large answers of services without the library: nothing announces them, and they come from whatever gRPC server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import ports
from support.deployment import LEDGER, SUM, Deployment, Part, deployed
from support.standing import standing

MEGABYTES = 4_000_000


@contextlib.asynccontextmanager
async def plain(folder: Path, spec: str = "support.heavy:LedgerService") -> AsyncIterator[Deployment]:
    """A deployment with the sum, and the ledger's service by a server that knows nothing of Poste."""
    port = ports.free_port()
    settings = {LEDGER: {"target": f"127.0.0.1:{port}", "timeout_seconds": 20}}
    async with deployed(folder, SUM, settings=settings, gateway_settings={"trusted_proxies": "127.0.0.1/32"}) as one:
        part = Part("plain", [sys.executable, "-m", "support.plain", spec], folder, port=port)
        part.start()
        try:
            await one.up(LEDGER)
            yield one
        finally:
            part.kill()


@pytest.mark.parametrize(("count", "size"), [(100, 4_000_000), (30, 16_000_000)])
async def test_a_hundred_that_ask_for_megabytes_at_one_moment(tmp_path: Path, count, size) -> None:
    """All of them came at once, and the gateway took more than its container has."""
    seen: Counter[Any] = Counter()
    async with plain(tmp_path) as one:
        for _ in range(3):
            print(await one.call(LEDGER, line="a", times=10))

        async def ask() -> None:
            reply = await one.call(LEDGER, line="a", times=size)
            seen[reply.status if reply.status == 200 else reply.body["type"]] += 1

        async with standing(one, megabytes=2000) as attack:
            for _ in range(int(os.environ.get("R", "3"))):
                await asyncio.gather(*(ask() for _ in range(count)))
                print(attack, __import__("support.memory").memory.resident_bytes(one.gateway.process.pid) >> 20)
    print(seen)
