"""How many bytes of requests and answers a process holds for its tasks: one budget for all of its queues.

Each claim could have as much as a queue's messages, and there may be a thousand queues.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from poste.runtime.counts import Counts

#: How many claims are under way at once: of each the last request may go beyond what is left.
_CLAIMS: Final = 4
#: What one of several queues may have: one whose calls are slow leaves the others the rest.
_SHARE: Final = 0.5


class HeldBytes:
    """Those of one process. Used from one event loop only.

    Attributes:
        queues: How many queues there are.
    """

    def __init__(self, limit: int) -> None:
        """Begin with none.

        Args:
            limit: How many bytes may be held, give or take one request of each claim and one answer.
        """
        self.queues = 0
        self._claims = asyncio.Semaphore(_CLAIMS)
        self._limit = limit
        self._held = 0
        self._of = Counts()
        #: How many answers are held, or have their room.
        self._answers = 0
        #: Answers that wait for room: whose, how large, and what is called once there is some.
        self._line: dict[object, tuple[str, int, Callable[[], None]]] = {}

    def left(self, queue: str) -> int:
        """Return how many more bytes may be held for a queue; below 0 if there are too many."""
        most = self._limit if self.queues <= 1 else int(self._limit * _SHARE)
        return min(self._limit - self._held, most - self._of[queue])

    def take(self, queue: str, size: int) -> None:
        """Hold so many bytes more."""
        self._held += size
        self._of.add(queue, size)

    def give(self, queue: str, size: int) -> None:
        """Hold so many bytes less."""
        self._held -= size
        self._of.remove(queue, size)
        if self._line:
            self._serve()

    @contextlib.asynccontextmanager
    async def claiming(self, queue: str, most: int) -> AsyncIterator[int]:
        """Claim tasks in the body, which waits its turn; yields how many bytes of requests, `most` at most.

        So many are held in the body, for by its end it is not known how many there are. None are where none are left.
        """
        async with self._claims:
            size = max(0, min(most, self.left(queue)))
            self.take(queue, size)
            try:
                yield size
            finally:
                self.give(queue, size)

    def take_answer(self, queue: str, size: int) -> None:
        """Hold an answer, whether there is room or not: it is here."""
        self._answers += 1
        self.take(queue, size)

    def give_answer(self, queue: str, size: int) -> None:
        """Hold an answer no more: it is reported, or it is of no account."""
        self._answers -= 1
        self.give(queue, size)

    def make_room(self, queue: str, size: int, made: Callable[[], None]) -> Callable[[], None]:
        """Take room for an answer, now or as soon as there is some: in turn, and for one there always is.

        Args:
            queue: Whose it is.
            size: How many bytes it is thought to have.
            made: Called once they are taken.

        Returns:
            To be called once it is not waited for any more.
        """
        asked = object()
        self._line[asked] = (queue, size, made)
        self._serve()

        def over() -> None:
            self._line.pop(asked, None)

        return over

    def _serve(self) -> None:
        for asked, (queue, size, made) in [*self._line.items()]:
            if self._answers and self.left(queue) < size:
                continue
            if self._line.pop(asked, None) is not None:
                self.take_answer(queue, size)
                made()
