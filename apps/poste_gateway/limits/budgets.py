"""Bytes that the gateway holds for its clients: so many for all of them together, and for each a share of that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from poste.runtime.counts import Counts

#: Of what may be held so many times as much may wait until there is room.
_WAITING: Final = 3


class Budget:
    """Counts what is held.

    Attributes:
        limit: How many bytes may be held, for all.
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
        """Hold so many bytes more, if there is room for them.

        What is the only thing held, for all or for its peer, has all the room there is, however small the limit.

        Args:
            peer: Whose they are; an empty one has no limit of its own.
            size: How many.
            beside: How many are held already of the same thing.
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
    """Room that is asked for.

    Attributes:
        peer: Whose it is; an empty one has no limit of its own.
        size: How many bytes.
        beside: How many are held already of the same thing.
        made: Called once they are held.
    """

    peer: str
    size: int
    beside: int
    made: Callable[[], None]


class PatientBudget(Budget):
    """A budget that one may wait for: whoever finds room is next, in the order in which they came.

    Nobody waits behind one for whom there is none: what is left unread by a client, or is very large, holds up nobody
    else's. How much may wait is bounded, too, and what one client may have waiting.
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
        """Hold what is asked for, at once or as soon as there is room for it; returns whether it may wait for that."""
        if self.take(asked.peer, asked.size, beside=asked.beside):
            asked.made()
            return True
        if not self._waiting.take(asked.peer, asked.size):
            return False
        self._line[asked] = None
        return True

    def withdraw(self, asked: Asked) -> None:
        """Let it wait no longer, if it does."""
        if asked in self._line:
            del self._line[asked]
            self._waiting.give(asked.peer, asked.size)

    def give(self, peer: str, size: int) -> None:
        """Hold so many bytes less, and what finds room now instead."""
        super().give(peer, size)
        for asked in [*self._line]:
            if self.take(asked.peer, asked.size, beside=asked.beside):
                self.withdraw(asked)
                asked.made()
