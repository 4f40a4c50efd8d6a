"""The operators' methods: list queues, the newest tasks and dead letters; pause, replay, purge."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import grpc

from poste.domain import input_rules
from poste.domain.errors import StoreError
from poste.runtime import logs
from poste.v1 import mom_service_pb2 as pb
from poste_mom.messages import listings
from poste_mom.methods.answers import refuse
from poste_mom.queues.all_queues import for_each, is_over, known
from poste_mom.server.large_answers import LargeAnswers
from poste_mom.server.request_ids import request_id_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from poste.queue.operators import Operators
    from poste.queue.queues import Queues
    from poste.queue.recent import Recent
    from poste.queue.steps.operator import Done
    from poste_mom.catalogue.catalogue import Catalogue
    from poste_mom.methods.answers import Context
    from poste_mom.queues.budgets import Budgets

_log = logs.get("operators")
#: How many pages are sent at once, in all and to one peer: one of dead letters with long errors has megabytes.
_PAGES_AT_ONCE: Final = 4
_PAGES_TO_ONE: Final = 2
#: How many tasks one page of a list may have.
_MAX_PAGE: Final = 1000
_DEAD_TASK_RESULTS: Final[Mapping[Done, pb.DeadTaskResult.ValueType]] = {
    "done": pb.DEAD_TASK_RESULT_DONE,
    "ended": pb.DEAD_TASK_RESULT_NOT_DEAD,
    "gone": pb.DEAD_TASK_RESULT_GONE,
}


class OperatorServicer:
    """Serves what lists queues and their tasks, and what pauses, replays and purges."""

    def __init__(
        self, queues: Queues, recent: Recent, operators: Operators, catalogue: Catalogue, budgets: Budgets
    ) -> None:
        self._queues = queues
        self._recent = recent
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
            return listings.recent(request.queue, await self._recent.newest(request.queue, count=count))
        except StoreError as error:
            await refuse(context, error)

    async def ListDeadTasks(self, request: pb.ListDeadTasksRequest, context: Context) -> pb.ListDeadTasksResponse:
        try:
            behind = listings.place(request.page_token)
        except ValueError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this page token was never given")
        count = min(max(request.page_size, 1), _MAX_PAGE)
        await self._pages.begin(context)
        try:
            page = await self._operators.dead(request.queue, count=count, behind=behind)
        except StoreError as error:
            await refuse(context, error)
        return listings.dead_page(request.queue, page)

    async def ReplayTasks(self, request: pb.ReplayTasksRequest, context: Context) -> pb.ReplayTasksResponse:
        replay = functools.partial(self._operators.replay, as_is=request.as_is)
        results = await self._settle(request, context, replay, "replayed")
        return pb.ReplayTasksResponse(results=results)

    async def PurgeTasks(self, request: pb.PurgeTasksRequest, context: Context) -> pb.PurgeTasksResponse:
        results = await self._settle(request, context, self._operators.purge, "purged")
        return pb.PurgeTasksResponse(results=results)

    async def PurgeEndedTasks(self, request: pb.PurgeEndedTasksRequest, context: Context) -> pb.PurgeEndedTasksResponse:
        try:
            behind = listings.search(request.page_token)
        except ValueError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this page token was never given")
        try:
            page = await self._operators.purge_ended(request.queue, behind=behind)
        except StoreError as error:
            await refuse(context, error)
        _log.info("purged what had ended", queue=request.queue, tasks=page.purged)
        return listings.ended_page(page)

    async def _settle(
        self,
        request: pb.ReplayTasksRequest | pb.PurgeTasksRequest,
        context: Context,
        do: Callable[[str, list[str]], Awaitable[list[Done]]],
        done: str,
    ) -> list[pb.DeadTaskResult.ValueType]:
        """Replay or purge dead letters, and log each one with which that was `done`, with the operator's request id."""
        try:
            # No task has a key that is invalid.
            sound = [key for key in request.keys if input_rules.is_key(key)]
            became = dict(zip(sound, await do(request.queue, sound) if sound else (), strict=True))
        except StoreError as error:
            await refuse(context, error)
        by = request_id_of(context)
        for names in await self._operators.names(request.queue, [key for key in sound if became[key] == "done"]):
            _log.info(done, queue=request.queue, operator_request_id=by, **names)
        return [_DEAD_TASK_RESULTS[became.get(key, "gone")] for key in request.keys]
