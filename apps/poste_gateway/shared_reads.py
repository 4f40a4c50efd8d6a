"""Coalesced reads. A request never gets a value that was read before it arrived.

However many requests ask for one key, at most one read of it is in flight and one follows. A request that comes while
none is in flight starts one. One that comes during a read waits for the next: the value may have changed since that
read began, perhaps by the same client's own request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from poste.runtime import lifecycle

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Ended(Exception):  # noqa: N818 - it states a fact
    """Nothing is read any more: the process is stopping."""


class SharedReads(Generic[KeyT, ValueT]):
    """Coalesces the reads of each key. Used from one event loop only."""

    def __init__(self, read: Callable[[KeyT], Awaitable[ValueT]]) -> None:
        """Start nothing yet; `read` reads one key and must have a deadline of its own."""
        self._read = read
        #: By key: the result of the next read, and the task that makes one read after the other.
        self._next: dict[KeyT, asyncio.Future[ValueT]] = {}
        self._readers: dict[KeyT, asyncio.Task[None]] = {}

    async def get(self, key: KeyT) -> ValueT:
        """Return the result of a read that begins after this call. Cancelling one request cancels no other's read.

        Raises:
            Ended: There will be none: `close` was called.
            Exception: What the read failed with; every request that waits for it gets it.
        """
        answer = self._next.get(key)
        if answer is None:
            answer = self._next[key] = asyncio.get_running_loop().create_future()
            if key not in self._readers:
                self._readers[key] = asyncio.create_task(self._keep_reading(key))
        return await asyncio.shield(answer)

    async def close(self) -> None:
        """Cancel the reads in flight; their requests get `Ended`."""
        await lifecycle.end(self._readers.values())

    async def _keep_reading(self, key: KeyT) -> None:
        """Read again and again while requests wait."""
        answer = None
        try:
            while (answer := self._next.pop(key, None)) is not None:
                try:
                    value = await self._read(key)
                except Exception as error:  # noqa: BLE001 - it is raised to the requests that wait
                    _fail(answer, error)
                else:
                    answer.set_result(value)
        finally:
            for one in (answer, self._next.pop(key, None)):
                if one is not None and not one.done():
                    _fail(one, Ended())
            del self._readers[key]


def _fail(answer: asyncio.Future[ValueT], error: Exception) -> None:
    answer.set_exception(error)
    # Marked as retrieved: asyncio would log it if no request waits any more.
    answer.exception()
