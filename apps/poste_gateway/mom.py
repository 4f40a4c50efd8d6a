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
from poste.rpc.credentials import Credentials
from poste.rpc.replicated import Replicated
from poste.runtime import logs
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import mom_service_pb2_grpc
from poste_gateway.limits.fair_queue import FairQueue
from poste_gateway.shared_reads import Ended, SharedReads

#: How long a call waits for a connection before it is given up unsent, in seconds: it may be repeated.
_CONNECT_SECONDS: Final = 1.0
#: The deadline of a call that does not wait for anything, in seconds: of the first try, and of the second.
_ANSWER_SECONDS: Final = 2.0
_LATE_ANSWER_SECONDS: Final = 4.0
#: The statuses by which the middleware, or its store, is away.
_AWAY: Final = (
    *(Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.ABORTED, Code.RESOURCE_EXHAUSTED),
    # An older middleware, during an upgrade.
    Code.UNIMPLEMENTED,
)

#: How many reads of single queues are in flight at once, and how many may wait: a client can ask for any number of
#: made-up names. Of the read of all queues at most one is in flight, and one follows.
_QUEUES_AT_ONCE: Final = 8
_QUEUES_WAITING: Final = 512
#: The deadline of a read of queues, in seconds, the wait for its turn included.
_LISTING_SECONDS: Final = 10.0
#: How long the middleware has for reading what a server serves, in seconds.
_REFLECTION_SECONDS: Final = 10.0

#: What people are told where the middleware is there, and its store is not.
STORE_AWAY: Final = "Redis does not answer the middleware"

AnswerT = TypeVar("AnswerT")


class _Question(NamedTuple):
    """The key of a shared read of queues.

    Attributes:
        queue: The queue; empty for all.
        patient: Wait for a turn even if too many wait. Not shared with a read that may be refused.
    """

    queue: str
    patient: bool


class MomAway(PosteError):  # noqa: N818 - a state of the world, read at the `except`
    """The middleware, or its store, is away: there is no answer now. The text says which."""

    def __init__(self, *, store: bool = False) -> None:
        super().__init__(STORE_AWAY if store else "the middleware does not answer")


class MomRefused(PosteError):  # noqa: N818 - the same
    """The middleware refused a call, with the status `code`."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


class Mom:
    """The middleware, over one channel that follows all its replicas; `run` keeps it going."""

    def __init__(self, target: str, credentials: Credentials | None = None) -> None:
        self._channel = Replicated(target, credentials)
        self.stub = mom_service_pb2_grpc.MomServiceStub(self._channel)
        self._queues = SharedReads(self._list_queues)
        self._turns = FairQueue(_QUEUES_WAITING, at_once=_QUEUES_AT_ONCE)
        #: The client that was the first to ask for each shared read: its turn is waited for.
        self._askers: dict[_Question, str] = {}

    async def run(self) -> None:
        """Keep the connections to the middleware's replicas up to date, until cancelled."""
        await self._channel.run()

    async def connected(self, seconds: float) -> bool:
        """Wait for a connection for so many seconds; return whether there is one."""
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
        """Read a task, waiting up to `wait_seconds` for its end. A large response is left out unless `whole`.

        Raises:
            MomAway: There is no answer now.
        """
        most = 0 if whole else sizes.LARGE
        request = pb.GetTaskRequest(service=service, key=key, wait_seconds=wait_seconds, max_response_bytes=most)
        return await self._read(self.stub.GetTask, request, wait_seconds)

    async def get_task_history(
        self, service: str, key: str, known_mark: str = "", wait_seconds: float = 0.0
    ) -> pb.GetTaskHistoryResponse:
        """Read the events of a task so far, waiting up to `wait_seconds` for a history with another mark.

        Raises:
            MomAway: There is no answer now.
        """
        request = pb.GetTaskHistoryRequest(service=service, key=key, known_mark=known_mark, wait_seconds=wait_seconds)
        return await self._read(self.stub.GetTaskHistory, request, wait_seconds)

    async def read_clock(self) -> float:
        """Return the store's time, in seconds since the epoch.

        Raises:
            MomAway: There is no answer now.
        """
        answer = await self._read(self.stub.ReadClock, pb.ReadClockRequest())
        return answer.read_time.ToMilliseconds() / 1000

    async def cancel_task(self, service: str, key: str) -> pb.CancelTaskResponse:
        """Cancel a task.

        Raises:
            MomAway: There is no answer now; it may be cancelled all the same.
        """
        request = pb.CancelTaskRequest(service=service, key=key)
        return await self._read(self.stub.CancelTask, request)

    async def list_queues(self, queue: str = "", *, client: str = "", patient: bool = True) -> Sequence[pb.Queue]:
        """Read the figures of all queues, or of one. One read answers all requests that came before it began.

        Args:
            queue: The queue; all unless given.
            client: The client that asks for one; each has its share of the turns.
            patient: Wait for a turn even if too many wait.

        Raises:
            MomAway: There is no answer now.
            Full: Too many reads of single queues wait already.
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
                answer = await self._read(self.stub.ListQueues, request, shared=True)
        except TimeoutError as error:
            raise MomAway from error
        return answer.queues

    async def pause_queue(self, queue: str) -> None:
        """Pause a queue: no more of its tasks are started.

        Raises:
            MomAway: There is no answer now; it may be paused all the same.
        """
        request = pb.PauseQueueRequest(queue=queue)
        await self._read(self.stub.PauseQueue, request)

    async def resume_queue(self, queue: str) -> None:
        """Resume a paused queue.

        Raises:
            MomAway: There is no answer now; it may be resumed all the same.
        """
        request = pb.ResumeQueueRequest(queue=queue)
        await self._read(self.stub.ResumeQueue, request)

    async def list_recent_tasks(self, queue: str, page_size: int) -> Sequence[pb.ListedTask]:
        """List the newest tasks of a queue.

        Raises:
            MomAway: There is no answer now.
        """
        request = pb.ListRecentTasksRequest(queue=queue, page_size=page_size)
        return (await self._read(self.stub.ListRecentTasks, request)).tasks

    async def search_tasks(
        self,
        queue: str,
        wanted: pb.TaskFilter,
        page_size: int,
        page_token: str,
        *,
        owner: str = "",
        client: str = "",
        key: str = "",
    ) -> pb.SearchTasksResponse:
        """Find some tasks of a queue, of all if none is named, or the one of a queue that has a key.

        With an `owner` (`TaskIds.owner_of`) only that one's; with a `client` too, only that one's of these.

        Raises:
            MomAway: There is no answer now.
            MomRefused: The page token is invalid (INVALID_ARGUMENT).
        """
        request = pb.SearchTasksRequest(
            queue=queue,
            filter=wanted,
            page_size=page_size,
            page_token=page_token,
            owner=owner,
            client=client,
            key=key,
        )
        return await self._read(self.stub.SearchTasks, request)

    async def inspect_task(self, queue: str, key: str) -> pb.InspectTaskResponse:
        """Read what a task was called with.

        Raises:
            MomAway: There is no answer now.
        """
        return await self._read(self.stub.InspectTask, pb.InspectTaskRequest(queue=queue, key=key))

    async def list_dead_tasks(
        self, queue: str, wanted: pb.TaskFilter, page_size: int, page_token: str
    ) -> pb.ListDeadTasksResponse:
        """List a page of a queue's dead letters.

        Raises:
            MomAway: There is no answer now.
            MomRefused: The page token is invalid (INVALID_ARGUMENT).
        """
        request = pb.ListDeadTasksRequest(queue=queue, filter=wanted, page_size=page_size, page_token=page_token)
        return await self._read(self.stub.ListDeadTasks, request)

    async def group_dead_tasks(self, queue: str, newest: int) -> pb.GroupDeadTasksResponse:
        """Count a queue's dead letters by method and reason, with so many of the newest of each.

        Raises:
            MomAway: There is no answer now.
        """
        return await self._read(self.stub.GroupDeadTasks, pb.GroupDeadTasksRequest(queue=queue, newest=newest))

    async def cancel_tasks(
        self, queue: str, keys: Sequence[str], *, only_waiting: bool
    ) -> Sequence[pb.CancelTaskResult.ValueType]:
        """Cancel tasks, for an operator.

        Raises:
            MomAway: There is no answer now; they may be cancelled all the same.
        """
        request = pb.CancelTasksRequest(queue=queue, keys=keys, only_waiting=only_waiting)
        return list((await self._read(self.stub.CancelTasks, request)).results)

    async def replay_tasks(
        self, queue: str, keys: Sequence[str], *, as_is: bool = False
    ) -> Sequence[pb.DeadTaskResult.ValueType]:
        """Replay dead letters and what failed; with `as_is` under whatever schema their service has by then.

        Raises:
            MomAway: There is no answer now; they may run all the same.
        """
        request = pb.ReplayTasksRequest(queue=queue, keys=keys, as_is=as_is)
        return (await self._read(self.stub.ReplayTasks, request)).results

    async def purge_tasks(self, queue: str, keys: Sequence[str]) -> Sequence[pb.DeadTaskResult.ValueType]:
        """Purge dead letters.

        Raises:
            MomAway: There is no answer now; they may be purged all the same.
        """
        request = pb.PurgeTasksRequest(queue=queue, keys=keys)
        return (await self._read(self.stub.PurgeTasks, request)).results

    async def move_tasks(self, queue: str, keys: Sequence[str], *, target: str, dry_run: bool) -> pb.MoveTasksResponse:
        """Move tasks to another service's queue; with `dry_run` only tell what would become of each.

        Raises:
            MomAway: There is no answer now; they may be moved all the same.
            MomRefused: There is no such service (NOT_FOUND), it is the queue's own (INVALID_ARGUMENT), or its queue
                holds as much as it may (RESOURCE_EXHAUSTED).
        """
        request = pb.MoveTasksRequest(queue=queue, keys=keys, target=target, dry_run=dry_run)
        return await self._read(self.stub.MoveTasks, request)

    async def purge_ended_tasks(self, queue: str, page_token: str) -> pb.PurgeEndedTasksResponse:
        """Drop a page of a queue's ended tasks.

        Raises:
            MomAway: There is no answer now; it may be dropped all the same.
        """
        request = pb.PurgeEndedTasksRequest(queue=queue, page_token=page_token)
        return await self._read(self.stub.PurgeEndedTasks, request)

    async def lease_callbacks(self, count: int, wait_seconds: float) -> Sequence[pb.Callback]:
        """Lease ends that are due to be told to their clients' URLs, waiting up to `wait_seconds` for some.

        Raises:
            MomAway: There is no answer now.
        """
        request = pb.LeaseCallbacksRequest(max_callbacks=count, wait_seconds=wait_seconds)
        return (await self._read(self.stub.LeaseCallbacks, request, wait_seconds, shared=True)).callbacks

    async def settle_callbacks(self, settled: Sequence[pb.SettledCallback]) -> Sequence[pb.CallbackResult.ValueType]:
        """Say what came of telling ends; returns what becomes of each.

        Raises:
            MomAway: There is no answer now; it may be stored all the same.
        """
        request = pb.SettleCallbacksRequest(settled=settled)
        return (await self._read(self.stub.SettleCallbacks, request, shared=True)).results

    async def list_undelivered(self, queue: str) -> Sequence[pb.Callback]:
        """List ends of a queue's tasks that could not be told.

        Raises:
            MomAway: There is no answer now.
        """
        return (await self._read(self.stub.ListUndelivered, pb.ListUndeliveredRequest(queue=queue))).callbacks

    async def redeliver_callbacks(self, queue: str, keys: Sequence[str] = ()) -> int:
        """Have ends told again that could not be told: of these tasks, or of all of a queue; returns how many.

        Raises:
            MomAway: There is no answer now; they may be told all the same.
        """
        request = pb.RedeliverCallbacksRequest(queue=queue, keys=keys)
        return (await self._read(self.stub.RedeliverCallbacks, request)).redelivered

    async def register_target(self, target: str) -> pb.RegisterTargetResponse:
        """Make the services of a server known.

        Raises:
            MomAway: There is no answer now; they may be known all the same.
        """
        request = pb.RegisterTargetRequest(target=target)
        return await self._read(self.stub.RegisterTarget, request, _REFLECTION_SECONDS)

    async def forget_service(self, service: str, *, even_with_waiting: bool) -> pb.ForgetServiceResponse:
        """Take a service out of the catalogue.

        Raises:
            MomAway: There is no answer now; it may be forgotten all the same.
            MomRefused: It is not in the catalogue (NOT_FOUND).
        """
        request = pb.ForgetServiceRequest(service=service, even_with_waiting=even_with_waiting)
        return await self._read(self.stub.ForgetService, request)

    async def close(self) -> None:
        """Close the connection."""
        await self._queues.close()
        await self._channel.close()

    async def _read(
        self,
        method: Callable[..., Awaitable[AnswerT]],
        request: object,
        wait_seconds: float = 0.0,
        *,
        shared: bool = False,
    ) -> AnswerT:
        """Call a method that may be repeated, and repeat it once if its answer was lost.

        A call that waits is not repeated: its caller knows how much of the time is left. One that several requests
        share (`shared`) has no request id.
        """
        metadata = () if shared else _metadata()
        for last in (True,) if wait_seconds else (False, True):
            if not await self.connected(_CONNECT_SECONDS):
                break
            timeout = wait_seconds + (_LATE_ANSWER_SECONDS if last else _ANSWER_SECONDS)
            try:
                return await method(request, timeout=timeout, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                if channels.code(error) not in _AWAY:
                    raise MomRefused(channels.code(error)) from error
                if last:
                    raise MomAway(store=channels.says_store_away(error)) from error
        raise MomAway


def request_id() -> str:
    """Return the id of the HTTP request that is answered; empty if none is."""
    names = logs.names.get(None)
    return str(names().get("request_id", "")) if names else ""


def _metadata() -> tuple[tuple[str, str], ...]:
    """Return the id of the HTTP request that is answered, so that the middleware's log lines have it too."""
    answered = request_id()
    return ((channels.REQUEST_ID, answered),) if answered else ()
