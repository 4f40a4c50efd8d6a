"""Measures how long a call has to wait for its turn: how many wait before it, by how many are started in a second.

What was called lately is measured once a second. Where nothing was started of late, or something else than the queue's
length decides (a pause, a method's own pace), the time is not known, and nothing is said.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.runtime import logs
from poste_mom.queues.all_queues import for_each

if TYPE_CHECKING:
    from collections.abc import Callable

    from poste.queue.queues import QueueFigures, Queues

#: How often a queue is measured, in seconds, and for how long after it was last asked for.
_PERIOD_SECONDS: Final = 1.0
_ASKED_SECONDS: Final = 60.0
#: Over how long starts are counted, in seconds: at least and at most.
_LEAST_SECONDS, _MOST_SECONDS = 2.0, 30.0
_log: Final = logs.get("turns")


@dataclass(slots=True)
class _Measured:
    """What is known of a queue.

    Attributes:
        asked: When it was last asked for, by the monotonic clock.
        starts: How many had ever been started at some times.
        seconds: How long all that waits takes to be started; None if that is not known.
        oldest_age_seconds: The age of what waits longest.
    """

    asked: float
    starts: deque[tuple[float, int]] = field(default_factory=deque)
    seconds: float | None = None
    oldest_age_seconds: float = 0.0


class Turns:
    """Measures the queues that are asked for, while `run` runs."""

    def __init__(self, queues: Queues, *, now: Callable[[], float] = time.monotonic) -> None:
        self._queues, self._now = queues, now
        self._measured: dict[str, _Measured] = {}

    def of_new(self, queue: str) -> float | None:
        """Return how long a call that comes now waits for its turn, in seconds; None if that is not known."""
        return self._asked(queue).seconds

    def of_waiting(self, queue: str, age_seconds: float) -> float | None:
        """Return how much longer one waits that has waited for some time, in seconds; None if that is not known.

        Those before it are taken to be as many as its age says among those of all that wait.
        """
        found = self._asked(queue)
        if found.seconds is None or found.oldest_age_seconds <= 0:
            return None
        return found.seconds * min(1.0, max(0.0, 1 - age_seconds / found.oldest_age_seconds))

    async def run(self) -> None:
        """Measure once a second. Never returns."""
        while True:
            over = self._now() - _ASKED_SECONDS
            self._measured = {queue: one for queue, one in self._measured.items() if one.asked > over}
            await for_each(list(self._measured), self._measure)
            await asyncio.sleep(_PERIOD_SECONDS)

    def _asked(self, queue: str) -> _Measured:
        now = self._now()
        found = self._measured.get(queue)
        if found is None:
            found = self._measured[queue] = _Measured(now)
        found.asked = now
        return found

    async def _measure(self, queue: str) -> None:
        try:
            figures = await self._queues.figures(queue)
        except StoreError as error:
            _log.warning("queue not measured", queue=queue, error=str(error))
        else:
            self.note(queue, figures)

    def note(self, queue: str, figures: QueueFigures) -> None:
        """Take in a queue's figures as they are now."""
        found, now = self._measured.get(queue), self._now()
        if found is None:
            return
        totals = figures.totals
        found.starts.append((now, totals.get("started", 0) - totals.get("put_off", 0)))
        while now - found.starts[0][0] > _MOST_SECONDS:
            found.starts.popleft()
        began, before = found.starts[0]
        started, seconds = found.starts[-1][1] - before, now - began
        found.oldest_age_seconds = figures.oldest_age_seconds or 0.0
        told = seconds >= _LEAST_SECONDS and started > 0 and figures.consumers > 0
        held = figures.paused or figures.stands_still or any(figures.lanes.values())
        found.seconds = figures.queued * seconds / started if told and not held else None
