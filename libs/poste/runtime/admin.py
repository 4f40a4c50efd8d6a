"""The probes and the metrics of a process that has no HTTP face of its own."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from poste.domain.errors import StartError

#: Returns None while the process is ready, else why it is not.
Readiness = Callable[[], str | None]


@contextlib.asynccontextmanager
async def serving(
    host: str, port: int, ready: Readiness, *, collect: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[int]:
    """Serve `/livez`, `/readyz` and `/metrics` while the body runs; yields the port.

    Args:
        host: The address to listen on.
        port: The port, 0 for any free one.
        ready: Tells why the process is not ready, if it is not.
        collect: Brings figures up to date before each scrape.

    Raises:
        StartError: The port is taken.
    """

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = ready()
        return web.Response(text="ready\n") if reason is None else web.Response(status=503, text=f"{reason}\n")

    async def metrics(_: web.Request) -> web.Response:
        if collect is not None:
            await collect()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    async with listening(app, host, port) as bound:
        yield bound


@contextlib.asynccontextmanager
async def listening(app: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve an aiohttp application while the body runs; yields the port.

    Raises:
        StartError: The port is taken, or the address is not this host's.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    async with bound(runner, host, port) as chosen:
        yield chosen


@contextlib.asynccontextmanager
async def bound(runner: web.BaseRunner, host: str, port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run one of aiohttp's runners on one address, by TLS if a context is given, while the body runs; yields the port.

    Raises:
        StartError: The port is taken, or the address is not this host's.
    """
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise StartError(
                f"can't listen on {authority(host, port)}: {os.strerror(error.errno) if error.errno else error}"
            ) from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def authority(host: str, port: int) -> str:
    """Spell host and port as a URL does (IPv6 in brackets, RFC 3986)."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).version == 6:  # noqa: PLR2004 - the protocol's own number
            return f"[{host}]:{port}"
    return f"{host}:{port}"
