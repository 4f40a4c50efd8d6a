"""A service's side of its queue, from what a claim answered to the report; the middleware stores all at once."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, Final

import grpc.aio
import redis.asyncio

from bench import counted
from calculator.v1 import sum_pb2
from poste.domain.task_id import TaskIds, without_queue
from poste.queue.consumer.beginner import Beginner
from poste.queue.consumer.fetcher import Fetcher
from poste.queue.consumer.held_bytes import HeldBytes
from poste.queue.consumer.lanes import Lanes
from poste.queue.consumer.state import ConsumerState, TaskHost
from poste.queue.consumer.task_runner import TaskRunner
from poste.queue.keys import QueueKeys
from poste.queue.scripts import Scripts
from poste.queue.steps import consumer as steps
from poste.service.handlers import Runner
from poste.service.queued_road import QueuedHandlers, QueuedRoad
from poste.service.report import Reporter
from poste.service.schemas import Schemas
from poste.service.servicer import services_of
from poste.service.terms import Terms
from poste.v1 import mom_service_pb2 as pb
from poste_calculator.sum import SumService

_REQUEST: Final = sum_pb2.AddRequest(a=3.5, b=1).SerializeToString()


class _Mom:
    async def CompleteTasks(self, request: pb.CompleteTasksRequest, **_: object) -> pb.CompleteTasksResponse:  # noqa: N802 - gRPC's name
        if any(one.WhichOneof("outcome") != "response" for one in request.completions):
            raise AssertionError(request)
        request.SerializeToString()
        await asyncio.sleep(0)
        return pb.CompleteTasksResponse(results=[pb.COMPLETE_RESULT_STORED] * len(request.completions))


async def prepare() -> counted.Calls:
    (service,) = services_of([SumService()])
    reporter = Reporter(grpc.aio.insecure_channel("127.0.0.1:1"))
    reporter._stub = _Mom()
    _running.append(asyncio.get_running_loop().create_task(reporter.run()))
    handlers = QueuedHandlers(service, Runner("queued", threads=1), Terms(service))
    road = QueuedRoad(handlers.run, reporter, Schemas(grpc.aio.insecure_channel("127.0.0.1:1")), handlers.schemas_of)
    settings: Any = SimpleNamespace(concurrency=counted.AT_ONCE, max_claimed_bytes=1 << 26)
    scripts = Scripts(redis.asyncio.Redis())
    state = ConsumerState(
        "0123456789abcdef",
        QueueKeys(service.name),
        settings,
        scripts,
        host=TaskHost(road.handle),
        held=HeldBytes(1 << 30),
    )
    nothing: Any = None
    runner = TaskRunner(state)
    fetcher = Fetcher(state, nothing, runner, Beginner(state, runner), Lanes(state))
    ids = TaskIds(b"0" * 32)
    now = time.time()
    given = [
        ids.mint(service.name, task_ttl_seconds=60, result_ttl_seconds=60, now=now) for _ in range(counted.AT_ONCE)
    ]
    ms = given[0].create_ms
    schema = service.methods["Add"].schema.fingerprint.encode()
    said = [
        [b"run", b"Add", _REQUEST, 1, ms, b"", None, without_queue(one).encode(), b"0123456789-1", None, schema]
        for one in given
    ]

    async def run(calls: int) -> None:
        for begin in range(0, calls, counted.AT_ONCE):
            for number in range(begin, begin + counted.AT_ONCE):
                key = given[number % counted.AT_ONCE].key
                fetcher._heed(key, steps._claimed(state.name, key, number, said[number % counted.AT_ONCE]))
            while state.running:
                state.changed.clear()
                await state.changed.wait()

    return run


_running: Final[list[asyncio.Task[None]]] = []


if __name__ == "__main__":
    counted.run(prepare)
