"""Bytes that the gateway holds for its clients: so many for all of them together, and for each a share of that."""

from __future__ import annotations

from collections import Counter


class Budget:
    """Counts what is held.

    Attributes:
        held: How many bytes are held, for all.
    """

    def __init__(self, limit: int, peer_limit: int) -> None:
        """Begin with nothing.

        Args:
            limit: How many bytes may be held for all clients.
            peer_limit: How many for one.
        """
        self._limit, self._peer_limit = limit, peer_limit
        self.held = 0
        self._of: Counter[str] = Counter()

    def take(self, peer: str, size: int, *, beside: int = 0) -> bool:
        """Hold so many bytes more, if there is room for them.

        What is the only thing held, for all or for its peer, has all the room there is, however small the limit.

        Args:
            peer: Whose they are; an empty one has no limit of its own.
            size: How many.
            beside: How many are held already of the same thing.
        """
        others = self.held - beside
        if others and self.held + size > self._limit:
            return False
        if peer:
            of_peer = self._of[peer]
            if of_peer - beside and of_peer + size > self._peer_limit:
                return False
            self._of[peer] = of_peer + size
        self.held += size
        return True

    def give(self, peer: str, size: int) -> None:
        """Hold so many bytes less."""
        self.held -= size
        if peer:
            left = self._of[peer] - size
            if left:
                self._of[peer] = left
            else:
                del self._of[peer]
