"""A gRPC server of a test's own, in its process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import grpc.aio


@contextlib.asynccontextmanager
async def listening(server: grpc.aio.Server, port: int = 0) -> AsyncIterator[int]:
    """Have a server listen on this machine while the body runs, any free port unless one is named; yields the port."""
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)
