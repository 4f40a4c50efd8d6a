"""Brings handlers' outcomes to the middleware, many in one RPC, for as long as it takes.

Batching is natural: whatever ended while earlier reports were under way goes with the next one. So a single outcome
waits for nothing, and a thousand cost a few calls. A middleware that does not get done with so many in time gets fewer
at a time, and longer for them: the same again, and again cut off, would never be done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import grpc.aio

from poste.domain import sizes
from poste.domain.codes import Code
from poste.queue.consumer import ClaimedTask, request_ids
from poste.rpc import statuses
from poste.rpc.channels import code, proves_not_run
from poste.runtime import logs
from poste.runtime.backoff import Backoff
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc

_log = logs.get("report")
#: At most this many outcomes go in one RPC.
MAX_BATCH: Final = 256
#: At most this many RPCs are under way.
LANES: Final = 2
#: While one is, fewer outcomes than so many wait for more, for so many seconds: an RPC costs as much as ten outcomes.
_WORTH_A_LANE: Final = 16
_BESIDE_SECONDS: Final = 0.005
#: How long one RPC may take, in seconds: doubled each time that one took longer, never more than the last.
_DEADLINE_SECONDS: Final = 5.0
_LAST_DEADLINE_SECONDS: Final = 60.0
#: What of that is left after one that was in time, down to the first.
_SHORTER: Final = 0.9
#: Waits after a failure, in seconds: at most the first, doubled each time, never more than the last.
_FIRST_BACKOFF_SECONDS: Final = 0.1
_MAX_BACKOFF_SECONDS: Final = 5.0
#: What says that the middleware is away, and nothing of what was sent to it.
_AWAY: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})

Result: TypeAlias = mom_service_pb2.CompleteResult.ValueType


@dataclass(slots=True)
class _Entry:
    """One outcome that waits to be stored. One whose company failed travels alone: it may be the culprit."""

    completion: mom_service_pb2.Completion
    answer: asyncio.Future[Result]
    size: int
    task: ClaimedTask | None
    alone: bool = field(default=False)

    def give_up(self) -> None:
        """Report in its place that there is no way for it: refused alone for its size, it would be so for ever."""
        names = {} if self.task is None else self.task.names()
        _log.error("a result is too large to be reported", **names, bytes=self.size)
        said = f"the response is too large to be kept: its result has {self.size} bytes"
        self.completion.error.CopyFrom(statuses.too_large(said))
        self.size = self.completion.ByteSize()


class Reporter:
    """Reports the outcomes of one process."""

    def __init__(self, channel: grpc.aio.Channel, *, deadline_seconds: float = _DEADLINE_SECONDS) -> None:
        """Prepare; `run` begins.

        Args:
            channel: To the middleware.
            deadline_seconds: How long an RPC may take, as long as all are in time.
        """
        self._stub = mom_service_pb2_grpc.MomServiceStub(channel)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Entry] = deque()
        self._some = asyncio.Event()
        self._large = asyncio.Lock()
        self._under_way = 0
        self._backoff = Backoff(_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS)
        #: How many the middleware gets at a time, and how long it has for them, in seconds.
        self._most = MAX_BATCH
        self._first_deadline = self._deadline = deadline_seconds

    def report(self, completion: mom_service_pb2.Completion, task: ClaimedTask | None = None) -> asyncio.Future[Result]:
        """Report one outcome.

        Args:
            completion: The outcome.
            task: Whose it is, for the log.

        Returns:
            A future that has the middleware's answer. Cancelling it withdraws what is not sent yet.
        """
        answer: asyncio.Future[Result] = self._loop.create_future()
        self._put(_Entry(completion, answer, completion.ByteSize(), task))
        return answer

    async def run(self) -> None:
        """Send what waits, until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            for _ in range(LANES):
                lanes.create_task(self._lane())

    async def _lane(self) -> None:
        while True:
            while not self._waiting:
                self._some.clear()
                await self._some.wait()
            # What ends in this very turn of the loop comes along; beside an RPC that is under way, a few more: if that
            # ends meanwhile, they go with the next one of its lane.
            beside = self._under_way > 0 and len(self._waiting) < _WORTH_A_LANE
            await asyncio.sleep(_BESIDE_SECONDS if beside else 0)
            batch = self._take()
            if batch:
                self._under_way += 1
                try:
                    # The middleware reads one that is large at a time, and here each is there three times over.
                    async with self._large if batch[0].size > sizes.BATCH else contextlib.nullcontext():
                        await self._send(batch)
                finally:
                    self._under_way -= 1

    def _put(self, entry: _Entry) -> None:
        self._waiting.append(entry)
        self._some.set()

    def _take(self) -> list[_Entry]:
        batch: list[_Entry] = []
        size = 0
        while self._waiting and len(batch) < self._most:
            entry = self._waiting[0]
            if batch and (entry.alone or batch[0].alone or size + entry.size > sizes.BATCH):
                break
            self._waiting.popleft()
            if not entry.answer.done():
                batch.append(entry)
                size += entry.size
        return batch

    async def _send(self, batch: list[_Entry]) -> None:
        request = mom_service_pb2.CompleteTasksRequest(completions=[entry.completion for entry in batch])
        try:
            response = await self._stub.CompleteTasks(request, timeout=self._deadline, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            away = code(error) in _AWAY
            if code(error) is Code.DEADLINE_EXCEEDED and not proves_not_run(error):
                self._most = max(1, len(batch) // 2)
                self._deadline = min(2 * self._deadline, _LAST_DEADLINE_SECONDS)
            facts = {"code": code(error).name, "details": error.details()}
            _log.warning("results not reported", tasks=len(batch), **facts, request_ids=_request_ids(batch))
            if code(error) is Code.RESOURCE_EXHAUSTED and len(batch) == 1 and batch[0].size > sizes.BATCH:
                batch[0].give_up()
            await self._again(batch, alone=not away)
            return
        if len(response.results) != len(batch):
            answers = len(response.results)
            _log.error(
                "results answered for others", tasks=len(batch), answers=answers, request_ids=_request_ids(batch)
            )
            await self._again(batch, alone=True)
            return
        unanswered = []
        for entry, result in zip(batch, response.results, strict=True):
            if result == mom_service_pb2.COMPLETE_RESULT_UNSPECIFIED:
                unanswered.append(entry)
            elif not entry.answer.done():
                entry.answer.set_result(result)
        if unanswered:
            await self._again(unanswered, alone=False)
        else:
            self._backoff.reset()
            self._most = min(self._most + len(batch), MAX_BATCH)
            self._deadline = max(self._deadline * _SHORTER, self._first_deadline)

    async def _again(self, batch: list[_Entry], *, alone: bool) -> None:
        await asyncio.sleep(self._backoff.pause_seconds())
        for entry in batch:
            entry.alone = entry.alone or alone
            self._put(entry)


def _request_ids(batch: Iterable[_Entry]) -> list[str]:
    return request_ids(entry.task for entry in batch if entry.task is not None)
