"""The middleware over gRPC, on a real server: its answers, its catalogue, and what it refuses."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2
from support import shop
from support.mom import RunningMom, running_mom
from support.ports import free_port
from support.queue_post import Post
from support.redis_server import RedisServer, running
from support.registering import been_up
from support.shipping import shipped
from support.waiting import until

import poste_calculator
from calculator.v1 import sum_pb2
from poste.domain.errors import StartError, StoreUnreached
from poste.queue.catalogue_store import CatalogueStore
from poste.queue.connection import open_client
from poste.queue.keys import QueueKeys
from poste.queue.queues import QueueFigures
from poste.queue.record import RECORD_BYTES
from poste.rpc.channels import proves_not_run
from poste.rpc.descriptor_sets import file_descriptor_set
from poste.runtime.settings import StoreSettings
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import task_pb2
from poste_mom.catalogue.catalogue import Catalogue
from poste_mom.methods.operators import OperatorServicer

SUM = "calculator.v1.SumService"
CATALOGUE = Path(poste_calculator.__path__[0]) / "catalogue.toml"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server of the test's own: the catalogue is one per Redis."""
    with running(tmp_path / "redis") as one:
        yield one


@pytest.fixture
async def mom(server: RedisServer) -> AsyncIterator[RunningMom]:
    async with running_mom(server.url, catalogue=CATALOGUE) as one:
        await been_up(one.target, SUM)
        yield one


def _now(shift: float = 0) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(round((time.time() + shift) * 1000))
    return stamp


def _task(**changes: Any) -> pb.NewTask:
    fields: dict[str, Any] = {
        "service": SUM,
        "method": "Add",
        "key": secrets.token_urlsafe(12),
        "request": sum_pb2.AddRequest(a=2, b=3).SerializeToString(),
        "create_time": _now(),
        "task_ttl_seconds": 60,
        "result_ttl_seconds": 60,
        **changes,
    }
    return pb.NewTask(**fields)


async def _enqueue(mom: RunningMom, *tasks: pb.NewTask) -> list[str]:
    answer = await mom.stub.EnqueueTasks(pb.EnqueueTasksRequest(tasks=tasks), timeout=5)
    return [pb.EnqueueResult.Name(result).removeprefix("ENQUEUE_RESULT_") for result in answer.results]


async def _claim(server: RedisServer, key: str, name: str = "me") -> str:
    """Take and claim a task as a worker does; returns the token."""
    client = open_client(StoreSettings(redis_url=server.url))
    post = Post(client, SUM)
    await post.join(name)
    await post.take(name)
    assert await post.claim(name, key) == "run"
    await client.aclose()
    return f"{name}:1"


async def test_a_task_goes_through_the_office(mom: RunningMom, server: RedisServer) -> None:
    """Enqueue, wait, complete, read: the whole queued road as the middleware sees it."""
    task = _task()
    assert await _enqueue(mom, task) == ["ACCEPTED"]
    waiting = asyncio.ensure_future(
        mom.stub.GetTask(pb.GetTaskRequest(service=SUM, key=task.key, wait_seconds=10), timeout=15)
    )
    token = await _claim(server, task.key)
    done = await mom.stub.CompleteTasks(
        pb.CompleteTasksRequest(completions=[pb.Completion(service=SUM, key=task.key, token=token, response=b"")]),
        timeout=5,
    )
    assert list(done.results) == [pb.COMPLETE_RESULT_STORED]

    answer = await waiting
    assert answer.task.state == task_pb2.TASK_STATE_SUCCEEDED
    # An empty response is an answer: whether it is there must not depend on its bytes.
    assert answer.task.WhichOneof("result") == "response"
    assert (answer.task.service, answer.task.method, answer.task.attempt) == (SUM, "Add", 1)
    assert answer.task.expire_time.ToSeconds() - answer.read_time.ToSeconds() in (59, 60)


async def test_a_repeat_under_an_idempotency_key_names_the_first_call(mom: RunningMom) -> None:
    """Else a gateway has no task to send its client to; in one batch with other calls each is answered for itself."""
    first = _task(id_rest="first", request_digest="d" * 22)
    again, other = pb.NewTask(), pb.NewTask()
    again.CopyFrom(first)
    again.id_rest = "again"
    other.CopyFrom(again)
    other.request_digest = "e" * 22
    assert await _enqueue(mom, first) == ["ACCEPTED"]
    batch = pb.EnqueueTasksRequest(tasks=[_task(), other, again, _task(request_digest="no digest")])
    answer = await mom.stub.EnqueueTasks(batch, timeout=5)

    assert list(answer.results) == [
        pb.ENQUEUE_RESULT_ACCEPTED,
        pb.ENQUEUE_RESULT_KEY_REUSED,
        pb.ENQUEUE_RESULT_KNOWN,
        pb.ENQUEUE_RESULT_BAD_KEY,
    ]
    assert dict(answer.first_ids) == {2: "first"}


async def test_who_is_over_its_quota_is_told_what_it_has(mom: RunningMom) -> None:
    """Else a gateway can't say which of the two it is; in one batch with others' calls each is judged for itself."""
    quota = pb.ClientQuota(client="ann", max_waiting_calls=1, max_kept_bytes=10**15)
    batch = pb.EnqueueTasksRequest(tasks=[_task() for _ in range(3)], quotas={0: quota, 2: quota})
    answer = await mom.stub.EnqueueTasks(batch, timeout=5)

    kept = len(batch.tasks[0].request) + RECORD_BYTES
    assert [pb.EnqueueResult.Name(one)[15:] for one in answer.results] == ["ACCEPTED", "ACCEPTED", "OVER_QUOTA"]
    assert dict(answer.quota_uses) == {2: pb.QuotaUse(waiting_calls=1, kept_bytes=kept)}


async def test_an_end_at_another_replica_is_seen(mom: RunningMom, server: RedisServer) -> None:
    """Who waits and who completes may ask different replicas: so the record must say that its end is waited for."""
    task = _task()
    assert await _enqueue(mom, task) == ["ACCEPTED"]
    waiting = asyncio.ensure_future(
        mom.stub.GetTask(pb.GetTaskRequest(service=SUM, key=task.key, wait_seconds=10), timeout=15)
    )
    token = await _claim(server, task.key)
    async with open_client(StoreSettings(redis_url=server.url)) as client:
        await until(lambda: client.hexists(QueueKeys(SUM).record(task.key), "l"))
    async with running_mom(server.url, catalogue=CATALOGUE) as other:
        completion = pb.Completion(service=SUM, key=task.key, token=token, response=b"")
        done = await other.stub.CompleteTasks(pb.CompleteTasksRequest(completions=[completion]), timeout=5)
    assert list(done.results) == [pb.COMPLETE_RESULT_STORED]

    assert (await waiting).task.state == task_pb2.TASK_STATE_SUCCEEDED


async def test_errors_keep_their_details(mom: RunningMom, server: RedisServer) -> None:
    """The client sees the same error on both roads: code, message and details."""
    task = _task()
    await _enqueue(mom, task)
    token = await _claim(server, task.key)
    error = status_pb2.Status(code=3, message="no")
    error.details.add().Pack(status_pb2.Status(message="detail"))
    await mom.stub.CompleteTasks(
        pb.CompleteTasksRequest(completions=[pb.Completion(service=SUM, key=task.key, token=token, error=error)]),
        timeout=5,
    )

    answer = await mom.stub.GetTask(pb.GetTaskRequest(service=SUM, key=task.key), timeout=5)
    assert answer.task.state == task_pb2.TASK_STATE_FAILED
    assert answer.task.error == error


async def test_each_task_of_a_batch_is_judged_for_itself(mom: RunningMom) -> None:
    """One bad call must not refuse those that were sent along with it."""
    batch = [_task(), _task(service="no.such.Service"), _task(method="Nope"), _task(create_time=_now(-60))]

    assert await _enqueue(mom, *batch) == ["ACCEPTED", "NOT_CATALOGUED", "NOT_CATALOGUED", "CLOCK_OFF"]


async def test_a_cancelled_task_says_so(mom: RunningMom) -> None:
    """The answer to a cancel is the task as it is then."""
    task = _task()
    await _enqueue(mom, task)
    answer = await mom.stub.CancelTask(pb.CancelTaskRequest(service=SUM, key=task.key), timeout=5)

    assert answer.task.state == task_pb2.TASK_STATE_CANCELLED


async def test_a_task_that_is_not_there_is_not_made_up(mom: RunningMom) -> None:
    """The gateway distinguishes unknown, lost and gone by the record's absence and the store's clock."""
    answer = await mom.stub.GetTask(pb.GetTaskRequest(service=SUM, key="n" * 16), timeout=5)

    assert not answer.HasField("task")
    assert abs(answer.read_time.ToSeconds() - time.time()) < 60


async def test_queues_are_counted(mom: RunningMom, server: RedisServer) -> None:
    """Operators go by these figures; each open task is counted once."""
    tasks = [_task(), _task(), _task()]
    await _enqueue(mom, *tasks)
    await _claim(server, tasks[0].key)
    (queue,) = (await mom.stub.ListQueues(pb.ListQueuesRequest(queue=SUM), timeout=5)).queues

    assert (queue.queued, queue.running, queue.delayed, queue.dead, queue.consumers) == (2, 1, 0, 0, 1)
    assert queue.HasField("oldest_age_seconds")
    async with aiohttp.ClientSession() as session, session.get(f"{mom.admin_url}/metrics") as scrape:
        text = await scrape.text()
    assert f'poste_queue_tasks{{queue="{SUM}",state="queued"}} 2.0' in text
    assert f'poste_queue_tasks{{queue="{SUM}",state="running"}} 1.0' in text


async def test_redis_being_away_is_told_apart_from_a_lost_answer(mom: RunningMom, server: RedisServer) -> None:
    """Nothing was accepted must be proved: else a client that calls again runs it twice."""
    server.kill()
    result = await until(lambda: _enqueue(mom, _task()))
    assert result == ["STORE_UNAVAILABLE"]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await mom.stub.GetTask(pb.GetTaskRequest(service=SUM, key="n" * 16), timeout=5)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert proves_not_run(raised.value)

    server.start()

    async def accepted() -> bool:
        return await _enqueue(mom, _task()) == ["ACCEPTED"]

    await until(accepted, seconds=5)


async def test_what_was_accepted_survives_a_kill_of_redis(mom: RunningMom, server: RedisServer) -> None:
    """Nothing is accepted that is not on disk."""
    tasks = [_task() for _ in range(50)]
    assert set(await _enqueue(mom, *tasks)) == {"ACCEPTED"}
    server.kill()
    server.start()

    async def all_there() -> bool:
        try:
            answers = [
                await mom.stub.GetTask(pb.GetTaskRequest(service=SUM, key=task.key), timeout=5) for task in tasks
            ]
        except grpc.aio.AioRpcError:
            return False
        assert all(answer.HasField("task") for answer in answers)
        return True

    await until(all_there)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"appendonly": "no"}, "appendonly"),
        ({"maxmemory-policy": "allkeys-lru"}, "maxmemory-policy"),
        # More than the last second would be lost, which is all that was allowed.
        ({"appendfsync": "no"}, "appendfsync"),
    ],
)
async def test_a_redis_that_would_lose_calls_is_not_trusted(tmp_path: Path, config: dict[str, str], why: str) -> None:
    """Jobs dropped for three days without an error is what a wrong policy did to others."""
    with running(tmp_path, **config) as server:
        async with running_mom(server.url, catalogue=CATALOGUE, accept_losing_last_second=True) as mom:
            await been_up(mom.target, SUM)
            assert await _enqueue(mom, _task()) == ["STORE_UNAVAILABLE"]
            async with aiohttp.ClientSession() as session, session.get(f"{mom.admin_url}/readyz") as answer:
                assert answer.status == 503
                assert why in await answer.text()


@pytest.mark.parametrize("accept_losing_last_second", [False, True])
async def test_everysec_is_made_durable_by_waitaof(tmp_path: Path, *, accept_losing_last_second: bool) -> None:
    """Under everysec a reply proves nothing: the 202 has to wait for the disk, unless a setting says otherwise."""
    with running(tmp_path, appendfsync="everysec") as server:
        async with running_mom(
            server.url, catalogue=CATALOGUE, accept_losing_last_second=accept_losing_last_second
        ) as mom:
            await been_up(mom.target, SUM)
            task = _task()
            assert await _enqueue(mom, task) == ["ACCEPTED"]
            client = open_client(StoreSettings(redis_url=server.url))
            stats = await client.info("commandstats")
            await client.aclose()
            assert ("cmdstat_waitaof" in stats) is not accept_losing_last_second


async def test_a_redis_that_is_nearly_full_takes_no_new_calls(tmp_path: Path) -> None:
    """The rest of the memory is for what was accepted: it must be able to end."""
    with running(tmp_path, maxmemory="8mb") as server:
        # One queue alone does not fill it.
        greedy = shipped(tmp_path, max_held_bytes=2**40)
        async with running_mom(server.url, catalogue=greedy) as mom:
            await been_up(mom.target, SUM)
            accepted = []
            big = b"x" * 100_000

            async def refused() -> bool:
                task = _task(request=big)
                (result,) = await _enqueue(mom, task)
                if result == "ACCEPTED":
                    accepted.append(task.key)
                return result == "STORE_UNAVAILABLE"

            await until(refused)
            token = await _claim(server, accepted[0])
            done = await mom.stub.CompleteTasks(
                pb.CompleteTasksRequest(
                    completions=[pb.Completion(service=SUM, key=accepted[0], token=token, response=b"3")]
                ),
                timeout=5,
            )
            assert list(done.results) == [pb.COMPLETE_RESULT_STORED]


async def test_a_redis_that_has_memory_again_takes_new_calls(mom: RunningMom, server: RedisServer) -> None:
    """Full once would be full for ever: the middleware would refuse every call until it is restarted."""

    async def ready() -> bool:
        async with aiohttp.ClientSession() as session, session.get(f"{mom.admin_url}/readyz") as answer:
            return answer.status == 200

    async def full() -> bool:
        return not await ready()

    client = open_client(StoreSettings(redis_url=server.url))
    try:
        await until(ready)
        await client.config_set("maxmemory", (await client.info("memory"))["used_memory"])
        await until(full)
        refused = await _enqueue(mom, _task())
        await client.config_set("maxmemory", 0)
        await until(ready, seconds=10)
        accepted = await _enqueue(mom, _task())
    finally:
        await client.aclose()

    assert (refused, accepted) == (["STORE_UNAVAILABLE"], ["ACCEPTED"])


async def test_a_service_registers_itself(mom: RunningMom) -> None:
    """A service that is not in the catalogue file is known once it started."""
    request = pb.RegisterServiceRequest(
        service="calculator.v1.SumService",
        file_descriptor_set=file_descriptor_set(sum_pb2.DESCRIPTOR),
        address="127.0.0.1:1234",
    )
    await mom.stub.RegisterService(request, timeout=5)
    stream = mom.stub.WatchCatalogue(pb.WatchCatalogueRequest(), timeout=5)
    entries = await stream.read()
    stream.cancel()
    assert isinstance(entries, pb.WatchCatalogueResponse)
    (entry,) = [one for one in entries.services if one.name == SUM]
    assert "127.0.0.1:1234" in entry.targets


async def test_a_service_that_registers_first_takes_no_settings_away(server: RedisServer) -> None:
    """Where a service came up before the middleware had filed its catalogue, the deployment's limits would be gone."""
    client = open_client(StoreSettings(redis_url=server.url))
    shipped = shop.entry(max_crashes=1)
    request = pb.RegisterServiceRequest(
        service=shop.NAME, file_descriptor_set=shop.DESCRIPTORS, address="127.0.0.1:1234"
    )
    catalogue = Catalogue(CatalogueStore(client), [shipped])
    registered = await catalogue.register(request)
    await client.aclose()

    assert registered.policy.queue.max_crashes == 1
    (kept,) = catalogue.entries()
    assert kept.settings == shipped.settings


async def test_a_change_reaches_who_watches(mom: RunningMom) -> None:
    """Gateways serve new services without a restart."""
    stream = mom.stub.WatchCatalogue(pb.WatchCatalogueRequest(), timeout=20)
    await stream.read()
    await mom.stub.RegisterService(
        pb.RegisterServiceRequest(
            service=SUM,
            file_descriptor_set=file_descriptor_set(sum_pb2.DESCRIPTOR),
            address="127.0.0.1:4321",
        ),
        timeout=5,
    )

    async def told() -> bool:
        entries = await stream.read()
        assert isinstance(entries, pb.WatchCatalogueResponse)
        return any("127.0.0.1:4321" in entry.targets for entry in entries.services)

    await until(told)
    stream.cancel()


async def test_a_broken_registration_is_refused_by_name(mom: RunningMom) -> None:
    """One bad service must not break the catalogue for all."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await mom.stub.RegisterService(
            pb.RegisterServiceRequest(service="no.such.Service", file_descriptor_set=b"", address="127.0.0.1:1"),
            timeout=5,
        )
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "no.such.Service" in (raised.value.details() or "")


async def test_a_gateway_that_signs_with_another_key_is_refused(mom: RunningMom) -> None:
    """Its ids would be "never issued" at the others: a status that lies."""
    first = mom.stub.WatchCatalogue(pb.WatchCatalogueRequest(id_key_fingerprint="one"), timeout=5)
    await first.read()
    first.cancel()
    second = mom.stub.WatchCatalogue(pb.WatchCatalogueRequest(id_key_fingerprint="two"), timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await second.read()
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_taken_port_is_one_clear_line(server: RedisServer) -> None:
    """Two processes that share a port by chance would each get half the calls."""
    port = free_port()
    async with running_mom(server.url, port=port):
        with pytest.raises(StartError, match=str(port)):
            async with running_mom(server.url, port=port):
                pass


async def test_a_consumer_that_died_is_not_counted_on_a_queue_that_was_never_used(
    server: RedisServer, mom: RunningMom
) -> None:
    """An operator would see replicas that are long gone, for as long as nothing is queued."""
    client = open_client(StoreSettings(redis_url=server.url))
    await Post(client, SUM).join("gone", lease_seconds=0.001)

    async def consumers() -> int:
        answer = await mom.stub.ListQueues(pb.ListQueuesRequest(queue=SUM), timeout=5)
        return int(answer.queues[0].consumers)

    async def none_left() -> bool:
        return await consumers() == 0

    await until(none_left)
    await client.aclose()


async def test_one_queue_that_can_not_be_read_hides_no_other() -> None:
    """In a Redis Cluster with one master away, an operator would see nothing of all that works."""

    class Half:
        async def names(self) -> set[str]:
            return {"a", "b"}

        async def figures(self, queue: str) -> QueueFigures:
            if queue == "a":
                raise StoreUnreached("its master is away")
            return QueueFigures(queue, *[1] * 13, None, paused=False, stands_still=False, lanes={}, totals={})

    class NoCatalogue:
        def entries(self) -> list[Any]:
            return []

        def get(self, _: str) -> None:
            return None

    class Unlimited:
        async def of(self, _: str) -> int:
            return 0

    anything: Any = None
    servicer = OperatorServicer(
        cast("Any", Half()),
        anything,
        anything,
        anything,
        catalogue=cast("Any", NoCatalogue()),
        budgets=cast("Any", Unlimited()),
    )
    answer = await servicer.ListQueues(pb.ListQueuesRequest(), anything)

    assert [queue.name for queue in answer.queues] == ["b"]


async def test_how_a_client_is_answered_is_kept_with_its_call(mom: RunningMom) -> None:
    """Else a call by a route with a `response_body` is answered in another shape once it was queued."""
    task, whole, rubbish = _task(response_field="result"), _task(), _task(response_field="a b" * 1000)
    assert await _enqueue(mom, task, whole, rubbish) == ["ACCEPTED"] * 3

    read = [
        (await mom.stub.GetTask(pb.GetTaskRequest(service=SUM, key=one.key))).task for one in (task, whole, rubbish)
    ]
    assert [one.response_field for one in read] == ["result", "", ""]
