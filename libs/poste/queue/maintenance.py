"""The periodic maintenance of queues, on a timer in every middleware replica: the reaper is the first of it.

Each step is safe to repeat, and to be done by several replicas at once.

Per queue and pass: count what ended and is kept anew, say how many bytes of it there may be, reap consumers whose lease
is over, sweep the lists of those already reaped, wake what is due, settle waiting tasks that are overdue. At
start and every ten minutes: note the consumers of lists without any lease as reaped.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from poste.queue.keys import KEYS, Keys, QueueKeys
from poste.queue.reaper import Reaper
from poste.queue.scripts import Scripts
from poste.queue.steps import maintenance as steps

if TYPE_CHECKING:
    import redis.asyncio as redis

#: Keys handled by one script call, so that no call blocks Redis for long.
_BATCH: Final = 200
#: So many windows of a queue are swept in one pass at most, while more than this share of its keys are of ended tasks.
_MOST_WINDOWS: Final = 50
_MOST_ENDED: Final = 1 / 8
#: Retries, and calls that could not run yet, woken by one script call: so many of each.
_WAKE_BATCH: Final = 1000
#: So many passes' time at most counts from one pass to the next: their spread, and a little of their own time.
_STEP_PASSES: Final = 1.5


@dataclass(slots=True)
class PassReport:
    """What one pass over one queue did.

    Attributes:
        reaped: What became of what dead consumers held, by the script's words for it.
        woken: How many retries were due, and calls that could not run yet.
        is_spent: What ended takes as many bytes as it may: no task is started.
        moving: How many tasks are on their way to another queue.
    """

    reaped: Counter[str] = field(default_factory=Counter)
    woken: int = 0
    is_spent: bool = False
    moving: int = 0


class Maintenance:
    """Maintains the queues of one Redis."""

    def __init__(self, client: redis.Redis, *, pass_seconds: float, keys: Keys = KEYS) -> None:
        """Prepare.

        Args:
            client: Reaches the Redis.
            pass_seconds: How often `run_pass` is called for each queue. What comes later than half as much again is
                taken for an absence, in which no consumer could renew its lease: it counts towards no lease's end.
            keys: Name what is kept there.
        """
        self._keys = keys
        self._scripts = Scripts(client)
        self._reaper = Reaper(client, keys)
        self._step_seconds = pass_seconds * _STEP_PASSES
        self._cursors: dict[str, int] = {}

    async def run_pass(self, queue: str, *, max_crashes: int, budget: steps.Budget | None = None) -> PassReport:
        """Do one pass over a queue.

        Args:
            queue: The queue's name.
            max_crashes: How often a task may kill its process, alone, before it is DEAD.
            budget: How many bytes what ended may take; if that is not known, it stays as it is.

        Raises:
            StoreError: Redis did not answer; the next pass goes on.
        """
        at, report = self._keys.of(queue), PassReport()
        tick = await steps.tick(self._scripts, at, step_seconds=self._step_seconds, budget=budget)
        report.is_spent, report.moving = tick.is_spent, tick.moving
        report.reaped = await self._reaper.reap(at, tick, max_crashes=max_crashes)
        while (woken := await steps.wake(self._scripts, at, count=_WAKE_BATCH)) > 0:
            report.woken += woken
        await self._sweep(at)
        return report

    async def reap_orphans(self) -> int:
        """Note as reaped each incarnation that has a `taken:` list, no lease, and was not reaped.

        Returns:
            How many there were.

        Raises:
            StoreError: A server did not answer; the others were searched all the same.
        """
        return await self._reaper.reap_orphans()

    async def _sweep(self, at: QueueKeys) -> None:
        """Settle overdue tasks: those at the front while there are any, and one window that wanders over each list.

        Times to live differ from call to call, so an overdue task may stand anywhere. One that is read or taken is
        settled at once; the wandering window gets to the rest. While many of the keys are of ended tasks, it wanders
        on: a client that enqueues and cancels leaves a key each time, far faster than one window takes them off.
        """
        places = [at.ready, *await steps.lanes(self._scripts, at)]
        for place in places:
            while await self._sweep_window(at, place, -_BATCH, -1) == _BATCH:
                pass
        for _ in range(_MOST_WINDOWS):
            lengths, ended = await steps.backlog(self._scripts, at, places)
            for place, length in zip(places, lengths, strict=True):
                start = self._cursors.pop(place, 0)
                if start < length and length > _BATCH:
                    removed = await self._sweep_window(at, place, start, start + _BATCH - 1)
                    self._cursors[place] = start + _BATCH - removed
            if ended <= max(_BATCH, sum(lengths) * _MOST_ENDED):
                return

    async def _sweep_window(self, at: QueueKeys, place: str, first: int, last: int) -> int:
        keys = await steps.listed(self._scripts, at, place, first, last)
        if not keys:
            return 0
        return await steps.sweep(self._scripts, at, place, first, keys)
