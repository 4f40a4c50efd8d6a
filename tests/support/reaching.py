"""Reaching processes that come and go: a connection to one may fail in any way that there is, and each says "away".

It is refused; or reset, when the listener closes with it in the backlog; or ends before an answer, or in the middle of
one. Whoever waits for a process and knows but one of these has a test that fails once in a thousand runs.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import aiohttp

#: What each client makes of all those: the system's errors, time that is over, ends, and the libraries' own.
AWAY: Final = (OSError, EOFError, aiohttp.ClientError, http.client.HTTPException)

T = TypeVar("T")


async def reached(look: Callable[[], Awaitable[T]]) -> T | None:
    """Return what a probe of a process finds, None if it is not to be reached."""
    try:
        return await look()
    except AWAY:
        return None


async def listens(port: int) -> bool:
    """Return whether a port of this host takes connections."""

    async def connect() -> bool:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True

    return await reached(connect) is not None


async def http_status(session: aiohttp.ClientSession, url: str) -> int | None:
    """Return the status of a GET, None if what is to answer is not to be reached."""

    async def get() -> int:
        async with session.get(url) as reply:
            await reply.read()
            return reply.status

    return await reached(get)
