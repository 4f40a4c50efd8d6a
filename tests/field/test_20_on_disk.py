"""Faults I, 20: what is answered is on disk, where a reply of Redis alone does not prove it (`everysec`, WAITAOF)."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from support.mom import RunningMom, running_mom
from support.office import Office
from support.queue_post import Post
from support.redis_cluster import RedisCluster
from support.redis_server import RedisServer, running
from support.redis_users import of_services
from support.registering import been_up
from support.waiting import until

import poste_calculator
from calculator.v1 import sum_pb2
from poste.domain.errors import StoreLost
from poste.domain.task import TaskState
from poste.queue.connection import open_client
from poste.queue.durability import Durability
from poste.queue.operators import Operators
from poste.queue.steps.task import NewTask
from poste.queue.tasks import Tasks
from poste.rpc.channels import proves_not_run
from poste.runtime.settings import StoreSettings
from poste.v1 import mom_service_pb2 as pb

SUM = "calculator.v1.SumService"
CATALOGUE = Path(poste_calculator.__path__[0]) / "catalogue.toml"


async def on_waitaof(_queue: str) -> Durability:
    return Durability.ON_WAITAOF


@contextlib.asynccontextmanager
async def posting(server: RedisServer | RedisCluster, queue: str) -> AsyncIterator[Post]:
    """A queue whose every wait for the disk is asked for."""
    client = open_client(StoreSettings(redis_url=server.url))
    try:
        yield Post(client, queue)
    finally:
        await client.aclose()


def waiting(post: Post) -> Post:
    """The same queue, as the middleware has it where a reply proves nothing."""
    careful = Post(post.client, post.queue)
    careful.tasks, careful.operators = Tasks(post.client, on_waitaof), Operators(post.client, on_waitaof)
    return careful


async def accept(post: Post, key: str) -> list[Any]:
    task = NewTask(key, "Add", b"request", time.time(), 60, 60, repeatable=True)
    return await post.tasks.enqueue(post.queue, [task], post.policy, Durability.ON_WAITAOF)


@pytest.fixture
async def never_synced(tmp_path: Path, queue: str) -> AsyncIterator[Post]:
    """A queue on a server whose writes do not get to the disk by themselves."""
    with running(tmp_path, appendfsync="no") as server:
        async with posting(server, queue) as post:
            yield post


async def test_a_replayed_enqueue_is_accepted_only_once_its_record_is_on_disk(never_synced: Post) -> None:
    """It found its record, wrote nothing, and was answered "accepted" before the first fsync: a power cut lost it."""
    key = await never_synced.enqueue()
    with pytest.raises(StoreLost):
        await accept(never_synced, key)


async def test_an_end_is_told_only_once_it_is_on_disk(never_synced: Post) -> None:
    """Who read SUCCEEDED before the power cut would read QUEUED after it, and perhaps another end."""
    await never_synced.join("me")
    key = await never_synced.running("me")
    careful = waiting(never_synced)
    assert await careful.state(key) is TaskState.RUNNING
    await never_synced.complete("me", key)
    with pytest.raises(StoreLost):
        await careful.state(key)


async def test_an_end_that_was_waited_for_is_read_without_a_wait(tmp_path: Path, queue: str) -> None:
    """Else every read of a result takes a tenth of a second for as long as it is kept."""
    with running(tmp_path, appendfsync="everysec") as server:
        async with posting(server, queue) as plain:
            post = waiting(plain)
            await post.join("me")
            key = await post.running("me")
            await post.complete("me", key)

            async def waits() -> int:
                return int((await post.client.info("commandstats"))["cmdstat_waitaof"]["calls"])

            assert await post.state(key) is TaskState.SUCCEEDED
            before = await waits()
            assert [await post.state(key) for _ in range(3)] == [TaskState.SUCCEEDED] * 3
            assert await waits() == before


@pytest.mark.parametrize("kind", ["redis_server", "redis_cluster"])
async def test_every_wait_writes_first(request: pytest.FixtureRequest, queue: str, kind: str) -> None:
    """WAITAOF proves its own connection's last write only: a step that wrote nothing waited for nothing."""
    async with posting(request.getfixturevalue(kind), queue) as plain:
        post = waiting(plain)

        async def barriers() -> int:
            return int(await post.client.get(post.keys.barrier) or 0)

        await post.join("me")
        key = secrets.token_urlsafe(12)
        for step in (
            lambda: accept(post, key),
            lambda: accept(post, key),
            lambda: post.complete("me", "unknown"),
            lambda: post.operators.pause(queue, paused=False),
            lambda: post.operators.replay(queue, [key]),
            lambda: post.operators.purge(queue, [key]),
            lambda: post.tasks.cancel(queue, key),
        ):
            before = await barriers()
            await step()
            assert await barriers() > before


async def test_a_result_is_kept_on_disk_also_at_maxmemory(tmp_path: Path, queue: str) -> None:
    """What the wait writes was refused there: no result could be stored, and nothing could ever become free."""
    with running(tmp_path, appendfsync="everysec") as server:
        async with posting(server, queue) as plain:
            post = waiting(plain)
            await post.join("me")
            key = await post.running("me")
            await post.client.config_set("maxmemory", 1)
            assert await post.complete("me", key) == "succeeded"


# An error of the wait says nothing of what ran before it


@pytest.fixture
async def deaf(tmp_path: Path) -> AsyncIterator[tuple[RunningMom, RedisServer]]:
    """A middleware whose Redis does everything, and answers each wait for the disk with an error."""
    with running(tmp_path, appendfsync="everysec") as server:
        async with posting(server, SUM) as post:
            await post.client.execute_command("ACL SETUSER", "default", "-waitaof")
        async with running_mom(server.url, catalogue=CATALOGUE) as mom:
            await been_up(mom.target, SUM)
            yield mom, server


def _new_task() -> pb.NewTask:
    task = pb.NewTask(
        service=SUM,
        method="Add",
        key=secrets.token_urlsafe(12),
        request=sum_pb2.AddRequest(a=2, b=3).SerializeToString(),
        task_ttl_seconds=60,
        result_ttl_seconds=60,
    )
    task.create_time.FromMilliseconds(round(time.time() * 1000))
    return task


async def test_an_enqueue_whose_wait_errs_may_be_accepted(deaf: tuple[RunningMom, RedisServer]) -> None:
    """The script ran and its record was there, and the client got the answer that nothing was accepted."""
    mom, server = deaf
    task = _new_task()
    answer = await mom.stub.EnqueueTasks(pb.EnqueueTasksRequest(tasks=[task]), timeout=10)
    assert list(answer.results) == [pb.ENQUEUE_RESULT_UNKNOWN]
    async with posting(server, SUM) as post:
        assert await post.state(task.key) is TaskState.QUEUED


_RESULT = pb.Completion(service=SUM, key="k" * 16, token="me:1", response=b"")  # noqa: S106 - of a claim
_STEPS: dict[str, Callable[[RunningMom, str], Awaitable[Any]]] = {
    "cancel": lambda mom, key: mom.stub.CancelTask(pb.CancelTaskRequest(service=SUM, key=key), timeout=10),
    "complete": lambda mom, _: mom.stub.CompleteTasks(pb.CompleteTasksRequest(completions=[_RESULT]), timeout=10),
    "pause": lambda mom, _: mom.stub.PauseQueue(pb.PauseQueueRequest(queue=SUM), timeout=10),
    "replay": lambda mom, key: mom.stub.ReplayTasks(pb.ReplayTasksRequest(queue=SUM, keys=[key]), timeout=10),
    "purge": lambda mom, key: mom.stub.PurgeTasks(pb.PurgeTasksRequest(queue=SUM, keys=[key]), timeout=10),
}


@pytest.mark.parametrize("step", _STEPS)
async def test_a_step_whose_wait_errs_is_not_told_as_done_nor_as_undone(
    deaf: tuple[RunningMom, RedisServer], step: str
) -> None:
    """They were answered before they were on disk: a power cut took a result, or an operator's order, back."""
    mom, _ = deaf
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await _STEPS[step](mom, "k" * 16)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not proves_not_run(refused.value)


# What must not run twice begins once its claim is on disk


@pytest.fixture
async def slow_disk(tmp_path: Path, queue: str) -> AsyncIterator[tuple[RedisServer, Office]]:
    """A queue on a server that does everything, and answers each wait for the disk with an error until it is mended."""
    with running(tmp_path, appendfsync="everysec") as server:
        office = Office(server.url, queue)
        await office.client.execute_command("ACL SETUSER", of_services([queue]).name, "-waitaof")
        yield server, office
        for consumer in list(office.consumers):
            await office.stop(consumer)
        await office.client.aclose()


async def test_what_must_not_run_twice_begins_once_its_claim_is_on_disk(
    slow_disk: tuple[RedisServer, Office],
) -> None:
    """After a power cut of the store it waited again, and ran twice."""
    _, office = slow_disk
    once, often = await office.enqueue(2, repeatable=False), await office.enqueue(2)
    office.consume(office.at_once)
    # What may run twice does not wait for it.
    await until(lambda: office.all_in(often, TaskState.SUCCEEDED))
    await until(lambda: _failed_waits(office))
    assert sorted(office.ran) == sorted(often)
    assert await office.all_in(once, TaskState.QUEUED)

    await office.client.execute_command("ACL SETUSER", of_services([office.queue]).name, "+waitaof")
    await until(lambda: office.all_in(once, TaskState.SUCCEEDED))
    assert sorted(office.ran) == sorted(often + once)


async def _failed_waits(office: Office) -> bool:
    stats = await office.client.info("commandstats")
    return "cmdstat_waitaof" in stats and int(stats["cmdstat_waitaof"]["rejected_calls"]) > 0


async def test_a_store_that_answers_from_the_disk_is_not_waited_for(office: Office) -> None:
    """Under `always` the claim's answer is the proof: a wait would cost each call a tenth of a second."""
    keys = await office.enqueue(4, repeatable=False)
    office.consume(office.at_once)
    await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))
    assert not await office.client.exists(office.keys.barrier)


@pytest.mark.parametrize("cut", [True, False], ids=["power cut", "restart"])
async def test_what_the_store_forgot_to_have_begun_is_unknown(tmp_path: Path, queue: str, *, cut: bool) -> None:
    """That it begins is not waited for: a store that lost its last second would have it run once more."""
    with running(tmp_path, appendfsync="everysec") as server:
        async with posting(server, queue) as post:
            await post.join("me")
            begun, waiting_still = [await post.enqueue(repeatable=False) for _ in range(2)]
            await post.take("me", 2)
            for key in (begun, waiting_still):
                await post.claim("me", key, on_disk=False)
            (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
            on_disk = log.stat().st_size
            assert await post.begin("me", begun) == "begun"
            assert log.stat().st_size > on_disk

            server.kill()
            if cut:
                os.truncate(log, on_disk)
            server.start()

            # The owner lives: it knows better, and goes on.
            assert await post.begin("me", waiting_still) == "begun"
            assert await post.complete("me", waiting_still) == "succeeded"
            report = await post.reap("me")
            assert report.reaped == {"dead": 1}
            assert await post.state(begun) is TaskState.DEAD
