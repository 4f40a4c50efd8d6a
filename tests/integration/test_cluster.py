"""Poste on a Redis Cluster: what one master's trouble does to its own queues, and that it does nothing to others'."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from support.ledger import LEDGER, LedgerService, runs
from support.mom import RunningMom, running_mom
from support.redis_cluster import RedisCluster, running_cluster
from support.redis_server import RedisServer
from support.waiting import until
from support.worker import line, running_worker

from calculator.v1 import sum_pb2
from poste.domain.errors import StartError, StoreError, StoreLost, StoreUnreached
from poste.domain.policy import QueuePolicy
from poste.domain.task import TaskState
from poste.queue import durability
from poste.queue.connection import open_client, server_of
from poste.queue.consumer import ClaimedTask, Consumer
from poste.queue.durability import Durability
from poste.queue.keys import Keys, QueueKeys
from poste.queue.maintenance import Maintenance
from poste.queue.schema_store import SchemaStore
from poste.queue.scripts import Scripts
from poste.queue.steps import consumer as steps
from poste.queue.steps.task import NewTask, Report
from poste.queue.tasks import Tasks
from poste.runtime.settings import StoreSettings, WorkerSettings
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import task_pb2
from poste_calculator.sum import SumService

SUM = "calculator.v1.SumService"
#: It is on another master than SUM: the test of that is the first thing below.
LEDGER_SERVICE = "testing.v1.LedgerService"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    """A cluster of the test's own: it breaks it."""
    with running_cluster(tmp_path / "cluster") as one:
        yield one


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger"
    monkeypatch.setenv(LEDGER, str(path))
    return path


def _queue_at(cluster: RedisCluster, master: RedisServer) -> str:
    """A queue that a certain master holds."""
    while True:
        queue = f"test.{secrets.token_hex(4)}.Service"
        if cluster.owner(QueueKeys(queue).ready) is master:
            return queue


# -- the whole chain


async def _enqueue(mom: RunningMom, service: str, method: str, request: Message) -> tuple[str, str]:
    """Enqueue one call; returns its key and what was answered."""
    created = Timestamp()
    created.FromMilliseconds(round(time.time() * 1000))
    task = pb.NewTask(
        service=service,
        method=method,
        key=secrets.token_urlsafe(12),
        request=request.SerializeToString(),
        create_time=created,
        task_ttl_seconds=60,
        result_ttl_seconds=60,
    )
    answer = await mom.stub.EnqueueTasks(pb.EnqueueTasksRequest(tasks=[task]), timeout=10)
    return task.key, pb.EnqueueResult.Name(answer.results[0]).removeprefix("ENQUEUE_RESULT_")


async def _accepted(mom: RunningMom, service: str, method: str, request: Message) -> str:
    async def look() -> str | None:
        key, said = await _enqueue(mom, service, method, request)
        return key if said == "ACCEPTED" else None

    return str(await until(look, what="the acceptance"))


async def _ended(mom: RunningMom, service: str, key: str) -> task_pb2.Task:
    async def look() -> task_pb2.Task | None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            response = await mom.stub.GetTask(pb.GetTaskRequest(service=service, key=key, wait_seconds=1), timeout=10)
            going = (task_pb2.TASK_STATE_QUEUED, task_pb2.TASK_STATE_RUNNING)
            return None if response.task.state in going else response.task
        return None

    task = await until(look, what="the task's end", seconds=30)
    assert task is not None
    return task


async def test_the_queues_of_other_masters_go_on(cluster: RedisCluster, ledger: Path) -> None:
    """A third of the cluster away must not be all of it; and what was accepted there is run once it is back."""
    broken = cluster.owner(QueueKeys(LEDGER_SERVICE).ready)
    assert cluster.owner(QueueKeys(SUM).ready) is not broken
    async with (
        running_mom(cluster.url) as mom,
        running_worker(
            SumService(), LedgerService(), consumer=Consumer, redis_url=cluster.url, mom=mom.target,
            lease_seconds=1.5, heartbeat_seconds=0.3,
        ),
    ):  # fmt: skip
        await _goes_on(mom)
        for fault, mend in ((broken.kill, broken.start), (broken.hang, broken.wake)):
            name = fault.__name__
            kept = await _accepted(mom, LEDGER_SERVICE, "Look", line(name, sleep_seconds=1))
            await until(lambda name=name: runs(ledger, "Look", name))
            fault()
            # Longer than a lease: the others' leases are renewed, and their tasks go on.
            mended_time = time.monotonic() + 2.5
            while time.monotonic() < mended_time:
                await _goes_on(mom)
                _, said = await _enqueue(mom, LEDGER_SERVICE, "Look", line("refused"))
                assert said in ("STORE_UNAVAILABLE", "UNKNOWN")
            assert await _reported(mom, SUM, LEDGER_SERVICE) == ["REFUSED", "UNSPECIFIED"]
            mend()
            assert (await _ended(mom, LEDGER_SERVICE, kept)).state == task_pb2.TASK_STATE_SUCCEEDED


async def _reported(mom: RunningMom, *services: str) -> list[str]:
    """Report outcomes of tasks that there never were, all at once; returns what is answered to each."""
    nobody = "nobody:1"
    completions = [pb.Completion(service=service, key="n" * 16, token=nobody, cancelled=True) for service in services]
    answer = await mom.stub.CompleteTasks(pb.CompleteTasksRequest(completions=completions), timeout=10)
    return [pb.CompleteResult.Name(result).removeprefix("COMPLETE_RESULT_") for result in answer.results]


async def _goes_on(mom: RunningMom) -> None:
    key = await _accepted(mom, SUM, "Add", sum_pb2.AddRequest(a=2, b=3))
    task = await _ended(mom, SUM, key)
    assert (task.state, task.attempt) == (task_pb2.TASK_STATE_SUCCEEDED, 1)


# -- the queue alone


class Office:
    """One queue of a cluster, and a consumer that answers every task at once."""

    def __init__(self, url: str, queue: str) -> None:
        self.queue, self.keys = queue, QueueKeys(queue)
        self.settings = WorkerSettings(redis_url=url, lease_seconds=1.5, heartbeat_seconds=0.2)
        self.client = open_client(self.settings)
        self.tasks, self.maintenance = Tasks(self.client), Maintenance(self.client, pass_seconds=0.25)
        self.ran: list[str] = []
        self.consumer = Consumer(queue=queue, settings=self.settings, handle=self._handle)

    async def enqueue(self) -> str:
        task = NewTask(secrets.token_urlsafe(12), "Add", b"request", time.time(), 60, 60, repeatable=True)
        said = await self.tasks.enqueue(self.queue, [task], QueuePolicy(), Durability.ON_REPLY)
        assert said == ["accepted"]
        return task.key

    async def enqueued(self) -> str:
        """Enqueue until it is accepted."""

        async def look() -> str | None:
            with contextlib.suppress(StoreError):
                return await self.enqueue()
            return None

        return str(await until(look, what="the acceptance"))

    async def succeeded(self, key: str) -> None:
        async def look() -> bool:
            with contextlib.suppress(StoreError):
                record = (await self.tasks.read(self.queue, key)).record
                return record is not None and record.state is TaskState.SUCCEEDED
            return False

        await until(look, what="the result")

    async def incarnations(self) -> list[Any]:
        return list(await self.client.zrange(self.keys.leases, 0, -1))

    async def _handle(self, task: ClaimedTask) -> None:
        self.ran.append(task.key)
        while True:
            with contextlib.suppress(StoreError):
                await self.tasks.complete(self.queue, [Report(task.key, task.token, "ok")])
                return


@contextlib.asynccontextmanager
async def _office(url: str, queue: str) -> AsyncIterator[Office]:
    office = Office(url, queue)
    consuming = asyncio.create_task(office.consumer.run())
    try:
        yield office
    finally:
        office.consumer.stop()
        await consuming
        await office.client.aclose()


async def test_a_queue_is_followed_to_another_master(redis_cluster: RedisCluster) -> None:
    """Slots are moved while a cluster grows: a queue must neither stand still for good nor be in two places."""
    source, target = redis_cluster.masters[:2]
    async with _office(redis_cluster.url, _queue_at(redis_cluster, source)) as office:
        await office.succeeded(await office.enqueue())
        (incarnation,) = await office.incarnations()
        with redis_cluster.moving(office.keys.ready, target) as move:
            # A script has keys that are not there yet, and those may be at either: nothing is done, and that is said.
            with pytest.raises(StoreUnreached):
                await office.enqueue()
            move()
        key = await office.enqueued()
        await office.succeeded(key)
        # The lease is renewed there too.
        before = await office.client.zscore(office.keys.leases, incarnation)
        await until(lambda: _renewed(office, incarnation, before))

        assert await server_of(office.client, office.keys.ready) is await server_of(office.client, office.keys.leases)
        assert office.ran.count(key) == 1
        with redis_cluster.moving(office.keys.ready, source) as move:
            move()


async def _renewed(office: Office, incarnation: Any, before: float) -> bool:
    return bool((await office.client.zscore(office.keys.leases, incarnation) or 0) > before)


async def test_a_replica_that_takes_over_is_found(cluster: RedisCluster) -> None:
    """Replicas are what a cluster is run for: a client that stays with the dead master makes them worthless."""
    master = cluster.masters[0]
    cluster.add_replica(master)
    async with _office(cluster.url, _queue_at(cluster, master)) as office:
        await office.succeeded(await office.enqueue())
        master.kill()

        await office.succeeded(await office.enqueued())


async def test_a_master_that_is_gone_is_told_from_an_answer_that_is(cluster: RedisCluster) -> None:
    """Only what was never sent may be called not accepted; and neither may hang."""
    master = cluster.masters[0]
    one, other = (Office(cluster.url, _queue_at(cluster, at)) for at in cluster.masters[:2])
    try:
        for office in (one, other):
            await office.enqueue()
        master.hang()
        with pytest.raises(StoreLost):
            await one.enqueue()
        await other.enqueue()
        master.kill()
        with pytest.raises(StoreUnreached):
            await one.enqueue()
        await other.enqueue()
    finally:
        await one.client.aclose()
        await other.client.aclose()


async def test_lists_of_nobody_are_found_at_every_master(redis_cluster: RedisCluster) -> None:
    """SCAN lists the keys of one server: what is orphaned at the others would stay there for ever."""
    client = open_client(StoreSettings(redis_url=redis_cluster.url))
    maintenance = Maintenance(client, pass_seconds=1)
    queues = [QueueKeys(_queue_at(redis_cluster, master)) for master in redis_cluster.masters]
    for queue in queues:
        await client.lpush(queue.taken("nobody"), "key")
    await maintenance.reap_orphans()

    assert all([await client.zscore(queue.reaped, "nobody") for queue in queues])
    for queue in queues:
        await client.delete(queue.taken("nobody"))
    await client.aclose()


async def test_every_master_must_keep_what_it_is_given(redis_cluster: RedisCluster, queue: str) -> None:
    """One that throws calls away loses a third of them, however well the others are set."""
    settings = StoreSettings(redis_url=redis_cluster.url)
    await durability.require(settings)
    client = open_client(settings)
    one = await server_of(client, QueueKeys(queue).ready)
    await one.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StartError, match="noeviction"):
            await durability.require(settings)
    finally:
        await one.config_set("maxmemory-policy", "noeviction")
        await client.aclose()


async def test_a_cluster_must_be_asked_for(redis_cluster: RedisCluster, redis_server: RedisServer) -> None:
    """A plain client of one master is answered MOVED to most of what it asks; and a server is no cluster."""
    plain = redis_cluster.masters[0].url
    with pytest.raises(StartError, match=r"redis\+cluster://"):
        await durability.require(StoreSettings(redis_url=plain))
    with pytest.raises(StartError, match="cluster support disabled"):
        await durability.require(StoreSettings(redis_url=redis_server.url.replace("redis://", "redis+cluster://")))


async def test_what_is_filled_is_found_at_every_master_in_one_look(redis_cluster: RedisCluster) -> None:
    """A process of many queues looks at those of all masters: what one look misses waits for ever."""
    settings = StoreSettings(redis_url=redis_cluster.url)
    async with open_client(settings) as client:
        lists = [QueueKeys(f"look{number}").ready for number in range(20)]
        for name in lists[::3]:
            await client.lpush(name, "key")
        try:
            assert await steps.filled(Scripts(client), lists) == {name: name in lists[::3] for name in lists}
        finally:
            for name in lists:
                await client.delete(name)


async def test_a_schema_is_kept_for_a_record_on_any_master(redis_cluster: RedisCluster) -> None:
    """Only the records beside the schemas would be searched: those on other masters could not be judged any more."""
    prefix = f"test-{secrets.token_hex(4)}"
    keys, client = Keys(prefix), open_client(StoreSettings(redis_url=redis_cluster.url))
    try:
        store = SchemaStore(client, keys=keys)
        masters = [_queue_at(redis_cluster, master) for master in redis_cluster.masters]
        for number, queue in enumerate(masters):
            await store.keep(f"{number:016}", b"of one")
            await client.hset(keys.of(queue).record("k" * 16), "V", f"{number:016}")
        await store.keep("f" * 16, b"of none")
        await client.zadd(keys.schemas_used, {f"{number:016}": 1 for number in range(len(masters))} | {"f" * 16: 1})
        dropped = await store.drop_unused()
        kept = [await store.read(f"{number:016}") for number in range(len(masters))]
        used = [await store.use(name) for name in (f"{0:016}", "f" * 16)]
    finally:
        await client.aclose()

    assert dropped == 1
    assert kept == [b"of one"] * len(masters)
    assert used == [True, False]
