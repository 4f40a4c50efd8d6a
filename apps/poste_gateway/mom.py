"""The gateway's client of the middleware. Every call has a deadline; a read whose answer is lost is repeated once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import grpc.aio

from poste.domain import sizes
from poste.domain.codes import Code
from poste.domain.errors import PosteError
from poste.rpc import channels
from poste.rpc.replicated import Replicated
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import mom_service_pb2_grpc
from poste_gateway.limits.fair_queue import FairQueue
from poste_gateway.shared_reads import Ended, SharedReads

#: How long a question waits for a connection before it is given up unsent, in seconds: it may be asked again.
_CONNECT_SECONDS: Final = 1.0
#: How long the middleware may take for an answer that needs no waiting, in seconds: at first, and if it was late once.
_ANSWER_SECONDS: Final = 2.0
_LATE_ANSWER_SECONDS: Final = 4.0
#: What a middleware says that is away, or cut off from its store.
_AWAY: Final = (
    *(Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.ABORTED, Code.RESOURCE_EXHAUSTED),
    # An older one, while they are exchanged.
    Code.UNIMPLEMENTED,
)

#: How many reads of single queues are under way at once, and how many wait for that: who makes up names can ask for as
#: many as he likes. What is read of all queues has its own way: at most one read is under way, and one follows.
_QUEUES_AT_ONCE: Final = 8
_QUEUES_WAITING: Final = 512
#: How long a read of queues takes at most, in seconds, the wait for its turn included.
_LISTING_SECONDS: Final = 10.0

AnswerT = TypeVar("AnswerT")


class _Question(NamedTuple):
    """A read of queues, as it is shared.

    Attributes:
        queue: Which; empty for all.
        patient: It waits for its turn however much waits. It is not shared with one that may be refused.
    """

    queue: str
    patient: bool


class MomAway(PosteError):  # noqa: N818 - a state of the world, read at the `except`
    """The middleware, or its store, gives no answer now."""


class MomRefused(PosteError):  # noqa: N818 - the same
    """The middleware does not do what it was asked for; `code` says why."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


class Mom:
    """The middleware, over one channel that follows all its replicas; `run` keeps it going."""

    def __init__(self, target: str) -> None:
        self._channel = Replicated(target)
        self.stub = mom_service_pb2_grpc.MomServiceStub(self._channel)
        self._queues = SharedReads(self._list_queues)
        self._turns = FairQueue(_QUEUES_WAITING, at_once=_QUEUES_AT_ONCE)
        #: Who was the first to ask for what is asked for: it is his turn that is waited for.
        self._askers: dict[_Question, str] = {}

    async def run(self) -> None:
        """Follow its replicas for ever."""
        await self._channel.run()

    async def connected(self, seconds: float) -> bool:
        """Wait for a connection; returns whether there is one."""
        if channels.is_ready(self._channel):
            return True
        try:
            async with asyncio.timeout(seconds):
                while not channels.is_ready(self._channel):
                    await self._channel.wait_for_state_change(self._channel.get_state(try_to_connect=True))
        except TimeoutError:
            return False
        return True

    async def get_task(
        self, service: str, key: str, wait_seconds: float = 0.0, *, whole: bool = False
    ) -> pb.GetTaskResponse:
        """Read a task, waiting for its end if asked to; a large response is left out of one that is not wanted whole.

        Raises:
            MomAway: There is no answer now.
        """
        most = 0 if whole else sizes.LARGE
        request = pb.GetTaskRequest(service=service, key=key, wait_seconds=wait_seconds, max_response_bytes=most)
        return await self._read(lambda timeout: self.stub.GetTask(request, timeout=timeout), wait_seconds)

    async def get_task_history(self, service: str, key: str) -> pb.GetTaskHistoryResponse:
        """Read what became of a task so far.

        Raises:
            MomAway: There is no answer now.
        """
        request = pb.GetTaskHistoryRequest(service=service, key=key)
        return await self._read(lambda timeout: self.stub.GetTaskHistory(request, timeout=timeout))

    async def read_clock(self) -> float:
        """Tell the store's time, in seconds since the epoch.

        Raises:
            MomAway: There is no answer now.
        """
        answer = await self._read(lambda timeout: self.stub.ReadClock(pb.ReadClockRequest(), timeout=timeout))
        return answer.read_time.ToMilliseconds() / 1000

    async def cancel_task(self, service: str, key: str) -> pb.CancelTaskResponse:
        """Cancel a task.

        Raises:
            MomAway: There is no answer now; it may be cancelled all the same.
        """
        request = pb.CancelTaskRequest(service=service, key=key)
        return await self._read(lambda timeout: self.stub.CancelTask(request, timeout=timeout))

    async def list_queues(self, queue: str = "", *, client: str = "", patient: bool = True) -> Sequence[pb.Queue]:
        """Tell how full the queues are, or one of them; one read answers all who asked before it began.

        Args:
            queue: Which; all unless given.
            client: Who asks for one: every client has its share of the turns.
            patient: It waits for its turn however much waits.

        Raises:
            MomAway: There is no answer now.
            Full: Too many single queues are asked for.
        """
        question = _Question(queue, patient)
        self._askers.setdefault(question, client)
        try:
            return await self._queues.get(question)
        except Ended as error:
            raise MomAway from error

    async def _list_queues(self, question: _Question) -> Sequence[pb.Queue]:
        client = self._askers.pop(question, "")
        request = pb.ListQueuesRequest(queue=question.queue)
        turn = self._turns.turn(client, 1, patient=question.patient) if question.queue else contextlib.nullcontext()
        try:
            async with asyncio.timeout(_LISTING_SECONDS), turn:
                answer = await self._read(lambda timeout: self.stub.ListQueues(request, timeout=timeout))
        except TimeoutError as error:
            raise MomAway from error
        return answer.queues

    async def pause_queue(self, queue: str) -> None:
        """Have no more tasks of a queue started.

        Raises:
            MomAway: There is no answer now; it may be paused all the same.
        """
        request = pb.PauseQueueRequest(queue=queue)
        await self._read(lambda timeout: self.stub.PauseQueue(request, timeout=timeout))

    async def resume_queue(self, queue: str) -> None:
        """Have a queue's tasks started again.

        Raises:
            MomAway: There is no answer now; it may be resumed all the same.
        """
        request = pb.ResumeQueueRequest(queue=queue)
        await self._read(lambda timeout: self.stub.ResumeQueue(request, timeout=timeout))

    async def list_recent_tasks(self, queue: str, page_size: int) -> Sequence[pb.RecentTask]:
        """List the newest tasks of a queue.

        Raises:
            MomAway: There is no answer now.
        """
        request = pb.ListRecentTasksRequest(queue=queue, page_size=page_size)
        return (await self._read(lambda timeout: self.stub.ListRecentTasks(request, timeout=timeout))).tasks

    async def list_dead_tasks(self, queue: str, page_size: int, page_token: str) -> pb.ListDeadTasksResponse:
        """List what died in a queue.

        Raises:
            MomAway: There is no answer now.
            MomRefused: The page token is none (INVALID_ARGUMENT).
        """
        request = pb.ListDeadTasksRequest(queue=queue, page_size=page_size, page_token=page_token)
        return await self._read(lambda timeout: self.stub.ListDeadTasks(request, timeout=timeout))

    async def replay_tasks(self, queue: str, keys: Sequence[str]) -> Sequence[pb.DeadTaskResult.ValueType]:
        """Have dead tasks run again.

        Raises:
            MomAway: There is no answer now; they may run all the same.
        """
        request = pb.ReplayTasksRequest(queue=queue, keys=keys)
        return (await self._read(lambda timeout: self.stub.ReplayTasks(request, timeout=timeout))).results

    async def purge_tasks(self, queue: str, keys: Sequence[str]) -> Sequence[pb.DeadTaskResult.ValueType]:
        """Give dead tasks up for good.

        Raises:
            MomAway: There is no answer now; they may be purged all the same.
        """
        request = pb.PurgeTasksRequest(queue=queue, keys=keys)
        return (await self._read(lambda timeout: self.stub.PurgeTasks(request, timeout=timeout))).results

    async def purge_ended_tasks(self, queue: str, page_token: str) -> pb.PurgeEndedTasksResponse:
        """Drop some of what has ended in a queue.

        Raises:
            MomAway: There is no answer now; it may be dropped all the same.
        """
        request = pb.PurgeEndedTasksRequest(queue=queue, page_token=page_token)
        return await self._read(lambda timeout: self.stub.PurgeEndedTasks(request, timeout=timeout))

    async def forget_service(self, service: str, *, even_with_waiting: bool) -> pb.ForgetServiceResponse:
        """Take a service out of the catalogue.

        Raises:
            MomAway: There is no answer now; it may be forgotten all the same.
            MomRefused: It is not in the catalogue (NOT_FOUND).
        """
        request = pb.ForgetServiceRequest(service=service, even_with_waiting=even_with_waiting)
        return await self._read(lambda timeout: self.stub.ForgetService(request, timeout=timeout))

    async def close(self) -> None:
        """Close the connection."""
        await self._queues.close()
        await self._channel.close()

    async def _read(self, ask: Callable[[float], Awaitable[AnswerT]], wait_seconds: float = 0.0) -> AnswerT:
        """Ask what may be asked again, and ask again once if the answer was lost.

        What waits is not: who asks for it knows how much of the time is left.
        """
        for last in (True,) if wait_seconds else (False, True):
            if not await self.connected(_CONNECT_SECONDS):
                break
            try:
                return await ask(wait_seconds + (_LATE_ANSWER_SECONDS if last else _ANSWER_SECONDS))
            except grpc.aio.AioRpcError as error:
                if channels.code(error) not in _AWAY:
                    raise MomRefused(channels.code(error)) from error
                if last:
                    raise MomAway from error
        raise MomAway
