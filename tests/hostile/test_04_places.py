"""No client takes all the places that a service has at a gateway: who calls little finds one, whatever others do.

It is of the kinds of issue 13's numbers 4 (fair turns) and 3 (what one client may hold).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from support import shop
from support.gateway import staged
from support.gateway_process import Client, gateway_process
from support.scraping import Scrape
from support.waiting import until
from support.worker import line, running_worker
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.rpc.catalogue import Method, describe
from poste.rpc.descriptor_sets import file_descriptor_set
from poste.upstream.outgoing_call import OutgoingCall
from poste.upstream.replica_pool import ReplicaPool
from poste.upstream.shares import Shares
from poste.v1 import catalogue_pb2
from poste_gateway.calls import direct
from poste_gateway.calls.direct import PEER_CALLS, Away

HOG, OTHER = "127.0.0.2", "127.0.0.3"
#: Who comes from here has no share of its own, and no other has none.
PROXY = "127.0.0.1/32"
ORDERS = "/v1/orders"
SLOW, FAST = json.dumps({"aString": "slow"}).encode(), b"{}"


class Gate:
    """A shop whose slow calls end once it is opened."""

    def __init__(self) -> None:
        self.inside = 0
        self.open = asyncio.Event()

    async def __call__(self, request: Any, context: Any) -> Any:
        if request.a_string == "fail":
            await context.abort(grpc.StatusCode.NOT_FOUND, "")
        if request.a_string == "slow":
            self.inside += 1
            try:
                await self.open.wait()
            finally:
                self.inside -= 1
        return shop.Receipt(number=7)


@contextlib.asynccontextmanager
async def coming_from(address: str, url: str) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(limit=0, local_addr=(address, 0))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Client(url, session)


@contextlib.asynccontextmanager
async def slow_calls(client: Client, count: int, **headers: str) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Make so many while the body runs; then their client goes."""
    calls: list[asyncio.Task[Any]] = []
    try:
        while len(calls) < count:
            if calls and len(calls) % 100 == 0:
                # More at once than may wait for a connection would come again after seconds.
                await asyncio.sleep(0.02)
            calls.append(asyncio.create_task(client.post(SLOW, ORDERS, **headers)))
        yield calls
    finally:
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


def answers(calls: list[asyncio.Task[Any]]) -> list[Any]:
    return [call.result() for call in calls if call.done()]


async def test_others_are_answered_while_one_client_has_a_thousand_connections(tmp_path: Path) -> None:
    """One client had all thousand places with calls that take long, and all others' calls were refused."""
    gate = Gate()
    async with gateway_process(tmp_path, gate, trusted_proxies=PROXY) as gateway:
        hog, other = await gateway.client(HOG), await gateway.client(OTHER)
        async with slow_calls(hog, 1000, Prefer="no-queue") as calls:
            # Fewer than eight times those that are left.
            await until(lambda: gate.inside == 889 and len(answers(calls)) == 111, what="as many as it may")
            for _ in range(5):
                assert (await other.post(FAST, ORDERS, Prefer="no-queue"))[0] == 200
                assert (await hog.post(FAST, ORDERS, Prefer="no-queue"))[0] == 503

            for status, headers, problem in answers(calls):
                assert (status, headers["Retry-After"], problem["type"]) == (503, "1", "/problems/gateway-busy")
                assert "client" in problem["detail"]
        async with aiohttp.request("GET", f"http://127.0.0.1:{gateway.part.admin_port}/metrics") as reply:
            assert Scrape(await reply.text()).total("poste_refused_total", reason="peer-calls") == 116
        lines = [json.loads(text) for text in gateway.part.log.splitlines() if '"busy"' in text]
        assert 1 <= len(lines) < 116
        assert {(one["reason"], one["peer"], one["service"]) for one in lines} == {("peer-calls", HOG, shop.NAME)}
        gate.open.set()


@pytest.mark.parametrize(("places", "may"), [(1, 1), (8, 8), (9, 8), (20, 18)])
async def test_of_few_places_one_client_may_have_all(tmp_path: Path, places: int, may: int) -> None:
    """A service that takes one call at a time would take none; and of many, some are left for others."""
    gate = Gate()
    settings = {"entry": {"max_in_flight": places}, "trusted_proxies": PROXY}
    async with (
        staged(tmp_path, gate, **settings) as stage,
        coming_from(HOG, stage.gateway.url) as hog,
        coming_from(OTHER, stage.gateway.url) as other,
        slow_calls(hog, 20, Prefer="no-queue") as calls,
    ):
        await until(lambda: gate.inside == may and len(answers(calls)) == 20 - may)
        kind = "service-away" if may == places else "gateway-busy"
        assert {reply[2]["type"] for reply in answers(calls)} == {f"/problems/{kind}"}
        status, _, problem = await other.post(FAST, ORDERS, Prefer="no-queue")
        assert (status, problem.get("type")) == ((200, None) if may < places else (503, "/problems/service-away"))
        gate.open.set()


async def test_what_is_over_its_clients_share_is_queued_as_what_finds_its_service_busy(tmp_path: Path) -> None:
    """A call that may be kept would be refused, where it is kept when all the places are taken."""
    gate = Gate()
    settings = {"entry": {"max_in_flight": 20}, "trusted_proxies": PROXY}
    async with (
        staged(tmp_path, gate, **settings) as stage,
        coming_from(HOG, stage.gateway.url) as hog,
        slow_calls(hog, 19) as calls,
    ):
        await until(lambda: gate.inside == 18 and len(answers(calls)) == 1)
        ((status, headers, task),) = answers(calls)
        assert (status, task["state"]) == (202, "QUEUED")
        assert headers["Location"]
        text = await stage.gateway.metrics()
        assert Scrape(text).total("poste_failovers_total", reason="peer-calls", service=shop.NAME) == 1
        gate.open.set()


async def test_who_brings_everybodys_calls_may_have_all_the_places(tmp_path: Path) -> None:
    """Behind a proxy all clients together would be held back as one."""
    gate = Gate()
    async with (
        staged(tmp_path, gate, entry={"max_in_flight": 20}, trusted_proxies=PROXY) as stage,
        coming_from("127.0.0.1", stage.gateway.url) as proxy,
        slow_calls(proxy, 20),
    ):
        await until(lambda: gate.inside == 20)
        gate.open.set()


async def test_places_of_calls_that_ended_are_free_again(tmp_path: Path) -> None:
    """A place that is lost with a client that went would be lost for as long as the gateway lives."""
    gate = Gate()
    settings = {"entry": {"max_in_flight": 20, "timeout_seconds": 20}, "trusted_proxies": PROXY}
    async with staged(tmp_path, gate, **settings) as stage:
        for _ in range(3):
            async with coming_from(HOG, stage.gateway.url) as hog, slow_calls(hog, 25, Prefer="no-queue") as calls:
                await until(lambda: gate.inside == 18 and len(answers(calls)) == 7)
            # Its client is gone, and its call goes on.
            assert gate.inside == 18
            gate.open.set()
            await until(lambda: _none_under_way(stage), what="the answers, at the gateway too")
            gate.open.clear()


async def _none_under_way(stage: Any) -> bool:
    figures = Scrape(await stage.gateway.metrics())
    return figures.total("poste_calls_in_flight", service=shop.NAME) == 0


@pytest.mark.parametrize(("clients", "each"), [(1, 889), (2, 471), (10, 99), (100, 10)])
def test_many_that_want_all_have_as_much_each_and_leave_some(clients: int, each: int) -> None:
    """A share that does not heed how many clients there are leaves places empty, or none."""
    shares, free = Shares(), 1000
    progress = True
    while progress:
        progress = False
        for client in map(str, range(clients)):
            if free and shares.allows(client, free):
                shares.take(client)
                free, progress = free - 1, True

    assert max(shares.held.values()) == each
    assert min(shares.held.values()) >= each - 1
    assert free
    assert shares.allows("another", free)


class Odd(ledger_pb2_grpc.LedgerServiceServicer):
    """Does what its caller's line says."""

    def __init__(self) -> None:
        self.never = asyncio.Event()

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's
        return await self._do(request, context)

    async def Record(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's
        return await self._do(request, context)

    async def _do(self, request: Any, context: Any) -> Any:
        if request.line == "fail":
            await context.abort(grpc.StatusCode.NOT_FOUND, "")
        if request.line == "unavailable":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "")
        if request.line == "raise":
            raise RuntimeError
        if request.line == "hang":
            await self.never.wait()
        return ledger_pb2.RecordResponse(line=request.line)


def methods() -> tuple[Method, Method]:
    descriptors = file_descriptor_set(ledger_pb2.DESCRIPTOR)
    name = "testing.v1.LedgerService"
    entry = catalogue_pb2.CatalogueService(name=name, library=True, file_descriptor_set=descriptors)
    found = describe(entry).methods
    return found["Look"], found["Record"]


@contextlib.asynccontextmanager
async def pool_of(*targets: str, library: bool, places: int) -> AsyncIterator[ReplicaPool]:
    """Run the pool of these replicas, which are all ready."""
    async with asyncio.TaskGroup() as group:
        pool = ReplicaPool("testing.v1.LedgerService", group.create_task)
        try:
            pool.update(targets, library=library, max_in_flight=places)
            await until(lambda: pool.counts[0] == len(targets))
            if library:
                await until(lambda: all(replica.linked for replica in pool.replicas))
            yield pool
        finally:
            await pool.close()


@pytest.mark.parametrize("library", [True, False], ids=["link", "lone"])
async def test_accounts_are_whole_after_thousands_of_ends_of_every_kind(*, library: bool) -> None:
    """One kind of end that leaves its place taken, and in time its client is refused everything."""
    chance = random.Random(7)  # noqa: S311 - a test's dice
    methods_, outcomes = methods(), set[str]()

    async with (
        running_worker(Odd(), max_direct_calls=8, grace_seconds=0.1) as worker,
        pool_of(worker.target, library=library, places=20) as pool,
    ):

        async def call(kind: str, client: str, method: Method, seconds: float | None) -> None:
            message = line(kind).SerializeToString()
            outgoing = OutgoingCall(method.path, message, "id", client=client)
            said = await direct.call(pool, method, outgoing, wait_seconds=seconds)
            outcomes.add(said.reason if isinstance(said, Away) else type(said).__name__)

        async def caller(client: str) -> None:
            for _ in range(100):
                kind = chance.choice(["now", "now", "fail", "raise", "unavailable", "hang"])
                one = asyncio.create_task(call(kind, client, chance.choice(methods_), 0.02))
                if chance.random() < 0.2:
                    await asyncio.sleep(0)
                    one.cancel()
                await asyncio.wait([one])
                assert one.cancelled() or not one.exception()

        await asyncio.gather(*(caller(client) for client in [*"aaaaaaaaaaaaaaaaaaaaaaaabbcd", ""]))
        assert outcomes >= {"bytes", "Failed", "Unknown", "lost", "timeout", PEER_CALLS}
        assert (pool.in_flight, pool._shares.held) == (0, {})

        # And those whose service goes meanwhile.
        last = [asyncio.create_task(call("hang", client, one, None)) for client in "abcd" for one in methods_]
        await until(lambda: pool.in_flight == len(last))
        assert pool._shares.held == dict.fromkeys("abcd", 2)
        worker.stop.set()
        await asyncio.wait(last)
        assert (pool.in_flight, pool._shares.held) == (0, {})


async def test_the_share_is_of_all_replicas_that_would_be_called() -> None:
    """Of two replicas a client would have the share of one; or it would fill the one that has its method."""
    odd = Odd()
    record = methods()[1]

    async def taken(pool: ReplicaPool) -> int:
        """How many calls a client may begin that do not end."""
        message = line("hang").SerializeToString()
        outgoing = OutgoingCall(record.path, message, "", client="a")
        calls = [asyncio.create_task(direct.call(pool, record, outgoing)) for _ in range(30)]
        await until(lambda: pool.in_flight + sum(call.done() for call in calls) == 30)
        assert {call.result() for call in calls if call.done()} == {Away(PEER_CALLS)}
        count = pool.in_flight
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        return count

    async with (
        running_worker(odd) as one,
        running_worker(odd) as two,
        pool_of(one.target, two.target, library=True, places=10) as pool,
    ):
        assert await taken(pool) == 18
        lacking = {"Record": frozenset({one.target})}
        pool.update((one.target, two.target), library=True, max_in_flight=10, lacking=lacking)
        assert await taken(pool) == 9
