"""The operators' methods: list queues, the newest tasks and dead letters, find tasks; pause, cancel, replay, purge."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import grpc

from poste.domain import input_rules
from poste.domain.errors import StoreError
from poste.queue.task_lists import FoundPage
from poste.runtime import logs
from poste.v1 import mom_service_pb2 as pb
from poste_mom.messages import listings
from poste_mom.methods.answers import refuse
from poste_mom.queues.all_queues import for_each, is_over, known
from poste_mom.server.large_answers import LargeAnswers
from poste_mom.server.request_ids import request_id_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poste.queue.dead_groups import DeadGroups
    from poste.queue.operators import Operators
    from poste.queue.queues import Queues
    from poste.queue.steps.operator import Cancelled, Done
    from poste.queue.task_filter import TaskFilter
    from poste.queue.task_lists import TaskLists
    from poste_mom.catalogue.catalogue import Catalogue
    from poste_mom.methods.answers import Context
    from poste_mom.queues.budgets import Budgets

_log = logs.get("operators")
#: How many pages are sent at once, in all and to one peer: one of dead letters with long errors has megabytes.
_PAGES_AT_ONCE: Final = 4
_PAGES_TO_ONE: Final = 2
#: How many tasks one page of a list may have.
_MAX_PAGE: Final = 1000
#: How many dead letters of each group.
_MAX_NEWEST: Final = 20
_DEAD_TASK_RESULTS: Final[Mapping[Done, pb.DeadTaskResult.ValueType]] = {
    "done": pb.DEAD_TASK_RESULT_DONE,
    "open": pb.DEAD_TASK_RESULT_NOT_DEAD,
    "ended": pb.DEAD_TASK_RESULT_NOT_DEAD,
    "gone": pb.DEAD_TASK_RESULT_GONE,
}
_CANCEL_RESULTS: Final[Mapping[Cancelled, pb.CancelTaskResult.ValueType]] = {
    "done": pb.CANCEL_TASK_RESULT_DONE,
    "asked": pb.CANCEL_TASK_RESULT_ASKED,
    "runs": pb.CANCEL_TASK_RESULT_RUNS,
    "ended": pb.CANCEL_TASK_RESULT_ENDED,
    "gone": pb.CANCEL_TASK_RESULT_GONE,
}
#: What an operator has done, as the log says it, by what a step says of a task.
_REPLAYED: Final[Mapping[str, str]] = {"done": "replayed"}
_PURGED: Final[Mapping[str, str]] = {"done": "purged"}
_CANCELLED: Final[Mapping[str, str]] = {"done": "cancelled", "asked": "asked to stop"}
ResultT = TypeVar("ResultT", bound=str)
PlaceT = TypeVar("PlaceT")
#: A step of `Operators`: from a queue and tasks' keys to what became of each.
_Step = Callable[[str, list[str]], Awaitable[Sequence[ResultT]]]


class OperatorServicer:
    """Serves what lists queues and their tasks, and what pauses, cancels, replays and purges."""

    def __init__(
        self,
        queues: Queues,
        lists: TaskLists,
        operators: Operators,
        dead_groups: DeadGroups,
        *,
        catalogue: Catalogue,
        budgets: Budgets,
    ) -> None:
        self._queues = queues
        self._dead_groups = dead_groups
        self._lists = lists
        self._operators = operators
        self._catalogue = catalogue
        self._budgets = budgets
        self._pages = LargeAnswers(_PAGES_AT_ONCE, of_one_peer=_PAGES_TO_ONE)

    async def ListQueues(
        self,
        request: pb.ListQueuesRequest,
        context: Context,
    ) -> pb.ListQueuesResponse:
        figures: dict[str, pb.Queue] = {}
        troubles: list[StoreError] = []

        async def read(queue: str) -> None:
            try:
                found = await self._queues.figures(queue)
                if not is_over(found, self._catalogue):
                    figures[queue] = listings.queue(found, await self._budgets.of(queue))
            except StoreError as error:
                troubles.append(error)

        try:
            queues = await known(self._queues, self._catalogue)
        except StoreError as error:
            await refuse(context, error)
        await for_each(queues & {request.queue} if request.queue else queues, read)
        if troubles and not figures:
            await refuse(context, troubles[0])
        return pb.ListQueuesResponse(queues=[figures[queue] for queue in sorted(figures)])

    async def PauseQueue(self, request: pb.PauseQueueRequest, context: Context) -> pb.PauseQueueResponse:
        await self._pause(request.queue, context, paused=True)
        return pb.PauseQueueResponse()

    async def ResumeQueue(self, request: pb.ResumeQueueRequest, context: Context) -> pb.ResumeQueueResponse:
        await self._pause(request.queue, context, paused=False)
        return pb.ResumeQueueResponse()

    async def _pause(self, queue: str, context: Context, *, paused: bool) -> None:
        try:
            if queue not in await known(self._queues, self._catalogue):
                await context.abort(grpc.StatusCode.NOT_FOUND, "there is no queue of this name")
            await self._operators.pause(queue, paused=paused)
        except StoreError as error:
            await refuse(context, error)
        _log.info("paused" if paused else "resumed", queue=queue)

    async def ListRecentTasks(self, request: pb.ListRecentTasksRequest, context: Context) -> pb.ListRecentTasksResponse:
        await self._pages.begin(context)
        try:
            count = min(max(request.page_size, 1), _MAX_PAGE)
            return listings.recent(await self._lists.newest(request.queue, count=count))
        except StoreError as error:
            await refuse(context, error)

    async def SearchTasks(self, request: pb.SearchTasksRequest, context: Context) -> pb.SearchTasksResponse:
        wanted, behind = await self._asked(request, context, listings.search)
        count = min(max(request.page_size, 1), _MAX_PAGE)
        await self._pages.begin(context)
        try:
            if request.key:
                return listings.found(FoundPage(await self._lists.one(request.queue, request.key), None))
            search = self._lists.search(
                request.queue, wanted, count=count, behind=behind, owner=request.owner, client=request.client
            )
            return listings.found(await search)
        except StoreError as error:
            await refuse(context, error)

    async def ListDeadTasks(self, request: pb.ListDeadTasksRequest, context: Context) -> pb.ListDeadTasksResponse:
        wanted, behind = await self._asked(request, context, listings.place)
        count = min(max(request.page_size, 1), _MAX_PAGE)
        await self._pages.begin(context)
        try:
            page = await self._operators.dead(request.queue, count=count, behind=behind, wanted=wanted)
        except StoreError as error:
            await refuse(context, error)
        return listings.dead_page(request.queue, page)

    async def GroupDeadTasks(self, request: pb.GroupDeadTasksRequest, context: Context) -> pb.GroupDeadTasksResponse:
        await self._pages.begin(context)
        try:
            found = await self._dead_groups.of(request.queue, newest=min(max(request.newest, 0), _MAX_NEWEST))
        except StoreError as error:
            await refuse(context, error)
        return listings.dead_groups(request.queue, found)

    async def _asked(
        self,
        request: pb.SearchTasksRequest | pb.ListDeadTasksRequest,
        context: Context,
        read: Callable[[str], PlaceT],
    ) -> tuple[TaskFilter, PlaceT]:
        """Return which tasks are asked for, and from where on."""
        try:
            wanted = listings.task_filter(request.filter)
        except ValueError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the filter names what this middleware does not know")
        return wanted, await _behind(request.page_token, context, read)

    async def InspectTask(self, request: pb.InspectTaskRequest, context: Context) -> pb.InspectTaskResponse:
        await self._pages.begin(context)
        try:
            found = await self._operators.called_with(request.queue, request.key)
        except StoreError as error:
            await refuse(context, error)
        return pb.InspectTaskResponse(
            request=found.request, metadata=found.headers, request_id=found.request_id, traceparent=found.traceparent
        )

    async def CancelTasks(self, request: pb.CancelTasksRequest, context: Context) -> pb.CancelTasksResponse:
        cancel = functools.partial(self._operators.cancel, only_waiting=request.only_waiting)
        became = await self._settle(request, context, cancel, _CANCELLED)
        return pb.CancelTasksResponse(results=[_CANCEL_RESULTS[became.get(key, "gone")] for key in request.keys])

    async def ReplayTasks(self, request: pb.ReplayTasksRequest, context: Context) -> pb.ReplayTasksResponse:
        replay = functools.partial(self._operators.replay, as_is=request.as_is)
        became = await self._settle(request, context, replay, _REPLAYED)
        return pb.ReplayTasksResponse(results=[_DEAD_TASK_RESULTS[became.get(key, "gone")] for key in request.keys])

    async def PurgeTasks(self, request: pb.PurgeTasksRequest, context: Context) -> pb.PurgeTasksResponse:
        became = await self._settle(request, context, self._operators.purge, _PURGED)
        return pb.PurgeTasksResponse(results=[_DEAD_TASK_RESULTS[became.get(key, "gone")] for key in request.keys])

    async def PurgeEndedTasks(self, request: pb.PurgeEndedTasksRequest, context: Context) -> pb.PurgeEndedTasksResponse:
        behind = await _behind(request.page_token, context, listings.search)
        try:
            page = await self._operators.purge_ended(request.queue, behind=behind)
        except StoreError as error:
            await refuse(context, error)
        _log.info("purged what had ended", queue=request.queue, tasks=page.purged)
        return listings.ended_page(page)

    async def _settle(
        self,
        request: pb.CancelTasksRequest | pb.ReplayTasksRequest | pb.PurgeTasksRequest,
        context: Context,
        do: _Step[ResultT],
        done: Mapping[str, str],
    ) -> Mapping[str, ResultT]:
        """Do something with tasks; return what became of each that can be one.

        Each with which it was `done` is logged, with the operator's request id.
        """
        try:
            # No task has a key that is invalid.
            sound = [key for key in request.keys if input_rules.is_key(key)]
            became = dict(zip(sound, await do(request.queue, sound) if sound else (), strict=True))
        except StoreError as error:
            await refuse(context, error)
        by = request_id_of(context)
        changed = [key for key in sound if became[key] in done]
        for key, names in zip(changed, await self._operators.names(request.queue, changed), strict=True):
            _log.info(done[became[key]], queue=request.queue, operator_request_id=by, **names)
        return became


async def _behind(page_token: str, context: Context, read: Callable[[str], PlaceT]) -> PlaceT:
    """Return from where on a page is asked for."""
    try:
        return read(page_token)
    except ValueError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this page token was never given")
