"""aiohttp as bare as it gets, the way the gateway uses it: no application, no router, no access log, on uvloop."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop
from aiohttp import web

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def say(word: object) -> None:
    """Report to the bench."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def until_told() -> None:
    """Wait until the bench ends this."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


async def serve(handle: Handle) -> None:
    """Serve on any free port until the bench ends this."""
    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=1).start()
    say(runner.addresses[0][1])
    await until_told()
    await runner.cleanup()


def run(handle: Handle) -> None:
    """Be a server, and nothing else."""
    uvloop.run(serve(handle))
