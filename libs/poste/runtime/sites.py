"""aiohttp's servers on one address."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator

from aiohttp import web

from poste.runtime.addresses import unusable


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
            raise unusable(host, port, error) from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
