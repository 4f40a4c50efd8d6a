"""Deliveries one by one, to real servers that are gRPC servers and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio
import pytest
from support.deployment import LEDGER
from support.waiting import until
from support.worker import claimed
from testing.v1 import ledger_pb2

from poste.domain.codes import Code
from poste.queue.consumer import HeldBytes, NotRun
from poste.rpc.catalogue import describe
from poste.rpc.descriptor_sets import file_descriptor_set
from poste.service.call import Call
from poste.service.schemas import Schemas
from poste.upstream.answer_turns import OF_COURIER, AnswerTurns
from poste.upstream.replica_pool import ReplicaPool
from poste.v1 import catalogue_pb2
from poste_courier.concurrency_limit import ConcurrencyLimit
from poste_courier.delivery import Delivery

FOREIGN = "testing.v1.ForeignService"
HASTY = catalogue_pb2.ServiceSettings(queued_timeout_seconds=1)


Behaviour = Callable[[bytes, Any], Awaitable[bytes]]


async def serve(service: str, behaviour: Behaviour, port: int = 0) -> tuple[grpc.aio.Server, int]:
    """Start a server whose method behaves so."""
    server = grpc.aio.server()
    handlers = {"Store": grpc.unary_unary_rpc_method_handler(behaviour)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, bound


@contextlib.asynccontextmanager
async def delivering_to(
    service: str, ports: list[int], turns: AnswerTurns, settings: Any = None, limit: ConcurrencyLimit | None = None
) -> AsyncIterator[tuple[Delivery, ReplicaPool]]:
    """Who delivers to a service's replicas."""
    entry = catalogue_pb2.CatalogueService(
        name=service,
        file_descriptor_set=file_descriptor_set(ledger_pb2.DESCRIPTOR),
        targets=[f"127.0.0.1:{port}" for port in ports],
        settings=settings,
    )
    known = describe(entry)
    async with asyncio.TaskGroup() as watches:
        pool = ReplicaPool(service, watches.create_task, turns)
        pool.update(known.targets, library=False, max_in_flight=1000)
        try:
            await until(lambda: pool.counts[0] == len(ports))
            schemas = Schemas(grpc.aio.insecure_channel("127.0.0.1:9"))
            limit = limit or ConcurrencyLimit(1000)
            yield Delivery(known, pool, limit, held=HeldBytes(1 << 30), schemas=schemas), pool
        finally:
            await pool.close()


@contextlib.asynccontextmanager
async def delivering(
    service: str, behaviour: Behaviour, turns: AnswerTurns, settings: Any = None, limit: ConcurrencyLimit | None = None
) -> AsyncIterator[Delivery]:
    """A service whose method behaves so, and who delivers to it."""
    server, port = await serve(service, behaviour)
    try:
        async with delivering_to(service, [port], turns, settings, limit) as (delivery, _):
            yield delivery
    finally:
        await server.stop(None)


async def deliver(delivery: Delivery, *, key: str = "key") -> Any:
    task = claimed("Store", ledger_pb2.RecordRequest(line="a"), queue=delivery.service.name, key=key)
    return await delivery.run(task, Call(queued=task))


async def echo(request: bytes, _: Any) -> bytes:
    return request


async def test_a_call_that_grpc_refuses_to_send_fails_alone() -> None:
    """It would end the courier, and with it all that is under way beside it."""
    async with delivering(LEDGER, echo, AnswerTurns()) as delivery:
        first = await deliver(delivery, key="\u00e9")
        other = await deliver(delivery)
        # Now that the method answers with little it is called another way.
        then = [await deliver(delivery, key=key) for key in ("\u00e9", "a\nb", "\udc80")]
        last = await deliver(delivery)

    assert {outcome.code for outcome in (first, *then)} == {Code.INTERNAL}
    assert (other.code, last.code) == (Code.OK, Code.OK)
    assert delivery.in_flight == 0


async def test_a_service_that_is_slow_to_answer_leaves_others_their_turns() -> None:
    """Its answers would be waited for while those of other services, ready long since, are not read."""
    begun = 0
    go = asyncio.Event()

    async def slow(request: bytes, context: Any) -> bytes:
        nonlocal begun
        begun += 1
        await context.send_initial_metadata(())
        await go.wait()
        return request

    turns = AnswerTurns(OF_COURIER)
    async with (
        delivering(LEDGER, slow, turns) as loaded,
        delivering(FOREIGN, echo, turns) as idle,
        asyncio.TaskGroup() as group,
    ):
        under_way = [group.create_task(deliver(loaded)) for _ in range(40)]
        await until(lambda: begun == len(under_way))
        await until(lambda: turns.free == 1)
        outcome = await asyncio.wait_for(deliver(idle), 10)
        go.set()

    assert outcome.code is Code.OK
    assert {task.result().code for task in under_way} == {Code.OK}


async def test_nothing_is_sent_to_a_service_that_did_not_answer_until_one_call_is() -> None:
    """Its whole backlog would be tried at a service that hangs, each call for as long as it may take."""
    hanging = True

    async def hang(request: bytes, _: Any) -> bytes:
        if hanging:
            await asyncio.sleep(30)
        return request

    async with delivering(LEDGER, hang, AnswerTurns(), HASTY) as delivery:
        silent = await deliver(delivery)
        with pytest.raises(NotRun):
            await deliver(delivery)
        hanging = False

        async def answered() -> bool:
            with contextlib.suppress(NotRun):
                return (await deliver(delivery)).code is Code.OK
            return False

        await until(answered)
        after = await asyncio.gather(*(deliver(delivery) for _ in range(5)))

    assert (silent.code, silent.overdue) == (Code.DEADLINE_EXCEEDED, True)
    assert {outcome.code for outcome in after} == {Code.OK}


class Replicas:
    """Some of a service's, which answer once they may, and count what each has under way."""

    def __init__(self) -> None:
        self.under_way: dict[int, int] = {}
        self._go = asyncio.Event()

    def behaviour(self, number: int) -> Behaviour:
        async def answer(request: bytes, _: Any) -> bytes:
            self.under_way[number] = self.under_way.get(number, 0) + 1
            await self._go.wait()
            return request

        return answer

    async def spread(self, delivery: Delivery, calls: int) -> dict[int, int]:
        """Make so many calls; returns how many each had under way."""
        self.under_way.clear()
        self._go.clear()
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(deliver(delivery)) for _ in range(calls)]
            await until(lambda: sum(self.under_way.values()) == calls)
            found = dict(self.under_way)
            self._go.set()
        assert {one.result().code for one in made} == {Code.OK}
        return found


async def test_calls_are_spread_over_a_services_replicas_whichever_are_there() -> None:
    """One replica would have all the work of a backlog, or one that came back have none of it."""
    replicas = Replicas()
    servers = dict([await serve(LEDGER, replicas.behaviour(number)) for number in range(3)])
    running, ports = list(servers), list(servers.values())
    try:
        async with delivering_to(LEDGER, ports, AnswerTurns(OF_COURIER)) as (delivery, pool):
            all_there = await replicas.spread(delivery, 30)
            await running[1].stop(None)
            await until(lambda: pool.counts[0] == 2)
            without_one = await replicas.spread(delivery, 30)
            running[1], _ = await serve(LEDGER, replicas.behaviour(1), ports[1])
            await until(lambda: pool.counts[0] == 3)
            back = await replicas.spread(delivery, 30)
    finally:
        for server in running:
            await server.stop(None)

    assert all_there == {0: 10, 1: 10, 2: 10}
    assert without_one == {0: 15, 2: 15}
    assert back == {0: 10, 1: 10, 2: 10}


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, None])
async def test_what_a_service_says_when_it_is_too_much_lowers_how_many_it_gets(code: grpc.StatusCode | None) -> None:
    """It would get as many calls as before while it can't serve them; or few for ever, once it can."""
    loaded = False

    async def answer(request: bytes, context: Any) -> bytes:
        if loaded and code is not None:
            await context.abort(code, "no more")
        # Long beside what it takes otherwise; and that beside what this machine adds.
        await asyncio.sleep(2 if loaded else 0.05)
        return request

    async def calls(count: int) -> None:
        await asyncio.gather(*(deliver(delivery) for _ in range(count)))

    async def grow() -> int:
        for _ in range(40):
            await calls(limit.now)
            if limit.now == 16:
                break
        return limit.now

    limit = ConcurrencyLimit(16)
    async with delivering(LEDGER, answer, AnswerTurns(OF_COURIER), limit=limit) as delivery:
        first = limit.now
        grown = await grow()
        loaded = True
        await calls(grown)
        fallen = limit.now
        loaded = False
        again = await grow()

    assert (first, grown, again) == (4, 16, 16)
    assert fallen < grown


async def test_an_error_of_the_request_is_no_sign_of_load() -> None:
    """A client that asks for what is not there would slow all others' calls down."""

    async def refuse(_: bytes, context: Any) -> bytes:
        await asyncio.sleep(0.05)
        await context.abort(grpc.StatusCode.NOT_FOUND, "none")
        raise AssertionError

    limit = ConcurrencyLimit(16)
    async with delivering(LEDGER, refuse, AnswerTurns(OF_COURIER), limit=limit) as delivery:
        for _ in range(40):
            await asyncio.gather(*(deliver(delivery) for _ in range(limit.now)))
            if limit.now == 16:
                break

    assert limit.now == 16
