"""The queued road's first step: sends calls to the middleware, many in one RPC, and returns whether each is kept.

A call names the schema by which it is written. The middleware accepts it once it keeps that schema: the first call
under a new one is sent twice, with the schema before the second time.

Calls that arrive while RPCs are in flight go with the next one; a single call is sent at once, without a timer. Large
calls have a queue and RPCs of their own, so that small ones never wait for them.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import grpc.aio

from poste.domain import sizes
from poste.domain.codes import Code
from poste.rpc import channels
from poste.rpc.schemas.schema import MethodSchema
from poste.runtime import logs, own_time
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.mom import Mom

#: How many calls go in one RPC, at most.
_BATCH: Final = 256
#: How many RPCs are in flight at most: so many with small calls, and so many with large ones.
_MAX_INFLIGHT_RPCS: Final = 2
#: How long an RPC in flight delays another that would carry fewer calls, in seconds: longer than an RPC usually takes.
#: The first may have gone to a middleware that hangs; the next goes to another one.
_COALESCE_SECONDS: Final = 0.02
#: How long to go on asking about a call that may be kept, in seconds.
_LOST_SECONDS: Final = 5.0
#: How long to go on trying with a call that is certainly not kept, in seconds. Its client waits; but a middleware at a
#: new address must be found: its name is resolved every half second, and connecting may take a second.
_REFUSED_SECONDS: Final = 3.0
#: The deadline of one RPC, in seconds. One to a middleware that is gone, or that hangs beside a second one, ends
#: sooner; and repeating it at a slow one would only add to its load.
_TRY_SECONDS: Final = 4.0
#: What the middleware is called again after.
_AWAY: Final = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
#: The pause before a call is sent again, in seconds.
_PAUSE_SECONDS: Final = 0.05

_log: Final = logs.get("enqueuer")


class Acceptance(enum.Enum):
    """The result of enqueueing a call."""

    #: It is kept, on disk.
    ACCEPTED = enum.auto()
    #: It is not kept: its queue is full.
    QUEUE_FULL = enum.auto()
    #: It is not kept: its queue's budget is used up.
    BUDGET_SPENT = enum.auto()
    #: It is not kept: no consumer would take it from its queue.
    NO_CONSUMER = enum.auto()
    #: It is not kept: the middleware is there, and its store does not answer.
    STORE_AWAY = enum.auto()
    #: It is not kept, for another reason.
    NOT_ACCEPTED = enum.auto()
    #: It is not kept: another request has its idempotency key.
    KEY_REUSED = enum.auto()
    #: Unknown: an answer was lost, and no later one settled it.
    UNKNOWN = enum.auto()


class Known(NamedTuple):
    """A call that is not kept, for another one with its idempotency key and request was before.

    Attributes:
        id_rest: The id of that one, without its queue's name.
    """

    id_rest: str


class OverQuota(NamedTuple):
    """A call that is not kept, for its client has as much in the queue as it may.

    Attributes:
        quota: How much that is.
        use: How much it has.
    """

    quota: pb.ClientQuota
    use: pb.QuotaUse


#: What became of a call.
Answer: TypeAlias = Acceptance | Known | OverQuota

#: Results that say that a call is invalid. The gateway has checked it already: a defect of one of the two.
_DEFECTS: Final = (
    pb.ENQUEUE_RESULT_BAD_KEY,
    pb.ENQUEUE_RESULT_BAD_TIME,
    pb.ENQUEUE_RESULT_BAD_TTL,
    pb.ENQUEUE_RESULT_BAD_TRACE,
    pb.ENQUEUE_RESULT_BAD_IDS,
    pb.ENQUEUE_RESULT_BAD_CALLBACK,
    pb.ENQUEUE_RESULT_BAD_QUOTA,
    pb.ENQUEUE_RESULT_TOO_LARGE,
)
_REFUSED: Final = {
    pb.ENQUEUE_RESULT_QUEUE_FULL: Acceptance.QUEUE_FULL,
    pb.ENQUEUE_RESULT_BUDGET_SPENT: Acceptance.BUDGET_SPENT,
    pb.ENQUEUE_RESULT_CLOCK_OFF: Acceptance.NOT_ACCEPTED,
    pb.ENQUEUE_RESULT_NOT_CATALOGUED: Acceptance.NOT_ACCEPTED,
    pb.ENQUEUE_RESULT_NO_CONSUMER: Acceptance.NO_CONSUMER,
    pb.ENQUEUE_RESULT_KEY_REUSED: Acceptance.KEY_REUSED,
    **dict.fromkeys(_DEFECTS, Acceptance.NOT_ACCEPTED),
}


#: What is certain although an earlier answer was lost: the record is this call's, or was another's all along.
_CERTAIN: Final = (Acceptance.ACCEPTED, Acceptance.KEY_REUSED)


@dataclass(slots=True, eq=False)
class _Item:
    """One call. Once an answer about it was lost (`lost`), few are certain (`_CERTAIN`); else `why` it is not kept."""

    task: pb.NewTask
    schema: MethodSchema | None
    quota: pb.ClientQuota | None
    size: int
    start: float
    outcome: asyncio.Future[Answer]
    lost: bool = False
    why: Acceptance = Acceptance.NOT_ACCEPTED

    @property
    def end(self) -> float:
        """When to give up, in the process' own time: seconds in which it was halted don't count."""
        return self.start + (_LOST_SECONDS if self.lost else _REFUSED_SECONDS)

    def settle(self, answer: Answer) -> None:
        if self.lost and answer not in _CERTAIN and not isinstance(answer, Known):
            answer = Acceptance.UNKNOWN
        if not self.outcome.done():
            self.outcome.set_result(answer)


class Enqueuer:
    """Sends calls to the middleware, many in one RPC."""

    def __init__(self, mom: Mom) -> None:
        #: By service, how long a call that was kept just now waits for its turn, in seconds, where that is known.
        self.turns: dict[str, float] = {}
        self._small = _Queue(mom, self.turns)
        self._large = _Queue(mom, self.turns)
        self._loop = asyncio.get_running_loop()

    async def enqueue(
        self, task: pb.NewTask, schema: MethodSchema | None = None, quota: pb.ClientQuota | None = None
    ) -> Answer:
        """Enqueue one call, written by the schema that it names; return the result within some seconds.

        Args:
            task: The call.
            schema: The schema.
            quota: That of its client, if it has one.
        """
        size = task.ByteSize()
        item = _Item(task, schema, quota, size, own_time.now(), self._loop.create_future())
        (self._large if size > sizes.LARGE else self._small).put(item)
        # The batch goes on if this request is cancelled: other calls are in it.
        return await item.outcome

    async def close(self) -> None:
        """Wait for the RPCs in flight; `enqueue` must not be called any more."""
        await self._small.close()
        await self._large.close()


class _Queue:
    """Calls that wait for an RPC, and the RPCs in flight."""

    def __init__(self, mom: Mom, turns: dict[str, float]) -> None:
        self._mom = mom
        self._turns = turns
        self._waiting: deque[_Item] = deque()
        self._inflight: set[asyncio.Task[None]] = set()
        #: How many calls are in flight.
        self._out = 0
        #: When the latest RPC left.
        self._left = 0.0
        self._loop = asyncio.get_running_loop()
        #: A context without a request: a batch carries many calls, and its log lines must not name only the first.
        self._context = contextvars.copy_context()

    def put(self, item: _Item) -> None:
        """Send a call as soon as there is an RPC for it."""
        self._waiting.append(item)
        self._dispatch()

    async def close(self) -> None:
        """Wait for the RPCs in flight."""
        while self._inflight:
            await asyncio.wait(self._inflight)

    def _dispatch(self) -> None:
        if not self._waiting or len(self._inflight) >= _MAX_INFLIGHT_RPCS:
            return
        # While one is in flight, the next waits until it would carry as many: an RPC costs more than its calls.
        if len(self._waiting) < self._out and self._loop.time() < self._left + _COALESCE_SECONDS:
            return
        self._left = self._loop.time()
        # Tried again then, if this RPC is not answered. A little later than that: clocks are rounded.
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
            # A defect, or the end of the process: no request may wait for ever.
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
        """Take the calls of the next RPC out of the queue."""
        batch: list[_Item] = []
        size = 0
        while self._waiting and len(batch) < _BATCH:
            size += self._waiting[0].size
            if batch and size > sizes.BATCH:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _send(self, batch: list[_Item]) -> list[_Item]:
        """Send one batch; return the calls that are to be sent again."""
        if not batch:
            return []
        if not await self._mom.connected(max(0.0, max(item.end for item in batch) - own_time.now())):
            return _again(batch)
        try:
            answer = await self._mom.stub.EnqueueTasks(_request(batch), timeout=_TRY_SECONDS)
        except grpc.aio.AioRpcError as error:
            if channels.code(error) is Code.RESOURCE_EXHAUSTED:
                return await self._send_split(batch)
            not_run = channels.proves_not_run(error)
            facts = {"code": error.code().name, "calls": len(batch), "not_run": not_run}
            _log.warning("enqueue lost", **facts, request_ids=_request_ids(batch))
            for item in batch:
                item.lost = item.lost or not not_run
            return _again(batch)
        if self._turns or answer.turn_seconds:
            for service in {item.task.service for item in batch}:
                self._turns.pop(service, None)
            self._turns.update(answer.turn_seconds)
        open_items, unknown = _sorted(batch, answer)
        if unknown:
            await self._keep_schemas(unknown)
        return _again(open_items + unknown)

    async def _keep_schemas(self, items: list[_Item]) -> None:
        """Have the schemas kept by which calls are written; they are sent again then."""
        for fingerprint, schema in {item.task.schema: item.schema for item in items}.items():
            kept = False
            if schema is not None:
                try:
                    request = pb.KeepSchemaRequest(text=schema.text)
                    kept = (await self._mom.stub.KeepSchema(request, timeout=_TRY_SECONDS)).kept
                except grpc.aio.AioRpcError as error:
                    _log.warning("schema not kept", code=error.code().name, schema=fingerprint)
                    if channels.code(error) in _AWAY:
                        continue
            if not kept:
                # A call is not refused for that: it runs under whatever schema its service has by then.
                for item in items:
                    if item.task.schema == fingerprint:
                        item.task.schema = ""

    async def _send_split(self, batch: list[_Item]) -> list[_Item]:
        """Send in two halves a batch that was too large for one message; return the calls that are to be sent again.

        gRPC refuses a message with this status before it is sent or read, so none of its calls is kept. (The middleware
        itself never answers so here, and its answer has a few bytes a call.)
        """
        size = sum(item.size for item in batch)
        _log.warning("enqueue refused: too large", calls=len(batch), bytes=size, request_ids=_request_ids(batch))
        if len(batch) == 1:
            batch[0].settle(Acceptance.NOT_ACCEPTED)
            return []
        middle = len(batch) // 2
        return [*await self._send(batch[:middle]), *await self._send(batch[middle:])]


def _request(batch: list[_Item]) -> pb.EnqueueTasksRequest:
    request = pb.EnqueueTasksRequest(tasks=[item.task for item in batch])
    for place, item in enumerate(batch):
        if item.quota is not None:
            request.quotas[place].CopyFrom(item.quota)
    return request


def _sorted(batch: list[_Item], answer: pb.EnqueueTasksResponse) -> tuple[list[_Item], list[_Item]]:
    """Settle the calls whose results are certain; return those that are open, and those whose schema is not kept."""
    open_items: list[_Item] = []
    unknown: list[_Item] = []
    for place, (item, result) in enumerate(zip(batch, answer.results, strict=True)):
        if result == pb.ENQUEUE_RESULT_ACCEPTED:
            item.settle(Acceptance.ACCEPTED)
        elif result == pb.ENQUEUE_RESULT_KNOWN:
            item.settle(Known(answer.first_ids[place]))
        elif result == pb.ENQUEUE_RESULT_OVER_QUOTA and item.quota is not None:
            item.settle(OverQuota(item.quota, answer.quota_uses[place]))
        elif result in _REFUSED:
            _log_refusal(result, item)
            item.settle(_REFUSED[result])
        elif result == pb.ENQUEUE_RESULT_SCHEMA_UNKNOWN:
            unknown.append(item)
        else:
            store_away = result == pb.ENQUEUE_RESULT_STORE_UNAVAILABLE
            item.lost = item.lost or not store_away
            item.why = Acceptance.STORE_AWAY if store_away else Acceptance.NOT_ACCEPTED
            open_items.append(item)
    return open_items, unknown


def _again(items: list[_Item]) -> list[_Item]:
    """Settle the calls for which no time is left; return the others."""
    now = own_time.now()
    again = []
    for item in items:
        if now >= item.end:
            item.settle(item.why)
        else:
            again.append(item)
    return again


def _log_refusal(result: pb.EnqueueResult.ValueType, item: _Item) -> None:
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
