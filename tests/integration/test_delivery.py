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
HASTY = catalogue_pb2.ServiceSettings(queued_timeout_seconds=0.3)


@contextlib.asynccontextmanager
async def delivering(
    service: str, behaviour: Callable[[bytes, Any], Awaitable[bytes]], turns: AnswerTurns, settings: Any = None
) -> AsyncIterator[Delivery]:
    """A service whose method behaves so, and who delivers to it."""
    server = grpc.aio.server()
    handlers = {"Store": grpc.unary_unary_rpc_method_handler(behaviour)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    entry = catalogue_pb2.CatalogueService(
        name=service,
        file_descriptor_set=file_descriptor_set(ledger_pb2.DESCRIPTOR),
        targets=[target],
        settings=settings,
    )
    known = describe(entry)
    async with asyncio.TaskGroup() as watches:
        pool = ReplicaPool(service, watches.create_task, turns)
        pool.update(known.targets, library=False, max_in_flight=1000)
        try:
            await until(lambda: pool.availability == "up")
            schemas = Schemas(grpc.aio.insecure_channel("127.0.0.1:9"))
            yield Delivery(known, pool, ConcurrencyLimit(1000), held=HeldBytes(1 << 30), schemas=schemas)
        finally:
            await pool.close()
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
