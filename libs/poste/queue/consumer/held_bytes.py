"""How many bytes of requests and answers a process holds for its tasks: one budget for all of its queues.

Each claim could have as much as a queue's messages, and there may be a thousand queues.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

#: How many claims are under way at once: of each the last request may go beyond what is left.
_CLAIMS: Final = 4
#: What one of several queues may have: one whose calls are slow leaves the others the rest.
_SHARE: Final = 0.5


class HeldBytes:
    """Those of one process. Used from one event loop only.

    Attributes:
        queues: How many queues there are.
        total: How many bytes are held. A claimed request is added here by whoever claims it, without a call.
    """

    def __init__(self, limit: int) -> None:
        """Begin with none.

        Args:
            limit: How many bytes may be held, give or take one request of each claim and one answer.
        """
        self.queues = 0
        self.total = 0
        self._claims = asyncio.Semaphore(_CLAIMS)
        self._limit = limit
        #: How many answers are held, or have their room.
        self._answers = 0
        #: Answers that wait for room: how large, and what is called once there is some.
        self._line: dict[object, tuple[int, Callable[[], None]]] = {}

    def left(self, own: int) -> int:
        """Return how many more bytes of requests a queue may have that has `own` of them; below 0 if too many."""
        most = self._limit if self.queues <= 1 else int(self._limit * _SHARE)
        return min(self._limit - self.total, most - own)

    def give(self, size: int) -> None:
        """Hold so many bytes less."""
        self.total -= size
        if self._line:
            self._serve()

    @contextlib.asynccontextmanager
    async def claiming(self, own: int, most: int) -> AsyncIterator[int]:
        """Claim tasks in the body, which waits its turn; yields how many bytes of requests, `most` at most.

        So many are held in the body, for by its end it is not known how many there are. None are where none are left.
        """
        async with self._claims:
            size = max(0, min(most, self.left(own)))
            self.total += size
            try:
                yield size
            finally:
                self.give(size)

    def take_answer(self, size: int) -> None:
        """Hold an answer, whether there is room or not: it is here."""
        self._answers += 1
        self.total += size

    def give_answer(self, size: int) -> None:
        """Hold an answer no more: it is reported, or it is of no account."""
        self._answers -= 1
        self.give(size)

    def make_room(self, size: int, made: Callable[[], None]) -> Callable[[], None]:
        """Take room for an answer, now or as soon as there is some: in turn, and for one there always is.

        Args:
            size: How many bytes it is thought to have.
            made: Called once they are taken.

        Returns:
            To be called once it is not waited for any more.
        """
        asked = object()
        self._line[asked] = (size, made)
        self._serve()

        def over() -> None:
            self._line.pop(asked, None)

        return over

    def _serve(self) -> None:
        for asked, (size, made) in [*self._line.items()]:
            if self._answers and self._limit - self.total < size:
                continue
            if self._line.pop(asked, None) is not None:
                self.take_answer(size)
                made()
