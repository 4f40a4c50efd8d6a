"""Limits how many large messages a server reads at once: peers take turns, however many there are.

A message of 16 MB is there four times over while it is handled, and who sends it is trusted to be of this deployment,
not to be alone: a dozen services that report large results at once took a gigabyte. No sender is refused for that: what
is not read yet waits in its sender's memory and not in this one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import grpc

from poste.domain import sizes
from poste.rpc.turns import Crowd, Turns

#: How many messages are read at once, and how many from one peer: another's need not wait for one that comes slowly.
#: One that has come, as nearly all have, is read in no time.
_READ_AT_ONCE: Final = 3
_READ_FROM_ONE: Final = 2
#: How many calls wait for that, in all and of one peer: gRPC holds up to 64 KiB of each by itself.
_MOST_WAITING: Final = 2000
_MOST_WAITING_OF_ONE: Final = 1000
#: While more bytes than this are handled, no further message is read, and none goes beside one that is larger.
_HANDLED_BYTES: Final = 2 * sizes.BATCH
#: How long a message may take to come whole once it is its turn, in seconds.
_READ_SECONDS: Final = 2.0


#: What a call is refused with, by why.
REFUSALS: Final = {
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "denied": grpc.StatusCode.PERMISSION_DENIED,
    "busy": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "late": grpc.StatusCode.DEADLINE_EXCEEDED,
}


class NotTaken(Exception):  # noqa: N818 - it states a fact
    """A message was not taken in; `why` is a word for it."""

    def __init__(self, why: str, words: str) -> None:
        super().__init__(words)
        self.why = why


class Intake:
    """Takes messages in."""

    def __init__(self) -> None:
        self._turns = Turns(_READ_AT_ONCE, of_one_peer=_READ_FROM_ONE)
        self._waiting = Crowd(most=_MOST_WAITING, of_one_peer=_MOST_WAITING_OF_ONE)
        self._handled_bytes = 0
        self._less = asyncio.Event()

    @contextlib.asynccontextmanager
    async def taking(self, messages: AsyncIterator[bytes], peer: str, most_bytes: int) -> AsyncIterator[list[bytes]]:
        """Read the one message of a call; the body handles it, and takes it out of the list, so that it is freed early.

        Args:
            messages: Where it comes from.
            peer: Who sends it: each has its turn.
            most_bytes: How large it may be.

        Raises:
            NotTaken: Too many wait already (`busy`); it does not come in time (`late`), or is too large, or is not one
                (`invalid`).
        """
        with self._waiting.staying(peer) as may_stay:
            if not may_stay:
                raise NotTaken("busy", "too many calls wait to be read already")
            message, size = await self._take(messages, peer, most_bytes)
        try:
            yield message
        finally:
            self._handled_bytes -= size
            self._less.set()

    async def _take(self, messages: AsyncIterator[bytes], peer: str, most_bytes: int) -> tuple[list[bytes], int]:
        async with self._turns.turn(peer):
            await self._room_for(0)
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    message = await _only(messages)
            except TimeoutError:
                raise NotTaken("late", f"the message did not come within {_READ_SECONDS:g} s") from None
            size = len(message[0])
            if size > most_bytes:
                message.clear()
                raise NotTaken("invalid", f"the message has {size} bytes, and may have {most_bytes}")
            await self._room_for(size)
            self._handled_bytes += size
        return message, size

    async def _room_for(self, size: int) -> None:
        while self._handled_bytes and self._handled_bytes + size > _HANDLED_BYTES:
            self._less.clear()
            await self._less.wait()


async def _only(messages: AsyncIterator[bytes]) -> list[bytes]:
    """Read to the end: gRPC keeps the last message for as long as it is asked for no more."""
    found: list[bytes] = []
    async for message in messages:
        if found:
            raise NotTaken("invalid", "there is more than one message")
        found.append(message)
    if not found:
        raise NotTaken("invalid", "there is no message")
    return found
