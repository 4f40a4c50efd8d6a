"""Fair parsing: round robin among clients when more data arrives than one turn of the event loop can parse.

asyncio serves every readable connection in one turn of the loop: all thousand requests of a client with a thousand
connections, while other clients wait. So only so much is parsed in one turn. The rest waits, and is parsed in parts,
one client after the other (clients without a share of their own count as one).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from poste.runtime import logs
from poste.runtime.young_objects import YoungObjects

#: How much is parsed in one turn of the loop, in units of cost: some 50 requests, or 25 KB in chunks of two bytes.
#: Either takes some 5 ms.
_TURN_COST: Final = 4096
#: What a request costs besides its bytes, for it is answered too.
_REQUEST_COST: Final = 64
#: So many bytes cost one unit, reckoned for the slowest case: chunks of a byte or two.
_COST_BYTES: Final = 8
#: How much is parsed at a time, in bytes.
PART_BYTES: Final = 4 * 1024
#: How many objects each line of a head becomes; the parser keeps them until the connection's next request.
_OBJECTS_OF_LINE: Final = 2

_log: Final = logs.get("inflow")


class Source(Protocol):
    """A connection whose client sends."""

    peer: str
    waiting: bytearray

    def take(self, data: bytes, /) -> None:
        """Parse data."""

    def emptied(self) -> None:
        """Called when `waiting` has become empty."""

    def abort(self) -> None:
        """Close the connection at once."""


class Inflow:
    """Gives the connections of one server their turns. Used from one event loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with nothing waiting."""
        self._loop = loop
        self._young = YoungObjects()
        #: The cost that is left in this turn of the loop; nothing while a connection waits.
        self._left = _TURN_COST
        #: The waiting connections by client; the client whose turn is next comes first.
        self._lines: dict[str, deque[Source]] = {}

    def now(self, source: Source, data: bytes) -> bool:
        """Return whether data can be parsed at once; if not it waits, and `source.take` gets it in its turn.

        Args:
            source: The connection.
            data: What it received.
        """
        left = self._left
        if left > 0 and len(data) <= PART_BYTES:
            self._left = after = left - _REQUEST_COST - len(data) // _COST_BYTES
            # Only a busy turn uses up half of its cost: others need no callback that sets it back.
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

    def made(self, lines: int) -> None:
        """Count what was made of a head's lines."""
        self._young.made(_OBJECTS_OF_LINE * lines)

    def _begin_turn(self) -> None:
        if not self._lines:
            self._left = _TURN_COST

    def _serve(self) -> None:
        """Parse what waits, as much as one turn of the loop may cost."""
        lines, cost = self._lines, 0
        while lines and cost < _TURN_COST:
            peer, line = next(iter(lines.items()))
            source = line.popleft()
            part = bytes(source.waiting[:PART_BYTES])
            del source.waiting[:PART_BYTES]
            # It is empty if the connection has ended meanwhile.
            if part:
                cost += _REQUEST_COST + len(part) // _COST_BYTES
                try:
                    source.take(part)
                except Exception:  # noqa: BLE001 - it ends this connection only
                    # As its transport would do. Raised from here, it would end the parsing of all other connections.
                    _log.exception("connection failed")
                    source.abort()
                    source.waiting.clear()
                self.made(part.count(b"\n"))
                if source.waiting:
                    line.append(source)
                else:
                    source.emptied()
            if not line:
                del lines[peer]
            elif len(lines) > 1:
                lines[peer] = lines.pop(peer)
        self._loop.call_soon(self._serve if lines else self._begin_turn)
