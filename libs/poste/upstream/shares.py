"""A client's share of a number of places: as many as it likes while enough of them are free for others.

A share that is fixed leaves places empty where few clients come, or leaves none where many do. So who has some may take
another as long as it has fewer than a multiple of those that are free: of many places one client alone comes to eight
of nine, two to eight of seventeen each, and a client that has none finds one. Of eight or fewer one may have all: of
so few none can be kept free. (Dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 1998.)
"""

from __future__ import annotations

from typing import Final

from poste.runtime.counts import Counts

#: How many places a client may have for each that is free.
_FOR_EACH_FREE: Final = 8


class Shares:
    """Counts which client has how many places.

    Attributes:
        held: How many each has; who has none is not in it.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.held = Counts()

    def allows(self, client: str, free: int) -> bool:
        """Return whether a client may take another place while so many are free."""
        return self.held.get(client, 0) < _FOR_EACH_FREE * free

    def take(self, client: str) -> None:
        """Give a client another place."""
        self.held.add(client)

    def give(self, client: str) -> None:
        """Take one of a client's places back."""
        self.held.remove(client)
