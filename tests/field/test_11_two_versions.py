"""Two versions of a service at once, as in every rolling update: a call goes to who has its method."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from support import described
from support.gateway import FakeMom, Gateway, running_gateway, serving_mom
from support.mom import RunningMom, running_mom
from support.redis_server import RedisServer, running
from support.rest import is_problem
from support.waiting import until
from support.worker import RunningWorker, line, running_worker
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain.errors import CatalogueError
from poste.queue.catalogue_store import CatalogueStore
from poste.queue.connection import open_client
from poste.queue.consumer import Consumer
from poste.queue.keys import KEYS
from poste.rpc.catalogue import Service, describe
from poste.rpc.channels import proves_not_run
from poste.rpc.descriptor_sets import file_descriptor_set
from poste.runtime.settings import StoreSettings
from poste.v1 import catalogue_pb2, task_pb2
from poste.v1 import mom_service_pb2 as pb

NAME = "many.v1.Many"
LEDGER = "testing.v1.LedgerService"
STORE = f"/{LEDGER}/Store"


# What the catalogue makes of versions


def version(methods: Mapping[str, str | None], *fields: str, gives: str = "Asked") -> bytes:
    """A version of the service: its methods with the path that each claims, if it claims one; its message's fields."""
    file = descriptor_pb2.FileDescriptorProto(name="many.proto", package="many.v1", syntax="proto3")
    file.dependency.append("google/api/annotations.proto")
    for name in {"Asked", gives}:
        message = file.message_type.add(name=name)
        for field in ("text", *fields):
            described.field(message, field)
    described.service(file, "Many", dict.fromkeys(methods, (".many.v1.Asked", f".many.v1.{gives}")))
    for method in file.service[0].method:
        if path := methods[method.name]:
            rule = method.options.Extensions[annotations_pb2.http]
            rule.post, rule.body = path, "*"
    pool = described.pool_of(annotations_pb2.DESCRIPTOR, file)
    return file_descriptor_set(pool.FindFileByName("many.proto"))


OLD = version({"Ask": None, "Drop": "/v1/drop"})
NEW = version({"Ask": None, "Add": "/v1/add"}, "more")


class Many:
    """The replicas of one service, as their registrations show them, and the catalogue that comes of it."""

    def __init__(self, mom: RunningMom) -> None:
        self.mom = mom

    async def come(self, replica: str, files: bytes) -> None:
        await self.mom.stub.RegisterService(
            pb.RegisterServiceRequest(
                service=NAME, replica=replica, address=f"127.0.0.1:{ord(replica[0])}", file_descriptor_set=files
            ),
            timeout=5,
        )

    async def stop(self, replica: str) -> None:
        await self.mom.stub.WithdrawReplica(pb.WithdrawReplicaRequest(service=NAME, replica=replica), timeout=5)

    async def entry(self) -> catalogue_pb2.CatalogueService:
        stream = self.mom.stub.WatchCatalogue(pb.WatchCatalogueRequest(), timeout=5)
        answer = await stream.read()
        stream.cancel()
        assert isinstance(answer, pb.WatchCatalogueResponse)
        return next(entry for entry in answer.services if entry.name == NAME)

    async def service(self) -> Service:
        return describe(await self.entry())

    async def has(self, *methods: str) -> None:
        """Wait until these are its methods."""

        async def look() -> bool:
            return set((await self.service()).methods) == set(methods)

        try:
            await until(look)
        except AssertionError as error:
            raise AssertionError(f"{list((await self.service()).methods)} are there, not {methods}") from error


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    with running(tmp_path / "redis") as one:
        yield one


@pytest.fixture
async def many(server: RedisServer) -> AsyncIterator[Many]:
    async with running_mom(server.url) as mom:
        yield Many(mom)


@contextlib.asynccontextmanager
async def store_of(server: RedisServer) -> AsyncIterator[Any]:
    client = open_client(StoreSettings(redis_url=server.url))
    try:
        yield client
    finally:
        await client.aclose()


async def test_what_any_living_replica_has_can_be_called(many: Many) -> None:
    """The routes of one half of the replicas would be gone while the other half is being exchanged."""
    await many.come("a1", OLD)
    await many.come("b1", NEW)
    await many.has("Ask", "Drop", "Add")
    service = await many.service()

    assert [field.name for field in service.methods["Ask"].input.fields] == ["text", "more"]
    assert service.lacking == {"Add": {"127.0.0.1:97"}, "Drop": {"127.0.0.1:98"}}


async def test_an_old_replica_that_starts_again_takes_nothing_away(many: Many) -> None:
    """The newest start would win: new routes 404 until a new replica happens to start, and new fields refused."""
    await many.come("a1", OLD)
    await many.come("b1", NEW)
    await many.stop("a1")
    await many.has("Ask", "Add")
    await many.come("a2", OLD)
    await many.has("Ask", "Drop", "Add")

    fields = (await many.service()).methods["Ask"].input.fields
    assert [field.name for field in fields] == ["text", "more"]


async def test_a_service_that_is_away_keeps_what_it_last_had(many: Many) -> None:
    """It could not be called while it is away: what the last of its replicas had would be forgotten with that."""
    await many.come("a1", OLD)
    await many.stop("a1")
    assert set((await many.service()).methods) == {"Ask", "Drop"}
    assert (await many.entry()).targets == ["127.0.0.1:97"]

    await many.come("b1", NEW)
    await many.has("Ask", "Add")
    assert (await many.entry()).targets == ["127.0.0.1:98"]


async def test_what_a_dead_replica_had_goes_with_its_lease(many: Many, server: RedisServer) -> None:
    """What was dropped would be offered for good, or what lives be forgotten by a clock."""
    await many.come("a1", OLD)
    await many.come("b1", NEW)
    async with store_of(server) as client:
        store = CatalogueStore(client)
        long_ago = 1000 * ((await client.time())[0] - 61)
        await store.clear()
        await client.zadd(KEYS.replicas, {f"{NAME} a1": long_ago})
        await store.clear()
        await many.has("Ask", "Add")
        # The last one's lease ends as well.
        await client.zadd(KEYS.replicas, {f"{NAME} b1": long_ago})
        await store.clear()

        async def gone() -> bool:
            return not (await many.entry()).targets

        await until(gone)
    await many.has("Ask", "Add")


async def test_nobody_is_forgotten_because_nobody_could_register(many: Many, server: RedisServer) -> None:
    """After a minute without the middleware the first replica to come would be the only one known to live."""
    await many.come("a1", OLD)
    await many.come("b1", NEW)
    async with store_of(server) as client:
        now = 1000 * (await client.time())[0]
        await client.zadd(KEYS.replicas, {f"{NAME} {one}": now - 100_000 for one in ("a1", "b1")})
        await client.set(KEYS.catalogue_pass, now - 100_000)
        await many.come("a1", OLD)
        await CatalogueStore(client).clear()
    await many.has("Ask", "Drop", "Add")


async def test_two_processes_at_one_address_have_what_either_has(many: Many) -> None:
    """Behind one address for all (a load balancer's) what is there would change with each registration."""
    await many.come("a1", OLD)
    await many.come("a2", NEW)
    for replica, files in (("a1", OLD), ("a2", NEW)):
        await many.come(replica, files)
        assert set((await many.service()).methods) == {"Ask", "Drop", "Add"}
    assert not (await many.service()).lacking


async def test_a_route_that_moves_is_the_newer_versions(many: Many) -> None:
    """Which of two methods a call reaches would be chance while both versions live."""
    await many.come("a1", version({"First": "/v1/it"}))
    await many.come("b1", version({"Second": "/v1/it"}))
    await many.has("First", "Second")
    methods = (await many.service()).methods

    assert [route.path for route in methods["First"].routes] == [f"/{NAME}/First"]
    assert [route.path for route in methods["Second"].routes] == [f"/{NAME}/Second", "/v1/it"]


def test_each_method_is_treated_as_the_author_of_its_version_says() -> None:
    """A method that the new version drops would lose its time-out as soon as one new replica is there."""
    old = catalogue_pb2.ServiceSettings(timeout_seconds=300)
    new = catalogue_pb2.ServiceSettings(timeout_seconds=5)
    entry = catalogue_pb2.CatalogueService(name=NAME, file_descriptor_set=NEW, author_settings=new)
    entry.others.add(file_descriptor_set=OLD, author_settings=old)
    seconds = {name: method.policy.timeout_seconds for name, method in describe(entry).methods.items()}

    assert seconds == {"Ask": 5, "Add": 5, "Drop": 300}


async def test_a_broken_old_version_does_not_take_the_new_one_along(many: Many) -> None:
    """One bad record in the store would make a service unknown."""
    await many.come("a1", OLD)
    await many.come("b1", NEW)
    entry = await many.entry()
    entry.others[0].file_descriptor_set = b"\xff"

    assert set(describe(entry).methods) == {"Ask", "Add"}
    with pytest.raises(CatalogueError):
        describe(catalogue_pb2.CatalogueService(name=NAME, file_descriptor_set=b"\xff"))


async def test_a_dropped_methods_results_can_be_read(many: Many, tmp_path: Path) -> None:
    """What was accepted and done would be a result that can't be read."""
    await many.come("a1", OLD)
    await many.come("b1", NEW)
    await many.stop("a1")
    await many.has("Ask", "Add")
    entry = await many.entry()
    dropped = describe(entry).dropped["Drop"]
    response = described.message_class(dropped.output.file.pool, "many.v1.Asked")(text="kept")
    async with serving_mom(fake := FakeMom(entry)) as port, running_gateway(tmp_path, port) as gateway:
        fake.announce(_with_drop(entry))
        place = (await _until_accepted(gateway)).headers["Location"]
        fake.announce(entry)
        (key,) = fake.tasks
        fake.change(key, state=task_pb2.TASK_STATE_SUCCEEDED, response=response.SerializeToString())

        async def dropped_there() -> bool:
            return (await gateway.post("/v1/drop")).status == 404

        await until(dropped_there)
        task = await gateway.get(place)

    assert (task.status, task.body["state"], task.body["response"]["text"]) == (200, "SUCCEEDED", "kept")


def _with_drop(entry: catalogue_pb2.CatalogueService) -> catalogue_pb2.CatalogueService:
    """The entry as it was while replicas had the old version still."""
    before = catalogue_pb2.CatalogueService()
    before.CopyFrom(entry)
    for other in before.others:
        other.retired = False
    return before


async def _until_accepted(gateway: Gateway) -> Any:
    async def accepted() -> Any:
        reply = await gateway.post("/v1/drop", {"text": "x"}, Prefer="respond-async")
        return reply if reply.status == 202 else None

    return await until(accepted)


# Who runs what


class Older(ledger_pb2_grpc.LedgerServiceServicer):
    """The version before `Store` came: by its stubs it has it, but there is no handler."""

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        return ledger_pb2.RecordResponse()


class Newer(Older):
    """The version that has it."""

    def __init__(self) -> None:
        self.stored: list[str] = []

    async def Store(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        self.stored.append(request.line)
        return ledger_pb2.RecordResponse()


@contextlib.asynccontextmanager
async def beside(server: RedisServer, mom: RunningMom, *servicers: object) -> AsyncIterator[list[RunningWorker]]:
    async with contextlib.AsyncExitStack() as stack:
        made = {"consumer": Consumer, "redis_url": server.url, "mom": mom.target}
        hasty = {"lease_seconds": 1.5, "heartbeat_seconds": 0.3}
        yield [await stack.enter_async_context(running_worker(one, **made, **hasty)) for one in servicers]


async def test_thirty_queued_calls_of_a_new_method_all_succeed_beside_old_replicas(
    server: RedisServer, tmp_path: Path
) -> None:
    """28 of 30 would have failed for good, though a replica that has the method stands by."""
    newer = Newer()
    async with (
        running_mom(server.url, pass_seconds=0.2) as mom,
        running_gateway(tmp_path, mom.settings.port) as gateway,
        beside(server, mom, Older(), Older(), newer),
    ):
        await gateway.available(name=LEDGER, ready=3, queueable=True)
        direct = [await gateway.post(STORE, {"line": "direct"}, Prefer="no-queue") for _ in range(10)]
        kept = await asyncio.gather(
            *(gateway.post(STORE, {"line": f"{number}"}, Prefer="respond-async") for number in range(30))
        )
        places = [reply.headers["Location"] for reply in kept]

        async def ended() -> Any:
            tasks = [(await gateway.get(place)).body for place in places]
            return all(task["state"] not in ("QUEUED", "RUNNING") for task in tasks) and tasks

        tasks = await until(ended, seconds=20)

    assert [reply.status for reply in direct] == [200] * 10
    assert {(task["state"], task["attempt"]) for task in tasks} == {("SUCCEEDED", 1)}
    assert sorted(newer.stored) == sorted([*(["direct"] * 10), *(f"{number}" for number in range(30))])


async def unserved(mom: RunningMom, count: int) -> bool:
    """Return whether so many tasks are said to wait for a method that no live replica has."""
    async with aiohttp.ClientSession() as session, session.get(f"{mom.admin_url}/metrics") as reply:
        return f'poste_queue_unserved_tasks{{queue="{LEDGER}"}} {count}.0' in await reply.text()


async def test_a_call_that_nobody_living_has_a_handler_for_waits(server: RedisServer, tmp_path: Path) -> None:
    """A method that is rolled back for a while would cost its waiting calls: FAILED, though none of them ran."""
    async with (
        running_mom(server.url, pass_seconds=0.2) as mom,
        running_gateway(tmp_path, mom.settings.port) as gateway,
        beside(server, mom, Older()),
    ):
        async with beside(server, mom, Newer()):
            await gateway.available(name=LEDGER, ready=2, queueable=True)
            await mom.stub.PauseQueue(pb.PauseQueueRequest(queue=LEDGER), timeout=5)
            kept = await gateway.post(STORE, {"line": "kept"}, Prefer="respond-async")
            late = await gateway.post(STORE, {"line": "late"}, Prefer="respond-async", Poste_Task_TTL="2")
            await gateway.post(f"/{LEDGER}/Look", {}, Prefer="no-queue")
        await mom.stub.ResumeQueue(pb.ResumeQueueRequest(queue=LEDGER), timeout=5)

        async def state(reply: Any) -> tuple[str, int]:
            task = (await gateway.get(reply.headers["Location"])).body
            return task["state"], task["attempt"]

        async def expired() -> bool:
            return await state(late) == ("EXPIRED", 0)

        await until(expired)
        waiting, dropped = await state(kept), await gateway.post(STORE, {"line": "new"})
        await until(lambda: unserved(mom, 1), what="its queue's figure")
        async with beside(server, mom, Newer()):

            async def done() -> bool:
                return await state(kept) == ("SUCCEEDED", 1)

            await until(done)
        await until(lambda: unserved(mom, 0), what="its queue's figure")

    assert waiting == ("QUEUED", 0)
    assert dropped.status == 404


async def test_a_gateway_that_does_not_know_who_has_what_asks_each(tmp_path: Path) -> None:
    """Behind a name of the deployment's file every third call would be 501, or be queued without need."""
    servicers = (Older(), Older(), Newer())
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(running_worker(one)) for one in servicers]
        entry = catalogue_pb2.CatalogueService(
            name=LEDGER, library=True, file_descriptor_set=file_descriptor_set(ledger_pb2.DESCRIPTOR)
        )
        entry.targets.extend(worker.target for worker in workers)
        async with serving_mom(fake := FakeMom(entry)) as port, running_gateway(tmp_path, port) as gateway:
            await gateway.available(name=LEDGER, ready=3)
            replies = [await gateway.post(STORE, {"line": "x"}, Prefer="no-queue") for _ in range(12)]
            # What is known may be old: a replica that is said to lack the method is asked if there is no other.
            entry.lacking.add(address=workers[2].target, methods=["Store"])
            fake.announce(entry)
            await asyncio.sleep(0)
            stale = [await gateway.post(STORE, {"line": "x"}, Prefer="no-queue") for _ in range(6)]
            workers[2].stop.set()
            await workers[2].task
            await gateway.available(name=LEDGER, ready=2)
            refused = await gateway.post(STORE, {"line": "x"}, Prefer="no-queue")
            kept = await gateway.post(STORE, {"line": "x"})

    assert [reply.status for reply in replies] == [200] * 12
    assert [reply.status for reply in stale] == [200] * 6
    is_problem(refused, 503, "service-away", "UNAVAILABLE", STORE)
    assert "has this method" in refused.body["detail"]
    assert kept.status == 202


@pytest.mark.parametrize("path", [STORE, f"/{LEDGER}/Nothing", "/other.v1.Service/Method"])
async def test_not_here_is_proved_on_a_plain_call_too(path: str) -> None:
    """Without a link a gateway could not distinguish it from a handler's own answer, and would not ask another."""
    async with running_worker(Older()) as worker:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await worker.call(path, line())

    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert proves_not_run(raised.value)


async def test_a_replica_that_stops_is_forgotten_at_once_unless_it_is_the_last(many: Many, server: RedisServer) -> None:
    """For a minute gateways would find no such route; or routes would go with every restart of a single replica."""
    began = time.monotonic()
    async with beside(server, many.mom, Older()):

        async def seen() -> set[str]:
            stream = many.mom.stub.WatchCatalogue(pb.WatchCatalogueRequest(), timeout=5)
            answer = await stream.read()
            stream.cancel()
            return {target for entry in answer.services if entry.name == LEDGER for target in entry.targets}

        async def count(number: int) -> bool:
            return len(await seen()) == number

        await until(lambda: count(1))
        async with beside(server, many.mom, Newer()):
            await until(lambda: count(2))
        await until(lambda: count(1))
    assert len(await seen()) == 1
    assert time.monotonic() - began < 30
