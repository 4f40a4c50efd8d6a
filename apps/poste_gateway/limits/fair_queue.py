"""Whose turn it is at what serves one at a time, or a few: a fair share for each client, and what is small first.

Each client's large and small ones wait in lines of their own, and the lines are served evenly, by bytes and not by
number: one who brings a megabyte after the other waits for its own, and another's hundred kilobytes come in between.
What waits is never overtaken for ever: what comes after it in an empty line counts from what has been served by then.
(Self-clocked fair queueing: Golestani, INFOCOM 1994.)
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from poste.runtime.counts import Counts


class Full(Exception):  # noqa: N818 - it states a fact
    """As much waits as may: of this client, or in all."""


@dataclass(order=True, slots=True)
class _Waiting:
    """One that waits: the order is that of the turns.

    Attributes:
        served: How much has been served, as its line has it, when its turn is over.
        number: How many came before it.
        turn: Is done when it is its turn.
    """

    served: int
    number: int
    turn: asyncio.Future[None] = field(compare=False)


class FairQueue:
    """Gives turns, one at a time or a few. Used from one event loop only.

    Attributes:
        waiting_bytes: How much waits.
    """

    def __init__(self, max_waiting_bytes: int, *, at_once: int = 1) -> None:
        """Let nobody wait yet.

        Args:
            max_waiting_bytes: How much may wait. One client may have as much waiting as is left beside that: half of
                all if it is alone, so that there is always room for another. Those who have no share of their own,
                for a proxy brings them all, may have all of it.
            at_once: How many have their turns at once.
        """
        self._max_waiting_bytes = max_waiting_bytes
        self.waiting_bytes = 0
        self._by_client = Counts()
        self._line: list[_Waiting] = []
        self._at_once = self._free = at_once
        self._number = 0
        self._served = 0
        #: Where the last one of each line that waits stands.
        self._ends: dict[tuple[str, int], int] = {}

    @contextlib.asynccontextmanager
    async def turn(self, client: str, size: int, *, patient: bool = False) -> AsyncIterator[None]:
        """Wait for a turn, which lasts as long as the body.

        Args:
            client: Whose it is; empty for who has no share of its own.
            size: How many bytes it is about.
            patient: It waits however much waits already.

        Raises:
            Full: It would have to wait, and there is no room for that.
        """
        if self._free:
            self._free -= 1
        else:
            if not patient and not self._has_room(client, size):
                raise Full
            await self._wait(client, size)
        try:
            yield
        finally:
            self._pass_on()

    def _has_room(self, client: str, size: int) -> bool:
        left = self._max_waiting_bytes - self.waiting_bytes - size
        own = self._by_client[client]
        return left >= 0 and (not client or own <= left)

    async def _wait(self, client: str, size: int) -> None:
        line = client, size.bit_length()
        self._number += 1
        end = max(self._served, self._ends.get(line, 0)) + size
        waiting = _Waiting(end, self._number, asyncio.get_running_loop().create_future())
        self._ends[line] = end
        heapq.heappush(self._line, waiting)
        self.waiting_bytes += size
        self._by_client.add(client, size)
        try:
            await waiting.turn
        except asyncio.CancelledError:
            if waiting.turn.done() and not waiting.turn.cancelled():
                # It had come to its turn just then.
                self._pass_on()
            raise
        finally:
            self.waiting_bytes -= size
            self._by_client.remove(client, size)
            if self._ends.get(line) == end:
                del self._ends[line]

    def _pass_on(self) -> None:
        """End a turn, and give the next one."""
        while self._line:
            first = heapq.heappop(self._line)
            if not first.turn.done():
                self._served = first.served
                first.turn.set_result(None)
                return
        self._free += 1
        if self._free == self._at_once:
            self._served = 0
