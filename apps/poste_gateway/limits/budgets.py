"""Bounds on the bytes that the gateway holds for clients: one bound for all of them, a lower one for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from poste.runtime.counts import Counts

#: So many times a budget may wait until there is room in it.
_WAITING: Final = 3


class Budget:
    """Counts held bytes (or, where it says so, other things) against two limits.

    Attributes:
        limit: How many bytes may be held for all clients.
        held: How many are.
    """

    def __init__(self, limit: int, peer_limit: int) -> None:
        """Begin with nothing.

        Args:
            limit: How many bytes may be held for all clients.
            peer_limit: How many for one.
        """
        self.limit, self._peer_limit = limit, peer_limit
        self.held = 0
        self._of = Counts()

    def take(self, peer: str, size: int, *, beside: int = 0) -> bool:
        """Hold so many bytes more, if they fit; return whether they did.

        If nothing else is held, for all or for this client, anything fits: a message larger than the limit would
        otherwise never be served.

        Args:
            peer: The client; an empty one has no limit of its own.
            size: How many bytes more.
            beside: How many bytes of the same message are held already.
        """
        others = self.held - beside
        if others and self.held + size > self.limit:
            return False
        if peer:
            of_peer = self._of[peer]
            if of_peer - beside and of_peer + size > self._peer_limit:
                return False
            self._of.add(peer, size)
        self.held += size
        return True

    def give(self, peer: str, size: int) -> None:
        """Hold so many bytes less."""
        self.held -= size
        if peer:
            self._of.remove(peer, size)


@dataclass(slots=True, eq=False)
class Asked:
    """A request for room in a `PatientBudget`.

    Attributes:
        peer: The client; an empty one has no limit of its own.
        size: How many bytes.
        beside: How many bytes of the same message are held already.
        made: Called once they are held.
    """

    peer: str
    size: int
    beside: int
    made: Callable[[], None]


class PatientBudget(Budget):
    """A budget with a waiting line: when bytes are given back, the first in the line that fits is next.

    One that does not fit is passed by: a very large message, or one of a client that reads nothing, delays no other
    client's. How much may wait is bounded as well, in all and for each client.
    """

    def __init__(self, limit: int, peer_limit: int) -> None:
        """Begin with nothing.

        Args:
            limit: How many bytes may be held for all clients; three times as many may wait.
            peer_limit: How many for one; three times as many may wait.
        """
        super().__init__(limit, peer_limit)
        self._line: dict[Asked, None] = {}
        self._waiting = Budget(_WAITING * limit, _WAITING * peer_limit)

    @property
    def waiting(self) -> int:
        """How many bytes wait."""
        return self._waiting.held

    def ask(self, asked: Asked) -> bool:
        """Hold the bytes at once or as soon as they fit; return False if too much waits already."""
        if self.take(asked.peer, asked.size, beside=asked.beside):
            asked.made()
            return True
        if not self._waiting.take(asked.peer, asked.size):
            return False
        self._line[asked] = None
        return True

    def withdraw(self, asked: Asked) -> None:
        """Take a request out of the waiting line, if it is there."""
        if asked in self._line:
            del self._line[asked]
            self._waiting.give(asked.peer, asked.size)

    def give(self, peer: str, size: int) -> None:
        """Hold so many bytes less; then serve the waiting requests that fit now."""
        super().give(peer, size)
        for asked in [*self._line]:
            if self.take(asked.peer, asked.size, beside=asked.beside):
                self.withdraw(asked)
                asked.made()
