"""Many deadlines and one timer: one for each call would cost more than the call's message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """What is due when, by the clock of the loop that runs when it is made."""

    def __init__(self, overdue: Callable[[K], None]) -> None:
        """Start with none.

        Args:
            overdue: Called with what is due, once it is: it is forgotten by then.
        """
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._due: dict[K, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, key: K, seconds: float) -> None:
        """Have `key` due in so many seconds."""
        due = self._due[key] = self._loop.time() + seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)
        elif due < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(due, self._look)

    def discard(self, key: K) -> None:
        """Forget `key`, if it is not due yet."""
        self._due.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now = self._loop.time()
        self._timer = None
        for key in [key for key, due in self._due.items() if due <= now]:
            del self._due[key]
            self._overdue(key)
        if self._due and self._timer is None:
            self._timer = self._loop.call_at(min(self._due.values()), self._look)
