"""The queued road's first step: calls are handed to the middleware, and each learns what became of it.

Natural batching: what waits while the RPCs are out goes with the next one. No timers, so a call alone goes at once.
Large calls have a queue and flights of their own, so that small ones never wait for them.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import grpc.aio

from poste.domain import sizes
from poste.domain.codes import Code
from poste.rpc import channels
from poste.runtime import logs, own_time
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.mom import Mom

#: How many calls go in one RPC, at most.
_BATCH: Final = 256
#: How many RPCs are out at once, at most: so many with small calls, and so many with large ones.
_MAX_INFLIGHT_RPCS: Final = 2
#: How long an RPC is waited for before another that would carry fewer calls goes beside it, in seconds: longer than one
#: takes as a rule. It may be out to a middleware that hangs, and the next goes to another.
_COALESCE_SECONDS: Final = 0.02
#: How long it is tried to find out about a call that may be kept, in seconds.
_LOST_SECONDS: Final = 5.0
#: How long it is tried to have a call kept that is certainly not, in seconds: its client waits, but a middleware that
#: was moved is to be found. Its name is looked up every half second, and a connection may take a second to be made.
_REFUSED_SECONDS: Final = 3.0
#: How long one RPC may take, in seconds. One to a middleware that is gone, or hangs beside another, ends sooner; and to
#: ask one that is late again would only give it more to do.
_TRY_SECONDS: Final = 4.0
#: The pause before a lost answer is asked for again, in seconds.
_PAUSE_SECONDS: Final = 0.05

_log: Final = logs.get("enqueuer")


class Acceptance(enum.Enum):
    """What became of a call that was to be kept."""

    #: It is kept, on disk.
    ACCEPTED = enum.auto()
    #: It is not kept: its queue is full.
    QUEUE_FULL = enum.auto()
    #: It is not kept: its queue takes as much of the store as it may.
    BUDGET_SPENT = enum.auto()
    #: It is not kept: nobody would take it from its queue.
    NO_CONSUMER = enum.auto()
    #: It is not kept, for another reason.
    NOT_ACCEPTED = enum.auto()
    #: Nobody knows.
    UNKNOWN = enum.auto()


#: What the middleware finds wrong with a call that this gateway has let in: a defect of one of the two.
_DEFECTS: Final = (
    pb.ENQUEUE_RESULT_BAD_KEY,
    pb.ENQUEUE_RESULT_BAD_TIME,
    pb.ENQUEUE_RESULT_BAD_TTL,
    pb.ENQUEUE_RESULT_BAD_TRACE,
    pb.ENQUEUE_RESULT_BAD_IDS,
    pb.ENQUEUE_RESULT_TOO_LARGE,
)
_REFUSED: Final = {
    pb.ENQUEUE_RESULT_QUEUE_FULL: Acceptance.QUEUE_FULL,
    pb.ENQUEUE_RESULT_BUDGET_SPENT: Acceptance.BUDGET_SPENT,
    pb.ENQUEUE_RESULT_CLOCK_OFF: Acceptance.NOT_ACCEPTED,
    pb.ENQUEUE_RESULT_NOT_CATALOGUED: Acceptance.NOT_ACCEPTED,
    pb.ENQUEUE_RESULT_NO_CONSUMER: Acceptance.NO_CONSUMER,
    **dict.fromkeys(_DEFECTS, Acceptance.NOT_ACCEPTED),
}


@dataclass(slots=True, eq=False)
class _Item:
    """One call on its way: once an answer on it was lost, only ACCEPTED is certain."""

    task: pb.NewTask
    size: int
    start: float
    outcome: asyncio.Future[Acceptance]
    lost: bool = False

    @property
    def end(self) -> float:
        """When to give up, in seconds of this process' own time: while it was halted nobody could answer it."""
        return self.start + (_LOST_SECONDS if self.lost else _REFUSED_SECONDS)

    def settle(self, acceptance: Acceptance) -> None:
        if self.lost and acceptance is not Acceptance.ACCEPTED:
            acceptance = Acceptance.UNKNOWN
        if not self.outcome.done():
            self.outcome.set_result(acceptance)


class Enqueuer:
    """Hands calls to the middleware, many in one RPC."""

    def __init__(self, mom: Mom) -> None:
        self._small = _Queue(mom)
        self._large = _Queue(mom)
        self._loop = asyncio.get_running_loop()

    async def enqueue(self, task: pb.NewTask) -> Acceptance:
        """Have one call kept; returns what became of it, within seconds."""
        size = task.ByteSize()
        item = _Item(task, size, own_time.now(), self._loop.create_future())
        (self._large if size > sizes.LARGE else self._small).put(item)
        # Its batch goes on if whoever waits here is gone: accept-and-answer is one unit.
        return await item.outcome

    async def close(self) -> None:
        """Wait for what is out; nothing may be handed in any more."""
        await self._small.close()
        await self._large.close()


class _Queue:
    """Calls that wait for an RPC, and those that are out in one."""

    def __init__(self, mom: Mom) -> None:
        self._mom = mom
        self._waiting: deque[_Item] = deque()
        self._inflight: set[asyncio.Task[None]] = set()
        #: How many calls are out.
        self._out = 0
        #: When the latest RPC left.
        self._left = 0.0
        self._loop = asyncio.get_running_loop()
        #: Of no call: a batch carries many, and its lines would say that they are of the one that came first.
        self._context = contextvars.copy_context()

    def put(self, item: _Item) -> None:
        """Send a call as soon as there is an RPC for it."""
        self._waiting.append(item)
        self._dispatch()

    async def close(self) -> None:
        """Wait for what is out."""
        while self._inflight:
            await asyncio.wait(self._inflight)

    def _dispatch(self) -> None:
        if not self._waiting or len(self._inflight) >= _MAX_INFLIGHT_RPCS:
            return
        # While one is out, another waits until it would carry as many: an RPC costs more than all that it carries.
        if len(self._waiting) < self._out and self._loop.time() < self._left + _COALESCE_SECONDS:
            return
        self._left = self._loop.time()
        # What waits then looks again, should this one not be back. A little later: clocks are rounded.
        self._loop.call_later(1.1 * _COALESCE_SECONDS, self._dispatch)
        batch = self._loop.create_task(self._send_batch(), context=self._context)
        self._inflight.add(batch)
        batch.add_done_callback(self._on_batch_done)

    def _on_batch_done(self, batch: asyncio.Task[None]) -> None:
        self._inflight.discard(batch)
        if not batch.cancelled() and batch.exception() is not None:
            _log.error("batch failed", exc_info=batch.exception())
        self._dispatch()

    async def _send_batch(self) -> None:
        batch = self._take()
        self._out += len(batch)
        try:
            again = await self._send(batch)
        except BaseException:
            # A defect, or the end of the process: nobody may wait for ever.
            for item in batch:
                item.lost = True
                item.settle(Acceptance.UNKNOWN)
            raise
        finally:
            self._out -= len(batch)
        if again:
            await asyncio.sleep(_PAUSE_SECONDS)
            self._waiting.extendleft(reversed(again))

    def _take(self) -> list[_Item]:
        """Take what goes in the next RPC."""
        batch: list[_Item] = []
        size = 0
        while self._waiting and len(batch) < _BATCH:
            size += self._waiting[0].size
            if batch and size > sizes.BATCH:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _send(self, batch: list[_Item]) -> list[_Item]:
        """Send one batch; returns those of it that are to be asked for again."""
        if not batch:
            return []
        if not await self._mom.connected(max(0.0, max(item.end for item in batch) - own_time.now())):
            return _again(batch)
        request = pb.EnqueueTasksRequest(tasks=[item.task for item in batch])
        try:
            answer = await self._mom.stub.EnqueueTasks(request, timeout=_TRY_SECONDS)
        except grpc.aio.AioRpcError as error:
            if channels.code(error) is Code.RESOURCE_EXHAUSTED:
                return await self._send_split(batch)
            not_run = channels.proves_not_run(error)
            facts = {"code": error.code().name, "calls": len(batch), "not_run": not_run}
            _log.warning("enqueue lost", **facts, request_ids=_request_ids(batch))
            for item in batch:
                item.lost = item.lost or not not_run
            return _again(batch)
        open_items = []
        for item, result in zip(batch, answer.results, strict=True):
            if result == pb.ENQUEUE_RESULT_ACCEPTED:
                item.settle(Acceptance.ACCEPTED)
            elif result in _REFUSED:
                _tell(result, item)
                item.settle(_REFUSED[result])
            else:
                item.lost = item.lost or result != pb.ENQUEUE_RESULT_STORE_UNAVAILABLE
                open_items.append(item)
        return _again(open_items)

    async def _send_split(self, batch: list[_Item]) -> list[_Item]:
        """Send in two what was too much for one message; returns those of it that are to be asked for again.

        By this status a message is refused before it is sent or read: whatever it brought did not run. (The middleware
        itself never says so here, and its answer is a few bytes a call.)
        """
        size = sum(item.size for item in batch)
        _log.warning("enqueue refused: too large", calls=len(batch), bytes=size, request_ids=_request_ids(batch))
        if len(batch) == 1:
            batch[0].settle(Acceptance.NOT_ACCEPTED)
            return []
        middle = len(batch) // 2
        return [*await self._send(batch[:middle]), *await self._send(batch[middle:])]


def _again(items: list[_Item]) -> list[_Item]:
    """Settle the items for which there is no time left; returns the others."""
    now = own_time.now()
    again = []
    for item in items:
        if now >= item.end:
            item.settle(Acceptance.NOT_ACCEPTED)
        else:
            again.append(item)
    return again


def _tell(result: pb.EnqueueResult.ValueType, item: _Item) -> None:
    facts = {"service": item.task.service, "request_id": item.task.request_id}
    if result == pb.ENQUEUE_RESULT_CLOCK_OFF:
        _log.error("this gateway's clock is off: the store refuses its calls", **facts)
    elif result == pb.ENQUEUE_RESULT_NOT_CATALOGUED:
        _log.error("the middleware does not know the service", **facts)
    elif result in _DEFECTS:
        word = pb.EnqueueResult.Name(result)
        _log.error("the middleware refuses a call that this gateway let in", **facts, result=word)


def _request_ids(items: Iterable[_Item]) -> list[str]:
    return [item.task.request_id for item in items]
