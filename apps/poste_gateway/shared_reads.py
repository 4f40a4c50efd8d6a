"""Coalesced reads: of one thing at most one read is in flight and one to follow, however many requests ask for it.

A request that comes while none is in flight begins one. One that comes during a read waits for the next: the thing may
have changed since that read began, by the same client's doing even, and no client may get what was before it asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from poste.runtime import lifecycle

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class Ended(Exception):  # noqa: N818 - it states a fact
    """Nothing is read any more: the process is about to end."""


class SharedReads(Generic[KeyT, ValueT]):
    """Reads, by what they read. Used from one event loop only."""

    def __init__(self, read: Callable[[KeyT], Awaitable[ValueT]]) -> None:
        """Take what reads; it has to come to an end by itself."""
        self._read = read
        #: What the next read will answer to those who wait for it, and who makes one read after the other.
        self._next: dict[KeyT, asyncio.Future[ValueT]] = {}
        self._readers: dict[KeyT, asyncio.Task[None]] = {}

    async def get(self, key: KeyT) -> ValueT:
        """Return what a read finds that began no sooner than this; whoever gives up ends it for nobody else.

        Raises:
            Ended: There will be none.
            Exception: Whatever the read failed with, to all that wait for it.
        """
        answer = self._next.get(key)
        if answer is None:
            answer = self._next[key] = asyncio.get_running_loop().create_future()
            if key not in self._readers:
                self._readers[key] = asyncio.create_task(self._keep_reading(key))
        return await asyncio.shield(answer)

    async def close(self) -> None:
        """End what is on its way."""
        await lifecycle.end(self._readers.values())

    async def _keep_reading(self, key: KeyT) -> None:
        """Read until nobody waits for it."""
        answer = None
        try:
            while (answer := self._next.pop(key, None)) is not None:
                try:
                    value = await self._read(key)
                except Exception as error:  # noqa: BLE001 - it is theirs who wait
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
    # It is not lost if all who waited have gone.
    answer.exception()
