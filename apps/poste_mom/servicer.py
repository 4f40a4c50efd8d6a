"""The middleware's gRPC face. Translates and delegates; what a task may do is decided in the queue's scripts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import grpc
import grpc.aio

from poste.domain import door, sizes
from poste.domain.errors import CatalogueError, CatalogueFullError, StoreError, StoreLost, StoreNotRead, StoreUnreached
from poste.rpc.channels import NOT_RUN
from poste.runtime import logs, metrics
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import mom_service_pb2_grpc
from poste_mom import admission, messages
from poste_mom.queues import for_each, is_over, known
from poste_mom.refusals import Refusals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping

    from poste.queue.catalogue_store import CatalogueStore
    from poste.queue.completion_waiter import CompletionWaiter
    from poste.queue.history import Histories
    from poste.queue.operators import Operators
    from poste.queue.recent import Recent
    from poste.queue.steps.operator import Done
    from poste.queue.store_health import StoreHealth
    from poste.queue.tasks import Reading, Tasks
    from poste.v1.catalogue_pb2 import CatalogueService
    from poste_mom.budgets import Budgets
    from poste_mom.catalogue import Catalogue

_Context = grpc.aio.ServicerContext[Any, Any]
_log = logs.get("servicer")
T = TypeVar("T")
#: The longest wait for a task's end that one call may ask for, in seconds.
_MAX_WAIT_SECONDS: Final = 300.0
#: How many tasks with a large response are on their way at once: each is there several times over until it has left.
_LARGE_AT_ONCE: Final = 2
#: How many tasks one page of a list may have.
_MAX_PAGE: Final = 1000

_ENQUEUED: Final = {
    "accepted": pb.ENQUEUE_RESULT_ACCEPTED,
    "full": pb.ENQUEUE_RESULT_QUEUE_FULL,
    "spent": pb.ENQUEUE_RESULT_BUDGET_SPENT,
    "clock": pb.ENQUEUE_RESULT_CLOCK_OFF,
}
#: Answers that an operator is to know of: they end when somebody makes room.
_NO_ROOM: Final = (pb.ENQUEUE_RESULT_QUEUE_FULL, pb.ENQUEUE_RESULT_BUDGET_SPENT)
_COMPLETED: Final = {
    "retried": pb.COMPLETE_RESULT_RETRY_SCHEDULED,
    "refused": pb.COMPLETE_RESULT_REFUSED,
}
_DEAD_TASK_RESULTS: Final[Mapping[Done, pb.DeadTaskResult.ValueType]] = {
    "done": pb.DEAD_TASK_RESULT_DONE,
    "ended": pb.DEAD_TASK_RESULT_NOT_DEAD,
    "gone": pb.DEAD_TASK_RESULT_GONE,
}


class MomServicer(mom_service_pb2_grpc.MomServiceServicer):
    """Serves `poste.v1.MomService`."""

    def __init__(
        self,
        *,
        tasks: Tasks,
        histories: Histories,
        recent: Recent,
        operators: Operators,
        completions: CompletionWaiter,
        catalogue: Catalogue,
        store: CatalogueStore,
        health: StoreHealth,
        budgets: Budgets,
    ) -> None:
        self._tasks = tasks
        self._histories = histories
        self._recent = recent
        self._operators = operators
        self._completions = completions
        self._catalogue = catalogue
        self._store = store
        self._health = health
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._budgets = budgets
        self._refusals = Refusals()

    async def EnqueueTasks(
        self,
        request: pb.EnqueueTasksRequest,
        context: _Context,  # noqa: ARG002 - every answer is in the message
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
            refusal = unknown or admission.wrong_with_task(task)
            if refusal is None:
                queues[task.service].append((place, task))
                continue
            results[place], word = refusal, _short(refusal)
            known = self._catalogue.get(task.service) is not None
            metrics.enqueue_answers(task.service if known else "unknown", word).inc()
            refused[word] += unknown is None
        if refused.total():
            _log.warning("tasks refused at the door", **+refused)
        await _each([self._enqueue(queue, tasks, results) for queue, tasks in queues.items()])
        return pb.EnqueueTasksResponse(results=results)

    async def _enqueue(
        self,
        queue: str,
        placed: list[tuple[int, pb.NewTask]],
        results: list[pb.EnqueueResult.ValueType],
    ) -> None:
        """Enqueue the tasks of one queue, some at a time, and write what became of each to its place."""
        for first in range(0, len(placed), admission.MAX_KEYS):
            await self._enqueue_some(queue, placed[first : first + admission.MAX_KEYS], results)

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
        tasks = [messages.new_task(task, repeatable=methods[task.method].policy.repeatable) for _, task in placed]
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
                self._refusals.add(queue, _short(result), count)

    def _unknown(self, task: pb.NewTask) -> pb.EnqueueResult.ValueType | None:
        """Return why a task can't be kept, by what the catalogue says; None if it can."""
        service = self._catalogue.get(task.service)
        if service is None or task.method not in service.methods:
            return pb.ENQUEUE_RESULT_NOT_CATALOGUED
        return None if service.library else pb.ENQUEUE_RESULT_NO_CONSUMER

    async def GetTask(self, request: pb.GetTaskRequest, context: _Context) -> pb.GetTaskResponse:
        most = request.max_response_bytes or sizes.MAX_MESSAGE
        try:
            reading = await self._look(request, min(most, sizes.LARGE))
            if 0 < reading.left_out_bytes <= most:
                await self._large.acquire()
                # Until it has left, or whoever asked is gone.
                left: Any = lambda _: self._large.release()  # noqa: E731 - its type is gRPC's own
                context.add_done_callback(left)
                reading = await self._tasks.read(request.service, request.key, most_bytes=most)
        except StoreError as error:
            await _refuse(context, error)
        return pb.GetTaskResponse(**messages.answer(request.service, reading))

    async def _look(self, request: pb.GetTaskRequest, most_bytes: int) -> Reading:
        wait = min(max(request.wait_seconds, 0.0), _MAX_WAIT_SECONDS)
        if wait > 0:
            return await self._completions.wait(request.service, request.key, wait, most_bytes=most_bytes)
        return await self._tasks.read(request.service, request.key, most_bytes=most_bytes)

    async def GetTaskHistory(self, request: pb.GetTaskHistoryRequest, context: _Context) -> pb.GetTaskHistoryResponse:
        try:
            return messages.history(await self._histories.read(request.service, request.key))
        except StoreError as error:
            await _refuse(context, error)

    async def ReadClock(
        self,
        request: pb.ReadClockRequest,  # noqa: ARG002 - it says nothing
        context: _Context,
    ) -> pb.ReadClockResponse:
        try:
            return messages.clock(await self._tasks.now())
        except StoreError as error:
            await _refuse(context, error)

    async def CancelTask(
        self,
        request: pb.CancelTaskRequest,
        context: _Context,
    ) -> pb.CancelTaskResponse:
        try:
            reading = await self._tasks.cancel(request.service, request.key)
        except StoreError as error:
            await _refuse(context, error)
        return pb.CancelTaskResponse(**messages.answer(request.service, reading))

    async def CompleteTasks(
        self,
        request: pb.CompleteTasksRequest,
        context: _Context,
    ) -> pb.CompleteTasksResponse:
        results = [pb.COMPLETE_RESULT_UNSPECIFIED] * len(request.completions)
        queues: defaultdict[str, list[tuple[int, pb.Completion]]] = defaultdict(list)
        for place, completion in enumerate(request.completions):
            if admission.is_report(completion):
                queues[completion.service].append((place, completion))
            else:
                # Nobody claimed such a task, so its token owns none.
                results[place] = pb.COMPLETE_RESULT_REFUSED
                metrics.reports_refused_total.inc()
        if refused := results.count(pb.COMPLETE_RESULT_REFUSED):
            _log.warning("results refused at the door", results=refused)
        said = await _each([self._complete(queue, placed, results) for queue, placed in queues.items()])
        troubles = [one for one in said if one is not None]
        if troubles and len(troubles) == len(queues) and not refused:
            await _refuse(context, next((one for one in troubles if isinstance(one, StoreLost)), troubles[0]))
        return pb.CompleteTasksResponse(results=results)

    async def _complete(
        self,
        queue: str,
        placed: list[tuple[int, pb.Completion]],
        results: list[pb.CompleteResult.ValueType],
    ) -> StoreError | None:
        """Store the outcomes of one queue's tasks, some at a time, and write what became of each to its place.

        Returns:
            What was wrong if the store did not answer. The reporter asks again; what was stored answers the same.
        """
        for first in range(0, len(placed), admission.MAX_KEYS):
            trouble = await self._complete_some(queue, placed[first : first + admission.MAX_KEYS], results)
            if trouble is not None:
                return trouble
        return None

    async def _complete_some(
        self,
        queue: str,
        placed: list[tuple[int, pb.Completion]],
        results: list[pb.CompleteResult.ValueType],
    ) -> StoreError | None:
        service = self._catalogue.get(queue)
        reports = [messages.report(completion, service) for _, completion in placed]
        try:
            answers = await self._tasks.complete(queue, reports)
        except StoreError as error:
            _log.warning("results not stored", queue=queue, error=str(error))
            return error
        await self._budgets.spend(queue, (len(report.payload) for report in reports))
        self._completions.notify(queue, (report.key for report in reports))
        for (place, _), said in zip(placed, answers, strict=True):
            results[place] = _COMPLETED.get(said, pb.COMPLETE_RESULT_STORED)
        return None

    async def ListQueues(
        self,
        request: pb.ListQueuesRequest,
        context: _Context,
    ) -> pb.ListQueuesResponse:
        figures: dict[str, pb.Queue] = {}
        troubles: list[StoreError] = []

        async def read(queue: str) -> None:
            try:
                found = await self._tasks.figures(queue)
                if not is_over(found, self._catalogue):
                    figures[queue] = messages.queue(found, await self._budgets.of(queue))
            except StoreError as error:
                troubles.append(error)

        try:
            queues = await known(self._tasks, self._catalogue)
        except StoreError as error:
            await _refuse(context, error)
        await for_each(queues & {request.queue} if request.queue else queues, read)
        if troubles and not figures:
            await _refuse(context, troubles[0])
        return pb.ListQueuesResponse(queues=[figures[queue] for queue in sorted(figures)])

    async def PauseQueue(self, request: pb.PauseQueueRequest, context: _Context) -> pb.PauseQueueResponse:
        await self._pause(request.queue, context, paused=True)
        return pb.PauseQueueResponse()

    async def ResumeQueue(self, request: pb.ResumeQueueRequest, context: _Context) -> pb.ResumeQueueResponse:
        await self._pause(request.queue, context, paused=False)
        return pb.ResumeQueueResponse()

    async def _pause(self, queue: str, context: _Context, *, paused: bool) -> None:
        try:
            if queue not in await known(self._tasks, self._catalogue):
                await context.abort(grpc.StatusCode.NOT_FOUND, "there is no queue of this name")
            await self._operators.pause(queue, paused=paused)
        except StoreError as error:
            await _refuse(context, error)
        _log.info("paused" if paused else "resumed", queue=queue)

    async def ListRecentTasks(
        self, request: pb.ListRecentTasksRequest, context: _Context
    ) -> pb.ListRecentTasksResponse:
        try:
            count = min(max(request.page_size, 1), _MAX_PAGE)
            return messages.recent(request.queue, await self._recent.newest(request.queue, count=count))
        except StoreError as error:
            await _refuse(context, error)

    async def ListDeadTasks(self, request: pb.ListDeadTasksRequest, context: _Context) -> pb.ListDeadTasksResponse:
        try:
            behind = messages.place(request.page_token)
        except ValueError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this page token was never given")
        count = min(max(request.page_size, 1), _MAX_PAGE)
        try:
            page = await self._operators.dead(request.queue, count=count, behind=behind)
        except StoreError as error:
            await _refuse(context, error)
        return messages.dead_page(request.queue, page)

    async def ReplayTasks(self, request: pb.ReplayTasksRequest, context: _Context) -> pb.ReplayTasksResponse:
        try:
            results = await _of_sound(request.keys, functools.partial(self._operators.replay, request.queue))
        except StoreError as error:
            await _refuse(context, error)
        _log.info("replayed", queue=request.queue, keys=_done(request.keys, results))
        return pb.ReplayTasksResponse(results=[_DEAD_TASK_RESULTS[result] for result in results])

    async def PurgeTasks(self, request: pb.PurgeTasksRequest, context: _Context) -> pb.PurgeTasksResponse:
        try:
            results = await _of_sound(request.keys, functools.partial(self._operators.purge, request.queue))
        except StoreError as error:
            await _refuse(context, error)
        _log.info("purged", queue=request.queue, keys=_done(request.keys, results))
        return pb.PurgeTasksResponse(results=[_DEAD_TASK_RESULTS[result] for result in results])

    async def PurgeEndedTasks(
        self, request: pb.PurgeEndedTasksRequest, context: _Context
    ) -> pb.PurgeEndedTasksResponse:
        try:
            behind = messages.search(request.page_token)
        except ValueError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this page token was never given")
        try:
            page = await self._operators.purge_ended(request.queue, behind=behind)
        except StoreError as error:
            await _refuse(context, error)
        _log.info("purged what had ended", queue=request.queue, tasks=page.purged)
        return messages.ended_page(page)

    async def RegisterService(
        self,
        request: pb.RegisterServiceRequest,
        context: _Context,
    ) -> pb.RegisterServiceResponse:
        try:
            service = await self._catalogue.register(request)
        except CatalogueError as error:
            full = isinstance(error, CatalogueFullError)
            metrics.registrations_refused_total.labels("full" if full else "invalid").inc()
            _log.warning("registration refused", peer=context.peer(), error=str(error))
            status = grpc.StatusCode.RESOURCE_EXHAUSTED if full else grpc.StatusCode.INVALID_ARGUMENT
            await context.abort(status, str(error)[: sizes.MAX_STATUS_TEXT])
        except StoreError as error:
            await _refuse(context, error)
        return messages.registered(service)

    async def WithdrawReplica(
        self, request: pb.WithdrawReplicaRequest, context: _Context
    ) -> pb.WithdrawReplicaResponse:
        try:
            await self._catalogue.withdraw(request.service, request.replica)
        except StoreError as error:
            await _refuse(context, error)
        return pb.WithdrawReplicaResponse()

    async def ForgetService(self, request: pb.ForgetServiceRequest, context: _Context) -> pb.ForgetServiceResponse:
        try:
            figures = await self._tasks.figures(request.service)
            waiting = figures.queued + figures.delayed + figures.running
            if waiting and not request.even_with_waiting:
                return pb.ForgetServiceResponse(waiting=waiting)
            forgotten = await self._catalogue.forget(request.service)
        except StoreError as error:
            await _refuse(context, error)
        if forgotten is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no service of this name")
        _log.info("forgotten", service=request.service, waiting=waiting, **forgotten._asdict())
        return pb.ForgetServiceResponse(forgotten=True, waiting=waiting, **forgotten._asdict())

    async def WatchCatalogue(
        self,
        request: pb.WatchCatalogueRequest,
        context: _Context,
    ) -> AsyncIterator[pb.WatchCatalogueResponse]:
        try:
            same = not request.id_key_fingerprint or await self._store.pin_fingerprint(request.id_key_fingerprint)
        except StoreError as error:
            await _refuse(context, error)
        if not same:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                "this gateway signs task ids with another key than the ids on this Redis were signed with; "
                "give every gateway the same POSTE_ID_KEY_FILE",
            )
        sent: Mapping[str, CatalogueService] = {}
        async for entries in self._catalogue.watch():
            for part in messages.changes(sent, entries, self._catalogue.store_id):
                yield part
            sent = entries


async def _of_sound(keys: Iterable[str], do: Callable[[list[str]], Awaitable[list[Done]]]) -> list[Done]:
    """Do something with the tasks of these keys: of a key that is none there is nothing it could be done with."""
    sound = [key for key in keys if door.is_key(key)]
    done = iter(await do(sound) if sound else ())
    return [next(done) if door.is_key(key) else "gone" for key in keys]


async def _each(steps: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Do what is to be done for each queue, at once; of one queue, which is the rule, without a task for it."""
    return [await steps[0]] if len(steps) == 1 else await asyncio.gather(*steps)


def _done(keys: Iterable[str], results: Iterable[Done]) -> list[str]:
    return [key for key, result in zip(keys, results, strict=True) if result == "done"]


async def _refuse(context: _Context, error: StoreError) -> NoReturn:
    """End a call that the store did not answer; say so if nothing can have changed."""
    trailers = ((NOT_RUN, "1"),) if isinstance(error, StoreUnreached) else ()
    await context.abort(grpc.StatusCode.UNAVAILABLE, "the store does not answer", trailers)


def _short(result: pb.EnqueueResult.ValueType) -> str:
    return pb.EnqueueResult.Name(result).removeprefix("ENQUEUE_RESULT_").lower()
