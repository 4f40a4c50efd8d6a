"""A gRPC server of a test's own, in its process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import grpc
import grpc.aio


@contextlib.asynccontextmanager
async def listening(
    server: grpc.aio.Server, port: int = 0, tls: grpc.ServerCredentials | None = None
) -> AsyncIterator[int]:
    """Have a server listen on this machine while the body runs, any free port unless one is named; yields the port."""
    address = f"127.0.0.1:{port}"
    bound = server.add_insecure_port(address) if tls is None else server.add_secure_port(address, tls)
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)
