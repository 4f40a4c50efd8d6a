"""The periodic duties of the middleware, with their periods. Every replica does them; each step is safe to do twice."""

from __future__ import annotations

import asyncio
import math
import random
import time
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from poste.domain.errors import StoreError
from poste.domain.policy import QueuePolicy
from poste.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from poste.queue.tasks import Tasks
    from poste.queue.upkeep import PassReport, Upkeep
    from poste_mom.catalogue import Catalogue

_log = logs.get("passes")
_journal = logs.Journal("passes")
#: How often lists whose consumer has no lease at all are looked for, in seconds.
_ORPHANS_SECONDS: Final = 600.0
#: How soon they are looked for again where a server did not answer, in seconds.
_ORPHANS_AGAIN_SECONDS: Final = 10.0
#: How many queues are looked after at once.
_AT_ONCE: Final = 16


async def keep(tasks: Tasks, upkeep: Upkeep, catalogue: Catalogue, *, pass_seconds: float) -> None:
    """Look after every queue, for as long as the process lives. One that is away keeps nobody else's waiting."""
    orphans_due = -math.inf
    queues: list[str] = []
    while True:
        if time.monotonic() > orphans_due:
            orphans_due = time.monotonic() + await _bury_orphans(upkeep)
        try:
            # Those of the catalogue too: of a service that nothing was queued for yet, a consumer's lease may be over.
            queues = sorted({*await tasks.queues(), *(entry.name for entry in catalogue.entries())})
        except StoreError as error:
            # In a cluster the list may be away where queues are not: the last one known is good.
            _log.warning("waiting for Redis", error=str(error))
        await for_each(queues, lambda queue: _look_after(queue, upkeep, catalogue))
        # Replicas that started together drift apart.
        await asyncio.sleep(pass_seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spread, not secrecy


async def _bury_orphans(upkeep: Upkeep) -> float:
    """Look for lists whose consumer has no lease at all; returns when to look again, in seconds."""
    try:
        buried = await upkeep.bury_orphans()
    except (StoreError, RedisError) as error:
        _log.warning("orphaned lists not looked for", error=str(error))
        return _ORPHANS_AGAIN_SECONDS
    if buried:
        _log.warning("orphaned lists buried", lists=buried)
    return _ORPHANS_SECONDS


async def _look_after(queue: str, upkeep: Upkeep, catalogue: Catalogue) -> None:
    service = catalogue.get(queue)
    policy = service.policy.queue if service else QueuePolicy()
    try:
        _tell(queue, await upkeep.look_after(queue, max_crashes=policy.max_crashes))
    except (StoreError, RedisError) as error:
        _log.warning("waiting for Redis", queue=queue, error=str(error))


async def for_each(queues: Iterable[str], do: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Do something for every queue, some at once: one whose Redis hangs must not hold up the others'."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def do_in_turn(queue: str) -> None:
        async with room:
            await do(queue)

    async with asyncio.TaskGroup() as group:
        for queue in queues:
            group.create_task(do_in_turn(queue))


def _tell(queue: str, report: PassReport) -> None:
    if report.reaped:
        _log.warning("reaped", queue=queue, **report.reaped)
    for key, how in report.ended:
        _journal.write("task", {"key": key, "service": queue, "result": how})
