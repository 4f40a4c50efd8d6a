"""Many deadlines and one timer: one for each call would cost more than the call's message."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from poste.runtime import loop_lag

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """What is due when, by the clock of the loop that runs when it is made."""

    def __init__(self, overdue: Callable[[K], None], *, fair: bool = False) -> None:
        """Start with none.

        Args:
            overdue: Called with what is due, once it is: it is forgotten by then.
            fair: Do not count time in which the event loop was blocked, when no call could get on: what waited through
                it is due as much later.
        """
        self._overdue = overdue
        self._fair = fair
        self._loop = asyncio.get_running_loop()
        #: The context in which `overdue` is called: without it, that of the call which happened to set the timer.
        self._context = contextvars.copy_context()
        #: When each is due, and for how long the loop was blocked before it was added, if that matters.
        self._due: dict[K, tuple[float, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        #: When the timer is to go off. Kept here: a uvloop handle that is scheduled for now has no when().
        self._timer_time = math.inf

    def add(self, key: K, seconds: float) -> None:
        """Have `key` due in so many seconds."""
        due = self._loop.time() + seconds
        self._due[key] = due, loop_lag.blocked_seconds() if self._fair else 0.0
        if due < self._timer_time:
            self._set_timer(due)

    def discard(self, key: K) -> None:
        """Forget `key`, if it is not due yet."""
        self._due.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_time = None, math.inf

    def _set_timer(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_time = self._loop.call_at(due, self._run_due, context=self._context), due

    def _run_due(self) -> None:
        now = self._loop.time()
        late = now - self._timer_time
        self._timer, self._timer_time = None, math.inf
        if self._fair and late > loop_lag.BLOCKED_SECONDS:
            # Let the other callbacks run first: by then it is known for how long the loop was blocked.
            self._set_timer(now + loop_lag.PERIOD_SECONDS)
            return
        for key in [key for key, (due, _) in self._due.items() if due <= now]:
            if key not in self._due:
                continue
            due, before = self._due[key]
            if self._fair and (lost := loop_lag.blocked_seconds() - before) > 0:
                self._due[key] = due + lost, before + lost
                if due + lost > now:
                    continue
            self.discard(key)
            self._overdue(key)
        if self._due:
            # `overdue` may have added something that is due sooner.
            self._set_timer(min(due for due, _ in self._due.values()))
