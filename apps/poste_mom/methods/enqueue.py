"""Accepts calls: validates each, and writes it to its service's queue if that has room."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from poste.domain import input_rules
from poste.domain.errors import StoreError, StoreLost, StoreNotRead, StoreUnreached
from poste.queue.steps.task import KNOWN, OVER
from poste.runtime import logs, metrics
from poste.runtime.log_throttle import LogThrottle
from poste.v1 import mom_service_pb2 as pb
from poste_mom.messages import incoming
from poste_mom.methods.answers import for_queues
from poste_mom.server import validation

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from poste.queue.steps.task import NewTask, Quota
    from poste.queue.store_health import StoreHealth
    from poste.queue.tasks import Tasks
    from poste_mom.catalogue.catalogue import Catalogue
    from poste_mom.methods.answers import Context
    from poste_mom.queues.budgets import Budgets
    from poste_mom.queues.schemas import Schemas
    from poste_mom.queues.turns import Turns

_log = logs.get("enqueue")
_ENQUEUED: Final = {
    "accepted": pb.ENQUEUE_RESULT_ACCEPTED,
    "full": pb.ENQUEUE_RESULT_QUEUE_FULL,
    "spent": pb.ENQUEUE_RESULT_BUDGET_SPENT,
    "clock": pb.ENQUEUE_RESULT_CLOCK_OFF,
    "reused": pb.ENQUEUE_RESULT_KEY_REUSED,
}
#: Results of tasks whose service can't have calls queued, by the catalogue.
_UNKNOWN: Final = frozenset({pb.ENQUEUE_RESULT_NOT_CATALOGUED, pb.ENQUEUE_RESULT_NO_CONSUMER})
#: Answers that are logged for operators: the queue has no room.
_NO_ROOM: Final = (pb.ENQUEUE_RESULT_QUEUE_FULL, pb.ENQUEUE_RESULT_BUDGET_SPENT)
#: A call that has its turn so soon, in seconds, is told nothing of it.
_MOMENT_SECONDS: Final = 1.0
#: How often a full queue is logged, in seconds; the first time at once.
_NO_ROOM_SECONDS: Final = 10.0


#: Tasks, each with its place in the request.
_Placed: TypeAlias = "list[tuple[int, NewTask]]"


class _Answers(NamedTuple):
    """What became of the tasks of one request, by their places in it: what the response has of each."""

    results: list[pb.EnqueueResult.ValueType]
    first_ids: dict[int, str]
    quota_uses: dict[int, pb.QuotaUse]

    def read(self, place: int, said: str) -> pb.EnqueueResult.ValueType:
        """Return what became of a task, by what the queue said of it in more than a word; note the rest of that."""
        if said.startswith(OVER):
            waiting, taken = map(int, said.removeprefix(OVER).split())
            self.quota_uses[place] = pb.QuotaUse(waiting_calls=waiting, kept_bytes=taken)
            return pb.ENQUEUE_RESULT_OVER_QUOTA
        self.first_ids[place] = said.removeprefix(KNOWN)
        return pb.ENQUEUE_RESULT_KNOWN


class EnqueueServicer:
    """Serves `EnqueueTasks`."""

    def __init__(
        self,
        tasks: Tasks,
        catalogue: Catalogue,
        health: StoreHealth,
        budgets: Budgets,
        schemas: Schemas,
        *,
        turns: Turns,
    ) -> None:
        self._tasks = tasks
        self._catalogue = catalogue
        self._health = health
        self._budgets = budgets
        self._schemas = schemas
        self._turns = turns
        self._seldom = LogThrottle(_log, "warning", period_seconds=_NO_ROOM_SECONDS)

    async def EnqueueTasks(
        self,
        request: pb.EnqueueTasksRequest,
        context: Context,  # noqa: ARG002 - every answer is in the message
    ) -> pb.EnqueueTasksResponse:
        # Each name is read once, for that costs as much as all that is done with it.
        names = [task.service for task in request.tasks]
        judged = [self._judge(*named) for named in zip(names, request.tasks, strict=True)]
        if not _UNKNOWN.isdisjoint([result for _, result in judged]):
            # It may have registered at another replica of the middleware a moment ago.
            with contextlib.suppress(StoreError):
                await self._catalogue.refresh()
            judged = [self._judge(*named) for named in zip(names, request.tasks, strict=True)]
        for place in request.quotas:
            if place < len(judged) and (task := judged[place][0]) is not None:
                judged[place] = _under(task, incoming.quota(request.quotas[place]))
        answers = _Answers([pb.ENQUEUE_RESULT_UNSPECIFIED] * len(judged), {}, {})
        results = answers.results
        queues: defaultdict[str, _Placed] = defaultdict(list)
        refused: Counter[str] = Counter()
        for place, (queue, (task, result)) in enumerate(zip(names, judged, strict=True)):
            if task is not None:
                queues[queue].append((place, task))
                continue
            results[place], word = result, _short(result)
            known = self._catalogue.get(queue) is not None
            metrics.enqueue_answers(queue if known else "unknown", word).inc()
            refused[word] += result not in _UNKNOWN
        if refused.total():
            ids = _request_ids(task for task, result in zip(request.tasks, results, strict=True) if result)
            _log.warning("tasks refused: invalid", **+refused, request_ids=ids)
        await for_queues([self._enqueue(queue, tasks, answers) for queue, tasks in queues.items()])
        response = pb.EnqueueTasksResponse(results=results, first_ids=answers.first_ids)
        for place, use in answers.quota_uses.items():
            response.quota_uses[place].CopyFrom(use)
        for queue in queues:
            seconds = self._turns.of_new(queue)
            if seconds is not None and seconds > _MOMENT_SECONDS:
                response.turn_seconds[queue] = seconds
        return response

    async def _enqueue(self, queue: str, placed: _Placed, answers: _Answers) -> None:
        """Enqueue the tasks of one queue, some at a time, and write each result to its place."""
        for first in range(0, len(placed), validation.MAX_KEYS):
            await self._enqueue_some(queue, placed[first : first + validation.MAX_KEYS], answers)

    async def _enqueue_some(self, queue: str, placed: _Placed, answers: _Answers) -> None:
        service, results = self._catalogue.get(queue), answers.results
        if service is None:
            return
        try:
            missing = await self._schemas.missing({task.schema for _, task in placed if task.schema})
        except StoreError as error:
            # Nothing was sent yet, whatever became of the question.
            self._not_accepted(queue, placed, results, error)
            return
        # Not before their schema is kept; the others are.
        placed = _without(missing, placed, results) if missing else placed
        if not placed:
            return
        tasks = [task for _, task in placed]
        try:
            durability = await self._health.durability(queue)
            max_held = await self._budgets.of(queue)
            became = await self._tasks.enqueue(queue, tasks, service.policy.queue, durability, max_held_bytes=max_held)
            accepted = [len(task.request) for task, one in zip(tasks, became, strict=True) if one == "accepted"]
            await self._budgets.spend(queue, accepted)
        except (StoreUnreached, StoreNotRead) as error:
            self._not_accepted(queue, placed, results, error)
        except StoreLost as error:
            _log.warning("acceptance unknown", queue=queue, error=str(error), request_ids=_request_ids(tasks))
            self._tell(queue, placed, [pb.ENQUEUE_RESULT_UNKNOWN] * len(placed), results)
        else:
            said = [
                _ENQUEUED.get(one) or answers.read(place, one) for (place, _), one in zip(placed, became, strict=True)
            ]
            self._tell(queue, placed, said, results)

    def _not_accepted(
        self, queue: str, placed: _Placed, results: list[pb.EnqueueResult.ValueType], error: StoreError
    ) -> None:
        _log.warning(
            "not accepted", queue=queue, error=str(error), request_ids=_request_ids(task for _, task in placed)
        )
        self._tell(queue, placed, [pb.ENQUEUE_RESULT_STORE_UNAVAILABLE] * len(placed), results)

    def _tell(
        self,
        queue: str,
        placed: _Placed,
        said: Sequence[pb.EnqueueResult.ValueType],
        results: list[pb.EnqueueResult.ValueType],
    ) -> None:
        """Write what became of each task to its place, and count it."""
        for (place, _), result in zip(placed, said, strict=True):
            results[place] = result
        for result, count in Counter(said).items():
            metrics.enqueue_answers(queue, _short(result)).inc(count)
            if result in _NO_ROOM:
                self._seldom.write_sum(
                    "calls refused", queue=queue, reason=_short(result), counted="calls", number=count
                )

    def _judge(self, name: str, message: pb.NewTask) -> tuple[NewTask | None, pb.EnqueueResult.ValueType]:
        """Return a task as it is kept; or None, and why it can't be."""
        service, called = self._catalogue.get(name), message.method
        method = None if service is None else service.methods.get(called)
        if service is None or method is None:
            return None, pb.ENQUEUE_RESULT_NOT_CATALOGUED
        if not service.queueable:
            return None, pb.ENQUEUE_RESULT_NO_CONSUMER
        task = incoming.new_task(message, called, repeatable=method.policy.repeatable)
        wrong = incoming.wrong_with(task)
        return (task, pb.ENQUEUE_RESULT_UNSPECIFIED) if wrong is None else (None, wrong)


def _under(task: NewTask, quota: Quota | None) -> tuple[NewTask | None, pb.EnqueueResult.ValueType]:
    """Return a task under its client's quota, as `_judge` returns it; `quota` is None if that is none."""
    if quota is None:
        return None, pb.ENQUEUE_RESULT_BAD_QUOTA
    return task._replace(quota=quota), pb.ENQUEUE_RESULT_UNSPECIFIED


def _without(missing: Container[str], placed: _Placed, results: list[pb.EnqueueResult.ValueType]) -> _Placed:
    """Return the tasks whose schema is kept; write to the others' places that it is not."""
    for place, task in placed:
        if task.schema in missing:
            results[place] = pb.ENQUEUE_RESULT_SCHEMA_UNKNOWN
    return [(place, task) for place, task in placed if task.schema not in missing]


def _request_ids(tasks: Iterable[pb.NewTask | NewTask]) -> list[str]:
    """Return what a line calls some calls by."""
    return [task.request_id for task in tasks if input_rules.is_request_id(task.request_id)]


def _short(result: pb.EnqueueResult.ValueType) -> str:
    return pb.EnqueueResult.Name(result).removeprefix("ENQUEUE_RESULT_").lower()
