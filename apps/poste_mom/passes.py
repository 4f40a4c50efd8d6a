"""The periodic duties of the middleware, with their periods. Every replica does them; each step is safe to do twice."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from poste.domain.errors import StoreError
from poste.domain.policy import QueuePolicy
from poste.runtime import logs, metrics

if TYPE_CHECKING:
    from poste.queue.tasks import Tasks
    from poste.queue.upkeep import PassReport, Upkeep
    from poste_mom.catalogue import Catalogue

_log = logs.get("passes")
#: How often lists whose consumer has no lease at all are looked for, in seconds.
_ORPHANS_SECONDS: Final = 600.0


async def keep(tasks: Tasks, upkeep: Upkeep, catalogue: Catalogue, *, pass_seconds: float) -> None:
    """Look after every queue, for as long as the process lives."""
    orphans_sought: float | None = None
    while True:
        try:
            if orphans_sought is None or time.monotonic() - orphans_sought > _ORPHANS_SECONDS:
                if buried := await upkeep.bury_orphans():
                    _log.warning("orphaned lists buried", lists=buried)
                orphans_sought = time.monotonic()
            for queue in await tasks.queues():
                service = catalogue.get(queue)
                policy = service.policy.queue if service else QueuePolicy()
                _tell(queue, await upkeep.look_after(queue, max_crashes=policy.max_crashes))
        except (StoreError, RedisError) as error:
            _log.warning("waiting for Redis", error=str(error))
        # Replicas that started together drift apart.
        await asyncio.sleep(pass_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spread, not secrecy


async def collect(tasks: Tasks) -> None:
    """Bring the gauges of every queue up to date: read from Redis at each scrape, so right after any restart."""
    try:
        for queue in await tasks.queues():
            figures = await tasks.figures(queue)
            for state in ("queued", "running", "delayed", "dead"):
                metrics.queue_tasks.labels(queue, state).set(getattr(figures, state))
            metrics.queue_oldest_seconds.labels(queue).set(figures.oldest_age_seconds or 0)
            metrics.queue_consumers.labels(queue).set(figures.consumers)
    except StoreError as error:
        _log.warning("figures not read", error=str(error))


def _tell(queue: str, report: PassReport) -> None:
    for outcome, count in report.reaped.items():
        metrics.reaped_total.labels(queue, outcome).inc(count)
    for outcome in ("dead", "cancelled"):
        if report.reaped[outcome]:
            metrics.finished_total.labels(queue, outcome).inc(report.reaped[outcome])
    if report.expired:
        metrics.finished_total.labels(queue, "expired").inc(report.expired)
    if report.reaped:
        _log.warning("reaped", queue=queue, **report.reaped)
