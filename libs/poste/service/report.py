"""Brings handlers' outcomes to the middleware, many in one RPC, for as long as it takes.

Batching is natural: whatever ended while earlier reports were under way goes with the next one. So a single outcome
waits for nothing, and a thousand cost a few calls.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import grpc.aio

from poste.domain import sizes
from poste.domain.codes import Code
from poste.rpc.channels import code
from poste.runtime import logs
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc

_log = logs.get("report")
#: At most this many outcomes go in one RPC.
MAX_BATCH: Final = 256
#: At most this many RPCs are under way.
LANES: Final = 2
#: How long one RPC may take, in seconds.
_DEADLINE_SECONDS: Final = 5.0
#: Waits after a failure, in seconds: at most the first, doubled each time, never more than the last.
_FIRST_BACKOFF: Final = 0.05
_LAST_BACKOFF: Final = 1.0
#: What says that the middleware is away, and nothing of what was sent to it.
_AWAY: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})

Result: TypeAlias = mom_service_pb2.CompleteResult.ValueType


@dataclass(slots=True)
class _Entry:
    """One outcome that waits to be stored. One whose company failed travels alone: it may be the culprit."""

    completion: mom_service_pb2.Completion
    answer: asyncio.Future[Result]
    size: int
    alone: bool = field(default=False)


class Reporter:
    """Reports the outcomes of one process."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = mom_service_pb2_grpc.MomServiceStub(channel)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Entry] = deque()
        self._some = asyncio.Event()
        self._failures = 0

    def report(self, completion: mom_service_pb2.Completion) -> asyncio.Future[Result]:
        """Report one outcome; the future has the middleware's answer. Cancelling it withdraws what is not sent yet."""
        answer: asyncio.Future[Result] = self._loop.create_future()
        self._put(_Entry(completion, answer, completion.ByteSize()))
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
            # What ends in this very turn of the loop comes along.
            await asyncio.sleep(0)
            batch = self._take()
            if batch:
                await self._send(batch)

    def _put(self, entry: _Entry) -> None:
        self._waiting.append(entry)
        self._some.set()

    def _take(self) -> list[_Entry]:
        batch: list[_Entry] = []
        size = 0
        while self._waiting and len(batch) < MAX_BATCH:
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
            response = await self._stub.CompleteTasks(request, timeout=_DEADLINE_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            away = code(error) in _AWAY
            _log.warning("results not reported", tasks=len(batch), code=code(error).name, details=error.details())
            await self._again(batch, alone=not away)
            return
        if len(response.results) != len(batch):
            _log.error("results answered for others", tasks=len(batch), answers=len(response.results))
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
            self._failures = 0

    async def _again(self, batch: list[_Entry], *, alone: bool) -> None:
        self._failures = min(self._failures + 1, 10)
        longest = min(_LAST_BACKOFF, _FIRST_BACKOFF * 2**self._failures)
        await asyncio.sleep(random.uniform(_FIRST_BACKOFF, longest))  # noqa: S311 - jitter is no secret
        for entry in batch:
            entry.alone = entry.alone or alone
            self._put(entry)
