"""What one connection takes of the shared limits: a place, bytes of its requests, bytes of its responses."""

from __future__ import annotations

from collections.abc import Callable

from poste_gateway.limits.budgets import Asked
from poste_gateway.limits.capacity import Capacity
from poste_gateway.limits.refusals import refuse


class Usage:
    """Counts it, and gives all of it back when the connection is lost.

    Attributes:
        received: How many bytes are counted of what came and is not answered yet.
        unsent: How many bytes are counted of its answer.
    """

    __slots__ = ("_address", "_capacity", "_gone", "_left", "_peer", "received", "unsent")

    def __init__(self, capacity: Capacity, peer: str, address: str) -> None:
        """Begin with its place, which was counted when it was let in.

        Args:
            capacity: What there is room for.
            peer: Whose it is, as its share is counted; empty if it has none of its own.
            address: Where it comes from.
        """
        self._capacity, self._peer, self._address = capacity, peer, address
        self.received = self.unsent = 0
        self._left = False
        #: Called when it is lost, if an answer waits for room.
        self._gone: Callable[[], None] | None = None

    def receive(self, size: int) -> bool:
        """Count so many bytes as received, if they are more than were counted; returns whether there is room."""
        more = size - self.received
        if more > 0:
            if not self._capacity.received.take(self._peer, more, beside=self.received):
                return False
            self.received += more
        return True

    def keep(self, size: int) -> None:
        """Count no more than so many bytes as received."""
        less = self.received - max(0, size)
        if less > 0:
            self._capacity.received.give(self._peer, less)
            self.received -= less

    def promise(self, size: int) -> bool:
        """Count an answer of so many bytes that is to be written; returns whether there is room for it."""
        more = size - self.unsent
        if more <= 0:
            return True
        if not self._capacity.unsent.take(self._peer, more, beside=self.unsent):
            refuse("answers", peer=self._address, bytes=size)
            return False
        self.unsent += more
        return True

    def make_room(self, size: int, decided: Callable[[bool], None]) -> Callable[[], None]:
        """Count an answer of so many bytes that is still with its service, as soon as there is room for it.

        Args:
            size: How many bytes it will be.
            decided: Called with True once it is counted; with False if there is no room, not even to wait for some, or
                if the client goes.

        Returns:
            What is to be called when the answer is here, or not wanted any more.
        """
        more = max(0, size - self.unsent)

        def made() -> None:
            self.unsent += more
            decided(True)

        def over() -> None:
            self._gone = None
            self._capacity.unsent.withdraw(asked)

        def gone() -> None:
            over()
            decided(False)

        asked = Asked(self._peer, more, self.unsent, made)
        self._gone = gone
        if self._left or not self._capacity.unsent.ask(asked):
            gone()
        return over

    def answered(self) -> None:
        """Count nothing more of its answer."""
        self._capacity.unsent.give(self._peer, self.unsent)
        self.unsent = 0

    def leave(self) -> None:
        """Give its place back: it ends, or has ended. No answer waits for room any more."""
        if self._gone is not None:
            self._gone()
        if not self._left:
            self._left = True
            self._capacity.leave(self._peer)
