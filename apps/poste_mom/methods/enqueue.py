"""Accepts calls: each is judged, and written to its service's queue if that has room."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError, StoreLost, StoreNotRead, StoreUnreached
from poste.runtime import logs, metrics
from poste.runtime.log_throttle import LogThrottle
from poste.v1 import mom_service_pb2 as pb
from poste_mom.messages import incoming
from poste_mom.methods.answers import for_queues
from poste_mom.server import validation

if TYPE_CHECKING:
    from poste.queue.store_health import StoreHealth
    from poste.queue.tasks import Tasks
    from poste_mom.catalogue.catalogue import Catalogue
    from poste_mom.methods.answers import Context
    from poste_mom.queues.budgets import Budgets

_log = logs.get("enqueue")
_ENQUEUED: Final = {
    "accepted": pb.ENQUEUE_RESULT_ACCEPTED,
    "full": pb.ENQUEUE_RESULT_QUEUE_FULL,
    "spent": pb.ENQUEUE_RESULT_BUDGET_SPENT,
    "clock": pb.ENQUEUE_RESULT_CLOCK_OFF,
}
#: Answers that an operator is to know of: they end when somebody makes room.
_NO_ROOM: Final = (pb.ENQUEUE_RESULT_QUEUE_FULL, pb.ENQUEUE_RESULT_BUDGET_SPENT)
#: How often it is told which calls a queue has no room for, in seconds: the first at once.
_TELL_SECONDS: Final = 10.0


class EnqueueServicer:
    """Serves `EnqueueTasks`."""

    def __init__(self, tasks: Tasks, catalogue: Catalogue, health: StoreHealth, budgets: Budgets) -> None:
        self._tasks = tasks
        self._catalogue = catalogue
        self._health = health
        self._budgets = budgets
        self._seldom = LogThrottle(_log, "warning", period_seconds=_TELL_SECONDS)

    async def EnqueueTasks(
        self,
        request: pb.EnqueueTasksRequest,
        context: Context,  # noqa: ARG002 - every answer is in the message
    ) -> pb.EnqueueTasksResponse:
        if any(self._unknown(task) is not None for task in request.tasks):
            # It may have registered at another replica of the middleware a moment ago.
            with contextlib.suppress(StoreError):
                await self._catalogue.refresh()
        results = [pb.ENQUEUE_RESULT_UNSPECIFIED] * len(request.tasks)
        queues: defaultdict[str, list[tuple[int, pb.NewTask]]] = defaultdict(list)
        refused: Counter[str] = Counter()
        for place, task in enumerate(request.tasks):
            unknown = self._unknown(task)
            refusal = unknown or validation.wrong_with_task(task)
            if refusal is None:
                queues[task.service].append((place, task))
                continue
            results[place], word = refusal, _short(refusal)
            known = self._catalogue.get(task.service) is not None
            metrics.enqueue_answers(task.service if known else "unknown", word).inc()
            refused[word] += unknown is None
        if refused.total():
            _log.warning("tasks refused at the door", **+refused)
        await for_queues([self._enqueue(queue, tasks, results) for queue, tasks in queues.items()])
        return pb.EnqueueTasksResponse(results=results)

    async def _enqueue(
        self,
        queue: str,
        placed: list[tuple[int, pb.NewTask]],
        results: list[pb.EnqueueResult.ValueType],
    ) -> None:
        """Enqueue the tasks of one queue, some at a time, and write what became of each to its place."""
        for first in range(0, len(placed), validation.MAX_KEYS):
            await self._enqueue_some(queue, placed[first : first + validation.MAX_KEYS], results)

    async def _enqueue_some(
        self,
        queue: str,
        placed: list[tuple[int, pb.NewTask]],
        results: list[pb.EnqueueResult.ValueType],
    ) -> None:
        service = self._catalogue.get(queue)
        if service is None:
            return
        methods = service.methods
        tasks = [incoming.new_task(task, repeatable=methods[task.method].policy.repeatable) for _, task in placed]
        try:
            durability = await self._health.durability(queue)
            max_held = await self._budgets.of(queue)
            became = await self._tasks.enqueue(queue, tasks, service.policy.queue, durability, max_held_bytes=max_held)
            said = [_ENQUEUED[one] for one in became]
            accepted = (task for task, one in zip(tasks, became, strict=True) if one == "accepted")
            await self._budgets.spend(queue, (len(task.request) for task in accepted))
        except (StoreUnreached, StoreNotRead) as error:
            _log.warning("not accepted", queue=queue, error=str(error))
            said = [pb.ENQUEUE_RESULT_STORE_UNAVAILABLE] * len(placed)
        except StoreLost as error:
            _log.warning("acceptance unknown", queue=queue, error=str(error))
            said = [pb.ENQUEUE_RESULT_UNKNOWN] * len(placed)
        for (place, _), result in zip(placed, said, strict=True):
            results[place] = result
        for result, count in Counter(said).items():
            metrics.enqueue_answers(queue, _short(result)).inc(count)
            if result in _NO_ROOM:
                self._seldom.tell_sum(
                    "calls refused", queue=queue, reason=_short(result), counted="calls", number=count
                )

    def _unknown(self, task: pb.NewTask) -> pb.EnqueueResult.ValueType | None:
        """Return why a task can't be kept, by what the catalogue says; None if it can."""
        service = self._catalogue.get(task.service)
        if service is None or task.method not in service.methods:
            return pb.ENQUEUE_RESULT_NOT_CATALOGUED
        return None if service.queueable else pb.ENQUEUE_RESULT_NO_CONSUMER


def _short(result: pb.EnqueueResult.ValueType) -> str:
    return pb.EnqueueResult.Name(result).removeprefix("ENQUEUE_RESULT_").lower()
