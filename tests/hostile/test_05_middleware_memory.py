"""One careless part of the deployment against the middleware: it keeps within its memory, and answers all others."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from support.deployment import SUM, deployed
from support.standing import standing
from support.waiting import until

from poste.domain import sizes
from poste.rpc import weighing
from poste.v1 import mom_service_pb2 as pb
from poste.v1.mom_service_pb2_grpc import MomServiceStub

ENQUEUE = "/poste.v1.MomService/EnqueueTasks"
Channel = grpc.aio.Channel


async def large_messages(channel: Channel) -> set[Any]:
    """As many at once as would fill a quarter of a gigabyte."""
    task = pb.NewTask(service=SUM, method="Add", key="none", request=bytes(sizes.MAX_PAYLOAD))
    raw = pb.EnqueueTasksRequest(tasks=[task]).SerializeToString()
    answers = await asyncio.gather(*(channel.unary_unary(ENQUEUE)(raw, timeout=60) for _ in range(16)))
    return {pb.EnqueueTasksResponse.FromString(one).results[0] for one in answers} - {pb.ENQUEUE_RESULT_BAD_KEY}


async def messages_of_many_objects(channel: Channel) -> set[Any]:
    """Two bytes for each object that is made of them."""
    raw = b"\x0a\x00" * (sizes.MAX_MESSAGE // 2 - 10)
    calls = [channel.unary_unary(ENQUEUE)(raw, timeout=60) for _ in range(4)]
    return {_code(one) for one in await asyncio.gather(*calls, return_exceptions=True)} - {"INVALID_ARGUMENT"}


async def calls_that_send_nothing(channel: Channel) -> set[Any]:
    """Others wait for their turn behind them; gRPC holds of each what it has sent so far."""
    streams = [channel.stream_unary(ENQUEUE)(timeout=60) for _ in range(1300)]
    await until(lambda: sum(one.done() for one in streams) >= 300, what="refusals")
    codes = {(await one.code()).name for one in streams if one.done()}
    for one in streams:
        one.cancel()
    # CANCELLED: gRPC's word for a call whose message did not come in its time.
    return codes - {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"}


async def waits_without_end(channel: Channel) -> set[Any]:
    """More than any gateway has clients."""
    stub = MomServiceStub(channel)
    now = Timestamp()
    now.GetCurrentTime()
    task = pb.NewTask(service=SUM, method="Add", key=secrets.token_urlsafe(12), create_time=now)
    task.task_ttl_seconds = task.result_ttl_seconds = 60
    await stub.EnqueueTasks(pb.EnqueueTasksRequest(tasks=[task]), timeout=10)
    looks = [
        asyncio.ensure_future(_ended(stub.GetTask(pb.GetTaskRequest(service=SUM, key=task.key, wait_seconds=3))))
        for _ in range(1500)
    ]
    # CANCELLED: as above.
    return {*await asyncio.gather(*looks)} - {"OK", "RESOURCE_EXHAUSTED", "CANCELLED"}


async def watches(channel: Channel) -> set[Any]:
    """Each is sent the whole catalogue."""
    stub = MomServiceStub(channel)
    streams: list[Any] = [stub.WatchCatalogue(pb.WatchCatalogueRequest(), timeout=60) for _ in range(500)]
    firsts = await asyncio.gather(*(one.read() for one in streams), return_exceptions=True)
    for one in streams:
        one.cancel()
    refused = [one for one in firsts if isinstance(one, grpc.aio.AioRpcError)]
    assert len(refused) >= 200
    return {_code(one) for one in refused} - {"RESOURCE_EXHAUSTED"}


def _code(answer: Any) -> str:
    return str(answer.code().name) if isinstance(answer, grpc.aio.AioRpcError) else "OK"


async def _ended(call: Awaitable[Any]) -> str:
    try:
        return _code(await call)
    except grpc.aio.AioRpcError as error:
        return _code(error)


@pytest.mark.parametrize(
    "attacks",
    [(large_messages,), (messages_of_many_objects, calls_that_send_nothing, waits_without_end, watches)],
    ids=["large", "many"],
)
async def test_a_middleware_stands_one_careless_peer(tmp_path: Path, attacks: Sequence[Callable[..., Any]]) -> None:
    """It took gigabytes, and all calls were refused or lost with it."""
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    async with deployed(tmp_path, SUM) as one:
        for attack in attacks:
            async with standing(one) as stood:
                async with grpc.aio.insecure_channel(f"127.0.0.1:{one.moms[0].port}", options=options) as channel:
                    odd = await attack(channel)
                    assert odd == set(), (attack.__name__, odd)
                await stood.others.calls(20)


def test_what_a_message_would_cost_is_known_before_it_is_parsed() -> None:
    """The parser would make all of it first."""
    kind = pb.EnqueueTasksRequest.DESCRIPTOR
    task = pb.NewTask(service=SUM, method="Add", key="k", request=b"\x0a\x00" * 1000, task_ttl_seconds=2**63 - 1)
    task.create_time.seconds = 1
    raw = pb.EnqueueTasksRequest(tasks=[task] * 10).SerializeToString()

    # Each: itself, its six fields, and the one of its time.
    assert weighing.has_at_most(raw, kind, 80)
    assert not weighing.has_at_most(raw, kind, 79)
    for rubbish in (b"", b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x7f", b"\x0b", b"\x09", b"\x0d\x00"):
        assert weighing.has_at_most(rubbish, kind, 100)
