"""A worker with all its real neighbours: Redis, the middleware, the consumer. Each queued call is really run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from support.cli import POSTE, environment
from support.ledger import LEDGER, LedgerService, runs
from support.mom import RunningMom, running_mom
from support.redis_server import RedisServer, running
from support.waiting import until
from support.worker import line, running_worker
from testing.v1 import ledger_pb2

import poste
from poste.domain.codes import Code
from poste.domain.errors import StartError
from poste.queue.consumer import Consumer
from poste.runtime import lifecycle
from poste.service.recycling import resident_bytes
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import task_pb2

SERVICE = "testing.v1.LedgerService"


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server of the test's own: the ledger's queue has one name only."""
    with running(tmp_path / "redis") as one:
        yield one


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger"
    monkeypatch.setenv(LEDGER, str(path))
    return path


async def enqueue(mom: RunningMom, method: str, request: Message) -> str:
    """Enqueue one call; returns its key."""
    created = Timestamp()
    created.FromMilliseconds(round(time.time() * 1000))
    task = pb.NewTask(
        service=SERVICE,
        method=method,
        key=secrets.token_urlsafe(12),
        request=request.SerializeToString(),
        create_time=created,
        task_ttl_seconds=60,
        result_ttl_seconds=60,
    )

    async def accepted() -> bool:
        response = await mom.stub.EnqueueTasks(pb.EnqueueTasksRequest(tasks=[task]), timeout=5)
        return response.results[0] == pb.ENQUEUE_RESULT_ACCEPTED

    await until(accepted, what="the acceptance")
    return task.key


async def ended(mom: RunningMom, key: str) -> task_pb2.Task:
    async def look() -> task_pb2.Task | None:
        response = await mom.stub.GetTask(pb.GetTaskRequest(service=SERVICE, key=key, wait_seconds=1), timeout=5)
        going = (task_pb2.TASK_STATE_QUEUED, task_pb2.TASK_STATE_RUNNING)
        return None if response.task.state in going else response.task

    task = await until(look, what="the task's end")
    assert task is not None
    return task


async def state(mom: RunningMom, key: str) -> int:
    response = await mom.stub.GetTask(pb.GetTaskRequest(service=SERVICE, key=key), timeout=5)
    return response.task.state


def worker(redis: RedisServer, mom: RunningMom, **settings: Any) -> Any:
    return running_worker(LedgerService(), consumer=Consumer, redis_url=redis.url, mom=mom.target, **settings)


async def test_queued_calls_are_run_and_their_results_kept(redis: RedisServer, ledger: Path) -> None:
    """Without it nothing that was accepted would ever be answered."""
    async with running_mom(redis.url) as mom, worker(redis, mom) as one:
        keys = [await enqueue(mom, method, line("once")) for method in ("Record", "Look", "Store", "Legacy")]
        tasks = [await ended(mom, key) for key in keys]
        await until(lambda: _ready(one.admin_url), what="readiness")

    assert [task.state for task in tasks] == [task_pb2.TASK_STATE_SUCCEEDED] * 4
    assert [ledger_pb2.RecordResponse.FromString(task.response).run for task in tasks] == [1] * 4
    assert [runs(ledger, method, "once") for method in ("Record", "Look", "Store", "Legacy")] == [1] * 4


async def _ready(admin_url: str) -> bool:
    import aiohttp  # noqa: PLC0415 - here only

    async with aiohttp.ClientSession() as http, http.get(f"{admin_url}/readyz") as answer:
        return answer.status == 200


@pytest.mark.usefixtures("ledger")
async def test_a_final_error_ends_a_task_and_a_retriable_one_is_tried_again(redis: RedisServer) -> None:
    """Without it an error of the handler would be lost, or never get its second chance."""
    async with running_mom(redis.url) as mom, worker(redis, mom):
        final = await enqueue(mom, "Look", line("final", fail_code=Code.NOT_FOUND))
        again = await enqueue(mom, "Look", line("again", fail_code=Code.UNAVAILABLE, times=1))
        raised = await enqueue(mom, "Look", line("raised", raise_text="a defect", times=1))
        failed = await ended(mom, final)
        retried = [await ended(mom, key) for key in (again, raised)]

    assert (failed.state, failed.error.code) == (task_pb2.TASK_STATE_FAILED, Code.NOT_FOUND)
    assert failed.error.message == "told to fail"
    assert [(task.state, task.attempt) for task in retried] == [(task_pb2.TASK_STATE_SUCCEEDED, 2)] * 2


@pytest.mark.usefixtures("ledger")
async def test_a_running_task_is_cancelled(redis: RedisServer) -> None:
    """Without it a cancel would wait for the handler that it was to stop."""
    async with running_mom(redis.url) as mom, worker(redis, mom):
        key = await enqueue(mom, "Look", line("long", sleep_seconds=60))
        await until(lambda: _is(mom, key, task_pb2.TASK_STATE_RUNNING))
        await mom.stub.CancelTask(pb.CancelTaskRequest(service=SERVICE, key=key), timeout=5)
        task = await ended(mom, key)

    assert task.state == task_pb2.TASK_STATE_CANCELLED


async def _is(mom: RunningMom, key: str, wanted: int) -> bool:
    return await state(mom, key) == wanted


async def test_a_stop_gives_back_what_it_cannot_finish(redis: RedisServer, ledger: Path) -> None:
    """Without it a deployment would cost an attempt, or run what must not run twice a second time."""
    async with running_mom(redis.url) as mom:
        async with worker(redis, mom, grace_seconds=0.5) as first:
            repeatable = await enqueue(mom, "Look", line("again", sleep_seconds=2))
            once = await enqueue(mom, "Record", line("once", sleep_seconds=60))
            await until(lambda: runs(ledger, "Look", "again") and runs(ledger, "Record", "once"))
            first.stop.set()
            await asyncio.wait_for(first.task, 15)
        assert await state(mom, repeatable) == task_pb2.TASK_STATE_QUEUED
        unknown = await ended(mom, once)
        async with worker(redis, mom):
            done = await ended(mom, repeatable)

    assert (unknown.state, unknown.dead_reason) == (
        task_pb2.TASK_STATE_DEAD,
        task_pb2.DEAD_REASON_OUTCOME_UNKNOWN,
    )
    assert (done.state, done.attempt) == (task_pb2.TASK_STATE_SUCCEEDED, 1)
    assert runs(ledger, "Record", "once") == 1


async def test_results_wait_for_a_middleware_that_is_away(redis: RedisServer, ledger: Path) -> None:
    """Without it what ended while the middleware restarts would be run again, or lost."""
    async with running_mom(redis.url) as other, contextlib.AsyncExitStack() as stack:
        async with running_mom(redis.url) as mom:
            await stack.enter_async_context(worker(redis, mom))
            key = await enqueue(mom, "Record", line("kept", sleep_seconds=5))
            await until(lambda: runs(ledger, "Record", "kept"))
        # The worker's middleware is away while the handler ends; another one answers what became of the task.
        assert await state(other, key) == task_pb2.TASK_STATE_RUNNING
        async with running_mom(redis.url, port=mom.settings.port):
            task = await ended(other, key)

    assert task.state == task_pb2.TASK_STATE_SUCCEEDED
    assert runs(ledger, "Record", "kept") == 1


class Redelivering(LedgerService):
    @poste.policy(redeliver=True, backoff_seconds=0.01)
    async def Record(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        return await super().Record(request, context)


@pytest.mark.parametrize(
    ("servicer", "state", "attempts"),
    [(LedgerService, task_pb2.TASK_STATE_FAILED, 1), (Redelivering, task_pb2.TASK_STATE_SUCCEEDED, 3)],
)
async def test_an_exception_is_tried_again_where_the_methods_author_says_so(
    redis: RedisServer, ledger: Path, servicer: type[LedgerService], state: int, attempts: int
) -> None:
    """Protos may be others' to change: a method that none declares idempotent could not be tried again, ever."""
    settings = {"redis_url": redis.url, "consumer": Consumer}
    async with running_mom(redis.url) as mom, running_worker(servicer(), mom=mom.target, **settings):
        task = await ended(mom, await enqueue(mom, "Record", line("broken", raise_text="broken", times=2)))

    assert (task.state, task.attempt) == (state, attempts)
    assert runs(ledger, "Record", "broken") == attempts


async def test_a_process_that_has_run_enough_ends_in_order(redis: RedisServer, ledger: Path) -> None:
    """A handler that leaks would take its host's memory; a restart that cuts tasks off would make them unknown."""
    restarts = 0
    async with running_mom(redis.url) as mom:
        async with worker(redis, mom):
            await enqueue(mom, "Record", line("known from here on"))
        keys = [await enqueue(mom, "Record", line(f"{number}", sleep_seconds=0.1)) for number in range(20)]
        done = asyncio.gather(*(ended(mom, key) for key in keys))
        while not done.done():
            try:
                async with worker(redis, mom, max_tasks=4, concurrency=2) as one:
                    await asyncio.wait([one.task, done], return_when=asyncio.FIRST_COMPLETED)
            except lifecycle.RestartWanted:
                restarts += 1
        tasks = await done

    assert restarts >= 1
    assert [(task.state, task.attempt) for task in tasks] == [(task_pb2.TASK_STATE_SUCCEEDED, 1)] * 20
    assert [runs(ledger, "Record", f"{number}") for number in range(20)] == [1] * 20


@pytest.mark.usefixtures("ledger")
async def test_a_process_that_has_grown_too_large_ends_in_order(redis: RedisServer) -> None:
    """What leaks by direct calls, or by few tasks, is bounded by no number of them."""
    grown = bytearray()

    async def live(mom: RunningMom) -> None:
        async with worker(redis, mom, max_memory_bytes=resident_bytes() + 64 * 2**20) as one:
            await until(lambda: _ready(one.admin_url), what="readiness")
            grown.extend(b"x" * 96 * 2**20)
            await asyncio.wait([one.task])

    async with running_mom(redis.url) as mom:
        with pytest.raises(lifecycle.RestartWanted, match="POSTE_MAX_MEMORY_BYTES"):
            await live(mom)


async def test_a_bound_below_its_size_at_the_start_is_refused(redis: RedisServer) -> None:
    """It would be started anew for ever, four times a second, and run nothing."""
    async with running_mom(redis.url) as mom:
        with pytest.raises(StartError, match="POSTE_MAX_MEMORY_BYTES"):
            async with worker(redis, mom, max_memory_bytes=1024):
                pass


async def test_poste_worker_starts_itself_anew(redis: RedisServer, ledger: Path, tmp_path: Path) -> None:
    """Whoever runs it by hand, or in a container, need not know what its end means."""
    log = tmp_path / "worker.log"
    async with running_mom(redis.url) as mom:
        settings = {
            "POSTE_MOM": mom.target,
            "POSTE_REDIS_URL": redis.url,
            "POSTE_PORT": "0",
            "POSTE_ADMIN_PORT": "0",
            "POSTE_MAX_TASKS": "4",
            "POSTE_CONCURRENCY": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
            LEDGER: str(ledger),
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *POSTE, "worker", "support.ledger:LedgerService", env=environment(**settings), stderr=output
            )
        try:
            keys = [await enqueue(mom, "Record", line(f"{number}")) for number in range(12)]
            tasks = [await ended(mom, key) for key in keys]
            assert process.returncode is None
            # By its latest life, it heeds a signal.
            await until(lambda: _lines(log, "serving") > _lines(log, "recycling"))
        finally:
            process.terminate()
            code = await process.wait()

    assert code == 0, log.read_text()
    assert [(task.state, task.attempt) for task in tasks] == [(task_pb2.TASK_STATE_SUCCEEDED, 1)] * 12
    assert [runs(ledger, "Record", f"{number}") for number in range(12)] == [1] * 12
    assert _lines(log, "recycling") >= 2


def _lines(log: Path, event: str) -> int:
    return log.read_text().count(f'"event":"{event}"')
