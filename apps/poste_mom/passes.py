"""The periodic duties of the middleware, with their periods. Every replica does them; each step is safe to do twice."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.domain.policy import QueuePolicy
from poste.runtime import logs
from poste_mom.queues.all_queues import for_each, known

if TYPE_CHECKING:
    from poste.queue.maintenance import Maintenance, PassReport
    from poste.queue.moves import Moves
    from poste.queue.queues import Queues
    from poste_mom.catalogue.catalogue import Catalogue
    from poste_mom.queues.budgets import Budgets

_log = logs.get("passes")
#: How often lists whose consumer has no lease at all are searched for, in seconds.
_ORPHANS_SECONDS: Final = 600.0
#: How soon the search is repeated if a server did not answer, in seconds.
_ORPHANS_AGAIN_SECONDS: Final = 10.0


async def keep(
    queues: Queues,
    maintenance: Maintenance,
    moves: Moves,
    catalogue: Catalogue,
    budgets: Budgets,
    *,
    pass_seconds: float,
) -> None:
    """Run a pass over every queue, again and again, until cancelled. A queue whose Redis is away delays no other."""
    orphans_due = -math.inf
    names: set[str] = set()
    passes = _Passes(maintenance, moves, catalogue, budgets)
    while True:
        if time.monotonic() > orphans_due:
            orphans_due = time.monotonic() + await _reap_orphans(maintenance)
        try:
            # Where nothing was queued yet, a consumer's lease may be over too.
            names = await known(queues, catalogue)
        except StoreError as error:
            # In a cluster the list may be away where queues are not: the last one known is good.
            _log.warning("waiting for Redis", error=str(error))
        await for_each(names, passes.run)
        # Replicas that started together drift apart.
        await asyncio.sleep(pass_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spread, not secrecy


async def _reap_orphans(maintenance: Maintenance) -> float:
    """Reap lists whose consumer has no lease at all; return how soon to search again, in seconds."""
    try:
        reaped = await maintenance.reap_orphans()
    except StoreError as error:
        _log.warning("orphaned lists not searched", error=str(error))
        return _ORPHANS_AGAIN_SECONDS
    if reaped:
        _log.warning("orphaned lists reaped", lists=reaped)
    return _ORPHANS_SECONDS


class _Passes:
    """Runs passes, and logs what they changed."""

    def __init__(self, maintenance: Maintenance, moves: Moves, catalogue: Catalogue, budgets: Budgets) -> None:
        self._maintenance = maintenance
        self._moves = moves
        self._catalogue = catalogue
        self._budgets = budgets
        #: The queues that stand still: their ended tasks take all of their budget, so none is started.
        self._spent: set[str] = set()

    async def run(self, queue: str) -> None:
        service = self._catalogue.get(queue)
        policy = service.policy.queue if service else QueuePolicy()
        budget = None
        with contextlib.suppress(StoreError):
            budget = await self._budgets.of_ended(queue)
        try:
            report = await self._maintenance.run_pass(queue, max_crashes=policy.max_crashes, budget=budget)
        except StoreError as error:
            _log.warning("waiting for Redis", queue=queue, error=str(error))
        else:
            self._report(queue, report)
            if report.moving:
                await self._resume_moves(queue)

    async def _resume_moves(self, queue: str) -> None:
        """Go on with moves out of a queue; what they wait for may be another queue's Redis."""
        try:
            if over := await self._moves.resume(queue):
                _log.info("moves resumed", queue=queue, tasks=over)
        except StoreError as error:
            _log.warning("moves wait for Redis", queue=queue, error=str(error))

    def _report(self, queue: str, report: PassReport) -> None:
        if report.reaped:
            _log.warning("reaped", queue=queue, **report.reaped)
        if report.is_spent and queue not in self._spent:
            self._spent.add(queue)
            _log.warning("queue stands still", queue=queue, reason="what ended in it takes all that it may hold")
        elif not report.is_spent and queue in self._spent:
            self._spent.remove(queue)
            _log.info("queue goes on", queue=queue)
