"""In which order what clients send is read, when it is more than the loop can take at once.

An event loop serves every connection that has something before it looks again: of a client with a thousand connections
all thousand requests, or sixteen times a quarter of a megabyte in chunks of two bytes, while everybody else waits. So
within one turn of the loop only so much is read at once. What comes beyond it waits, and is read a part at a time,
from each client in its turn (round robin; those who have no share of their own are one).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

#: What is read in one turn of the loop, in the cost of a line: some 30 requests, or 2,000 chunks.
_TURN_COST: Final = 2048
#: What a request costs besides its lines: it is answered, too.
_REQUEST_COST: Final = 64
#: What is read at a time, in bytes.
PART_BYTES: Final = 4 * 1024


class Source(Protocol):
    """A connection whose client sends."""

    peer: str
    waiting: bytes

    def take(self, data: bytes, /) -> None:
        """Read what came."""

    def emptied(self) -> None:
        """Know that nothing that came waits any more."""


class Inflow:
    """Gives the connections of one server their turns. Used from one event loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with nobody waiting."""
        self._loop = loop
        #: What was read at once in this turn of the loop, and maybe in some before it: see `now`.
        self._cost = 0
        #: Those that wait, by client; whose turn is next comes first.
        self._lines: dict[str, deque[Source]] = {}

    def now(self, source: Source, data: bytes) -> bool:
        """Tell whether it can be read at once; if not it waits, and `source.take` gets it in its turn.

        Args:
            source: Who brings it.
            data: What came.
        """
        if not self._lines and len(data) <= PART_BYTES:
            before = self._cost
            if before < _TURN_COST:
                self._cost = after = before + _REQUEST_COST + data.count(b"\n")
                # Half of it is more than a turn has that is not crowded: so most of them cost no callback.
                if before < _TURN_COST // 2 <= after:
                    self._loop.call_soon(self._begin_turn)
                return True
        if source.waiting:
            source.waiting += data
            return False
        source.waiting = data
        if not self._lines:
            self._loop.call_soon(self._serve)
        line = self._lines.get(source.peer)
        if line is None:
            line = self._lines[source.peer] = deque()
        line.append(source)
        return False

    def _begin_turn(self) -> None:
        self._cost = 0

    def _serve(self) -> None:
        """Read from those that wait for as long as one turn of the loop may take."""
        lines, cost = self._lines, 0
        while lines and cost < _TURN_COST:
            peer, line = next(iter(lines.items()))
            del lines[peer]
            source = line.popleft()
            part, source.waiting = source.waiting[:PART_BYTES], source.waiting[PART_BYTES:]
            if part:
                cost += _REQUEST_COST + part.count(b"\n")
                source.take(part)
            # Reading may end it, or have it bring more.
            if source.waiting:
                line.append(source)
            elif part:
                source.emptied()
            if line:
                lines[peer] = line
        if lines:
            self._loop.call_soon(self._serve)
