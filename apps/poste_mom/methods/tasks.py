"""Reads tasks, waits for their ends, and cancels them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poste.domain import sizes
from poste.domain.errors import StoreError
from poste.domain.task import TaskState
from poste.v1 import mom_service_pb2 as pb
from poste_mom.messages import tasks as messages
from poste_mom.methods.answers import refuse
from poste_mom.server.large_answers import LargeAnswers

if TYPE_CHECKING:
    from poste.queue.completion_waiter import CompletionWaiter
    from poste.queue.history import Histories
    from poste.queue.tasks import Reading, Tasks
    from poste_mom.methods.answers import Context
    from poste_mom.queues.turns import Turns

#: The longest wait that one call may ask for, in seconds.
_MAX_WAIT_SECONDS: Final = 300.0
#: How many tasks with a large response are on their way at once, and to one peer.
_LARGE_AT_ONCE: Final = 2
_LARGE_TO_ONE: Final = 1


class TaskServicer:
    """Serves `GetTask`, `GetTaskHistory`, `ReadClock` and `CancelTask`."""

    def __init__(self, tasks: Tasks, histories: Histories, completions: CompletionWaiter, turns: Turns) -> None:
        self._tasks = tasks
        self._histories = histories
        self._completions = completions
        self._turns = turns
        self._large = LargeAnswers(_LARGE_AT_ONCE, of_one_peer=_LARGE_TO_ONE)

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> pb.GetTaskResponse:
        most = request.max_response_bytes or sizes.MAX_MESSAGE
        try:
            reading = await self._read(request, min(most, sizes.LARGE))
            if 0 < reading.left_out_bytes <= most:
                await self._large.begin(context)
                reading = await self._tasks.read(reading.queue, request.key, most_bytes=most)
        except StoreError as error:
            await refuse(context, error)
        return pb.GetTaskResponse(**messages.fields_of(reading, turn_seconds=self._turn_of(reading)))

    def _turn_of(self, reading: Reading) -> float | None:
        """Return how much longer a task waits for its first attempt, if it does, and if that is known."""
        task = reading.record
        if task is None or task.state is not TaskState.QUEUED or task.attempt:
            return None
        age_seconds = reading.now - task.due_time
        if age_seconds < 0:
            return (self._turns.of_new(reading.queue) or 0.0) - age_seconds
        return self._turns.of_waiting(reading.queue, age_seconds)

    async def _read(self, request: pb.GetTaskRequest, most_bytes: int) -> Reading:
        wait = _wait_of(request)
        if wait > 0:
            return await self._completions.wait(request.service, request.key, wait, most_bytes=most_bytes)
        return await self._tasks.read(request.service, request.key, most_bytes=most_bytes)

    async def GetTaskHistory(self, request: pb.GetTaskHistoryRequest, context: Context) -> pb.GetTaskHistoryResponse:
        wait, names = _wait_of(request), (request.service, request.key)
        try:
            if wait > 0:
                found = await self._completions.wait_for_news(
                    self._histories, *names, wait, known_mark=request.known_mark
                )
            else:
                found = await self._histories.read(*names)
            return messages.history(found)
        except StoreError as error:
            await refuse(context, error)

    async def ReadClock(
        self,
        request: pb.ReadClockRequest,  # noqa: ARG002 - it says nothing
        context: Context,
    ) -> pb.ReadClockResponse:
        try:
            return messages.clock(await self._tasks.now())
        except StoreError as error:
            await refuse(context, error)

    async def CancelTask(
        self,
        request: pb.CancelTaskRequest,
        context: Context,
    ) -> pb.CancelTaskResponse:
        try:
            reading = await self._tasks.cancel(request.service, request.key)
        except StoreError as error:
            await refuse(context, error)
        return pb.CancelTaskResponse(**messages.fields_of(reading))


def _wait_of(request: pb.GetTaskRequest | pb.GetTaskHistoryRequest) -> float:
    return min(max(request.wait_seconds, 0.0), _MAX_WAIT_SECONDS)
