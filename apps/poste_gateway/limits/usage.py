"""Per-connection accounting against the shared limits: a place, bytes of requests, bytes of responses."""

from __future__ import annotations

from collections.abc import Callable

from poste_gateway.limits.budgets import Asked
from poste_gateway.limits.capacity import Capacity
from poste_gateway.limits.refusals import refuse


class Usage:
    """Counts what one connection takes; gives all of it back when the connection is lost.

    Attributes:
        received: How many bytes of unanswered requests are counted.
        unsent: How many bytes of its response are counted.
    """

    __slots__ = ("_address", "_capacity", "_gone", "_left", "_peer", "received", "unsent")

    def __init__(self, capacity: Capacity, peer: str, address: str) -> None:
        """Begin with its place, which `Capacity.enter` has counted already.

        Args:
            capacity: The shared limits.
            peer: The client that its share is counted for; empty if it has none of its own.
            address: The client's address, for the log.
        """
        self._capacity, self._peer, self._address = capacity, peer, address
        self.received = self.unsent = 0
        self._left = False
        #: Called when the connection is lost while a response waits for room.
        self._gone: Callable[[], None] | None = None

    def receive(self, size: int) -> bool:
        """Raise the count of received bytes to `size`; return whether there is room for that."""
        more = size - self.received
        if more > 0:
            if not self._capacity.received.take(self._peer, more, beside=self.received):
                return False
            self.received += more
        return True

    def keep(self, size: int) -> None:
        """Lower the count of received bytes to `size`."""
        less = self.received - max(0, size)
        if less > 0:
            self._capacity.received.give(self._peer, less)
            self.received -= less

    def promise(self, size: int) -> bool:
        """Count a response of `size` bytes before it is written; return whether there is room for it."""
        more = size - self.unsent
        if more <= 0:
            return True
        if not self._capacity.unsent.take(self._peer, more, beside=self.unsent):
            refuse("answers", peer=self._address, bytes=size)
            return False
        self.unsent += more
        return True

    def make_room(self, size: int, decided: Callable[[bool], None]) -> Callable[[], None]:
        """Count a response that its service holds back until there is room for it here.

        Args:
            size: How many bytes it will be.
            decided: Called with True once it is counted; with False if too many wait for room already, or if the
                connection is lost.

        Returns:
            To be called when the response has arrived, or is not wanted any more.
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
        """Stop counting its response: it was written, or given up."""
        self._capacity.unsent.give(self._peer, self.unsent)
        self.unsent = 0

    def leave(self) -> None:
        """Give its place back, once; a response that waits for room waits no more."""
        if self._gone is not None:
            self._gone()
        if not self._left:
            self._left = True
            self._capacity.leave(self._peer)
