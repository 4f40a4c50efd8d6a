"""Fair queueing by bytes among clients (self-clocked fair queueing, SCFQ: Golestani, INFOCOM 1994).

Each client has a line for each order of magnitude of size, and the lines are served evenly by bytes, not by number:
between two megabytes of one client another client's hundred kilobytes get their turn. Nothing starves: a new arrival
in an empty line starts at the virtual time of now, behind what has waited longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from poste.runtime.counts import Counts


class Full(Exception):  # noqa: N818 - it states a fact
    """Too many bytes wait already: of this client, or in all."""


@dataclass(order=True, slots=True)
class _Waiting:
    """A waiting request; sorted by the order of turns.

    Attributes:
        served: Its finish tag in SCFQ: the virtual time, in bytes, at which its turn is over.
        number: Its number in the order of arrival, which decides between equal tags.
        turn: Done when it is its turn.
    """

    served: int
    number: int
    turn: asyncio.Future[None] = field(compare=False)


class FairQueue:
    """Gives turns, one or a few at a time. Used from one event loop only.

    Attributes:
        waiting_bytes: How many bytes wait.
    """

    def __init__(self, max_waiting_bytes: int, *, at_once: int = 1) -> None:
        """Start empty.

        Args:
            max_waiting_bytes: How many bytes may wait. One client's must not be more than what is then left: half of
                all if it is alone, so that there is always room for another. Clients without a share of their own
                (those behind a trusted proxy) may take all of it.
            at_once: How many may have their turns at the same time.
        """
        self._max_waiting_bytes = max_waiting_bytes
        self.waiting_bytes = 0
        self._by_client = Counts()
        self._line: list[_Waiting] = []
        self._at_once = self._free = at_once
        self._number = 0
        self._served = 0
        #: The finish tag of the last request in each line, by client and magnitude of size.
        self._ends: dict[tuple[str, int], int] = {}

    @contextlib.asynccontextmanager
    async def turn(self, client: str, size: int, *, patient: bool = False) -> AsyncIterator[None]:
        """Wait for a turn, which lasts as long as the body.

        Args:
            client: The client; empty for those without a share of their own.
            size: The size in bytes.
            patient: Wait even if too much waits already.

        Raises:
            Full: It would have to wait, and too much waits already.
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
                # It was given its turn and cancelled at once: the next one gets it.
                self._pass_on()
            raise
        finally:
            self.waiting_bytes -= size
            self._by_client.remove(client, size)
            if self._ends.get(line) == end:
                del self._ends[line]

    def _pass_on(self) -> None:
        """End a turn, and start the next one."""
        while self._line:
            first = heapq.heappop(self._line)
            if not first.turn.done():
                self._served = first.served
                first.turn.set_result(None)
                return
        self._free += 1
        if self._free == self._at_once:
            self._served = 0
