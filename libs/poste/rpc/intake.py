"""How much is taken in at once: messages are read from the wire in turns, however many peers send large ones.

A message of 16 MB is there four times over while it is handled, and who sends it is trusted to be of this deployment,
not to be alone: a dozen services that report large results at once took a gigabyte. Nobody is refused for that. What is
not read yet waits in its sender's memory and not in this one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from poste.domain import sizes
from poste.rpc.turns import Turns

#: How many messages are read at once, and how many from one peer: another's need not wait for one that comes slowly.
#: One that has come, as nearly all have, is read in no time.
_READ_AT_ONCE: Final = 3
_READ_FROM_ONE: Final = 2
#: While more bytes than this are handled, no further message is read, and none goes beside one that is larger.
_HANDLED_BYTES: Final = 2 * sizes.BATCH
#: How long a message may take to come whole once it is its turn, in seconds.
_READ_SECONDS: Final = 2.0


class NotTaken(Exception):  # noqa: N818 - it states a fact
    """A message was not taken in; `why` is a word for it."""

    def __init__(self, why: str, words: str) -> None:
        super().__init__(words)
        self.why = why


class Intake:
    """Takes messages in."""

    def __init__(self) -> None:
        self._turns = Turns(_READ_AT_ONCE, of_one_peer=_READ_FROM_ONE)
        self._handled_bytes = 0
        self._less = asyncio.Event()

    @contextlib.asynccontextmanager
    async def taking(self, messages: AsyncIterator[bytes], peer: str, most_bytes: int) -> AsyncIterator[list[bytes]]:
        """Read the one message of a call; it is handled in the body, which takes it out of the list: nobody keeps it.

        Args:
            messages: Where it comes from.
            peer: Who sends it: each has its turn.
            most_bytes: How large it may be.

        Raises:
            NotTaken: It does not come in time (`late`), or is too large, or is not one (`invalid`).
        """
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
        try:
            yield message
        finally:
            self._handled_bytes -= size
            self._less.set()

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
