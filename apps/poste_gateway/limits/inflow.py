"""In which order clients' data is read when more comes than the loop can read at once.

In one turn an event loop serves every connection that is readable: all thousand requests of a client with a thousand
connections, while other clients wait. So within one turn of the loop only so much is read. What is beyond that waits,
and is read a part at a time, from each client in its turn (round robin; clients without a share count as one).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from poste.runtime import logs

#: What is read in one turn of the loop: some 50 requests, or 25 KB in chunks of two bytes, each some 5 ms.
_TURN_COST: Final = 4096
#: What a request costs besides its bytes: it is answered, too.
_REQUEST_COST: Final = 64
#: So many bytes cost one: as much as they may take, in chunks of a byte or two.
_COST_BYTES: Final = 8
#: What is read at a time, in bytes.
PART_BYTES: Final = 4 * 1024

_log: Final = logs.get("inflow")


class Source(Protocol):
    """A connection whose client sends."""

    peer: str
    waiting: bytearray

    def take(self, data: bytes, /) -> None:
        """Read what came."""

    def emptied(self) -> None:
        """Know that nothing that came waits any more."""

    def abort(self) -> None:
        """End here and now."""


class Inflow:
    """Gives the connections of one server their turns. Used from one event loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with nobody waiting."""
        self._loop = loop
        #: What may still be read at once in this turn of the loop; nothing while somebody waits.
        self._left = _TURN_COST
        #: Those that wait, by client; whose turn is next comes first.
        self._lines: dict[str, deque[Source]] = {}

    def now(self, source: Source, data: bytes) -> bool:
        """Return whether it can be read at once; if not it waits, and `source.take` gets it in its turn.

        Args:
            source: Who brings it.
            data: What came.
        """
        left = self._left
        if left > 0 and len(data) <= PART_BYTES:
            self._left = after = left - _REQUEST_COST - len(data) // _COST_BYTES
            # Half of it is more than a turn has that is not crowded: so most of them cost no callback.
            if after < _TURN_COST // 2 <= left:
                self._loop.call_soon(self._begin_turn)
            return True
        waits = bool(source.waiting)
        source.waiting += data
        if waits:
            return False
        if not self._lines:
            self._left = 0
            self._loop.call_soon(self._serve)
        line = self._lines.get(source.peer)
        if line is None:
            line = self._lines[source.peer] = deque()
        line.append(source)
        return False

    def _begin_turn(self) -> None:
        if not self._lines:
            self._left = _TURN_COST

    def _serve(self) -> None:
        """Read from those that wait for as long as one turn of the loop may take."""
        lines, cost = self._lines, 0
        while lines and cost < _TURN_COST:
            peer, line = next(iter(lines.items()))
            source = line.popleft()
            part = bytes(source.waiting[:PART_BYTES])
            del source.waiting[:PART_BYTES]
            # Nothing waits any more of what has ended meanwhile.
            if part:
                cost += _REQUEST_COST + len(part) // _COST_BYTES
                try:
                    source.take(part)
                except Exception:  # noqa: BLE001 - whatever it is, it is this connection's
                    # It ends alone, as by its transport if it were read at once: nobody else would be read any more.
                    _log.exception("connection failed")
                    source.abort()
                    source.waiting.clear()
                if source.waiting:
                    line.append(source)
                else:
                    source.emptied()
            if not line:
                del lines[peer]
            elif len(lines) > 1:
                lines[peer] = lines.pop(peer)
        self._loop.call_soon(self._serve if lines else self._begin_turn)
