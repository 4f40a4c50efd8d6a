"""A middleware in the test's own process, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio

from poste.queue.acl import middleware
from poste.queue.keys import Keys
from poste.rpc.channels import connect
from poste.rpc.credentials import Secured
from poste.runtime.settings import MomSettings
from poste.v1.mom_service_pb2_grpc import MomServiceStub
from poste_mom.__main__ import run
from support.ports import free_port
from support.redis_users import as_user


class RunningMom:
    """What a test needs to know of it."""

    def __init__(
        self, settings: MomSettings, target: str, channel: grpc.aio.Channel, stop: Callable[[], Awaitable[None]]
    ) -> None:
        self.stop = stop
        self.settings = settings
        self.target = target
        self.admin_url = f"http://127.0.0.1:{settings.admin_port}"
        self.channel = channel
        self.stub = MomServiceStub(channel)


@contextlib.asynccontextmanager
async def running_mom(redis_url: str, *, secured: Secured | None = None, **changes: Any) -> AsyncIterator[RunningMom]:
    """Run a middleware while the body runs, and wait until it answers; it may do what its ACL lets it."""
    redis_url = as_user(middleware(Keys(changes.get("key_prefix", "poste"))), redis_url)
    fields: dict[str, Any] = {"port": free_port(), "admin_port": free_port(), "pass_seconds": 0.2, **changes}
    settings = MomSettings(redis_url=redis_url, grace_seconds=1, **fields)
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, stop))

    async def end() -> None:
        stop.set()
        await task

    target = f"127.0.0.1:{settings.port}" if settings.socket is None else f"unix:{settings.socket}"
    channel = connect(target, library=True, secured=secured)
    try:
        ready = asyncio.create_task(channel.channel_ready())
        done, _ = await asyncio.wait([ready, task], timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert done, "the middleware did not start"
        if task in done:
            ready.cancel()
            await task
        yield RunningMom(settings, target, channel, end)
    finally:
        await channel.close()
        await end()
