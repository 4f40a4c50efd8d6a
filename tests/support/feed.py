"""A service whose methods stream; by the worker library, or by a gRPC server that knows nothing of Poste."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.api import httpbody_pb2
from google.protobuf import descriptor_pool
from testing.v1 import feed_pb2, feed_pb2_grpc

from support import described, grpc_server
from support.gateway import FakeMom, Gateway, running_gateway, serving_mom
from support.worker import running_worker

NAME = "testing.v1.FeedService"
WATCH, RUN, LEGACY, EXPORT = (f"/{NAME}/{method}" for method in ("Watch", "Run", "Legacy", "Export"))


class Feed(feed_pb2_grpc.FeedServiceServicer):
    """Streams as it is told, and notes what became of its streams."""

    def __init__(self) -> None:
        #: Released once for each message that waits for it.
        self.permits = asyncio.Semaphore(0)
        self.thread_permits = threading.Semaphore(0)
        #: What began, how many messages were made of all, what was cancelled, and what has ended by itself.
        self.begun: list[str] = []
        self.made = 0
        self.cancelled: list[str] = []
        self.ended: list[str] = []
        self.remaining: list[float | None] = []
        self.metadata: list[dict[str, Any]] = []

    async def _messages(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.begun.append(request.name)
        self.remaining.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata() or ()))
        number = 0
        try:
            while request.count < 0 or number < request.count:
                if number >= request.free:
                    await self.permits.acquire()
                self.made += 1
                yield feed_pb2.WatchResponse(number=number, text=f"{request.name[:1]}" * request.letters)
                number += 1
            if request.fail_code:
                if number >= request.free:
                    await self.permits.acquire()
                await context.abort(next(code for code in grpc.StatusCode if code.value[0] == request.fail_code), "so")
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.append(request.name)
            raise
        self.ended.append(request.name)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the proto's name
        async with contextlib.aclosing(self._messages(request, context)) as messages:  # type: ignore[type-var]
            async for message in messages:
                yield message

    async def Run(self, request: Any, context: Any) -> None:  # noqa: N802 - the proto's name
        await context.send_initial_metadata((("x-tenant", "seven"),))
        async with contextlib.aclosing(self._messages(request, context)) as messages:  # type: ignore[type-var]
            async for message in messages:
                await context.write(message)

    def Legacy(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - the proto's name
        self.begun.append(request.name)
        self.remaining.append(context.time_remaining())
        number = 0
        try:
            while request.count < 0 or number < request.count:
                if number >= request.free:
                    self.thread_permits.acquire()
                self.made += 1
                yield feed_pb2.WatchResponse(number=number, text="l" * request.letters)
                number += 1
        except GeneratorExit:
            self.cancelled.append(request.name)
            raise
        self.ended.append(request.name)

    async def Export(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - the proto's name
        async with contextlib.aclosing(self._messages(request, context)) as messages:  # type: ignore[type-var]
            async for message in messages:
                data = b"%d;" % message.number
                yield httpbody_pb2.HttpBody(content_type="" if message.number else "text/csv", data=data)

    async def Ask(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        return feed_pb2.WatchResponse(text=request.name)


def entry(*targets: str, library: bool = True) -> Any:
    """The service as the catalogue has it."""
    return described.entry(descriptor_pool.Default(), NAME, *targets, library=library)


@contextlib.asynccontextmanager
async def plain(feed: Feed, port: int = 0, tls: grpc.ServerCredentials | None = None) -> AsyncIterator[str]:
    """Serve it without the library; yields its target."""
    server = grpc.aio.server()
    feed_pb2_grpc.add_FeedServiceServicer_to_server(feed, server)
    async with grpc_server.listening(server, port, tls) as bound:
        yield f"127.0.0.1:{bound}"


@contextlib.asynccontextmanager
async def streaming(folder: Path, feed: Feed, *, library: bool = True, **settings: Any) -> AsyncIterator[Gateway]:
    """Run the service and a gateway that calls it."""
    async with contextlib.AsyncExitStack() as stack:
        target = (
            (await stack.enter_async_context(running_worker(feed))).target
            if library
            else await stack.enter_async_context(plain(feed))
        )
        mom = FakeMom(entry(target, library=library))
        port = await stack.enter_async_context(serving_mom(mom))
        gateway = await stack.enter_async_context(running_gateway(folder, port, **settings))
        await gateway.available(name=NAME, ready=1)
        yield gateway
