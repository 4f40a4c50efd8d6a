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
        totals: How many had ever been started, and had ever come, at some times.
        queued: How many wait.
        each_seconds: How long it takes from one's start to the next one's; None if that is not known.
        arrivals: How many come in a second.
    """

    asked: float
    totals: deque[tuple[float, int, int]] = field(default_factory=deque)
    queued: int = 0
    each_seconds: float | None = None
    arrivals: float = 0.0


class Turns:
    """Measures the queues that are asked for, while `run` runs."""

    def __init__(self, queues: Queues, *, now: Callable[[], float] = time.monotonic) -> None:
        self._queues, self._now = queues, now
        self._measured: dict[str, _Measured] = {}

    def of_new(self, queue: str) -> float | None:
        """Return how long a call that comes now waits for its turn, in seconds; None if that is not known."""
        return self.of_waiting(queue, 0.0)

    def of_waiting(self, queue: str, age_seconds: float) -> float | None:
        """Return how much longer one waits that has waited for some time, in seconds; None if that is not known.

        Behind it are those that came since, as far as the pace at which they come now tells how many these are.
        """
        found = self._asked(queue)
        if found.each_seconds is None:
            return None
        return found.each_seconds * max(0.0, found.queued - found.arrivals * age_seconds)

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
        latest = now, totals.get("started", 0) - totals.get("put_off", 0), totals.get("enqueued", 0)
        found.totals.append(latest)
        while now - found.totals[0][0] > _MOST_SECONDS:
            found.totals.popleft()
        seconds, started, came = (new - old for new, old in zip(latest, found.totals[0], strict=True))
        told = seconds >= _LEAST_SECONDS and started > 0 and figures.consumers > 0
        held = figures.paused or figures.stands_still or any(figures.lanes.values())
        found.queued = figures.queued
        found.each_seconds, found.arrivals = (seconds / started, came / seconds) if told and not held else (None, 0.0)
