"""Many large calls at once are kept, whatever they add up to, and delay no other client's calls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from support import shop
from support.gateway import FakeMom, running_gateway, serving_mom
from support.linked import linked
from support.waiting import until
from support.worker import running_worker
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain import sizes
from poste.rpc.servers import Health
from poste.upstream.link import Link
from poste.upstream.outgoing_call import OutgoingCall
from poste.upstream.replica import Replica
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import mom_service_pb2_grpc
from poste_gateway.calls.enqueuer import Acceptance, Enqueuer
from poste_gateway.mom import Mom

MEGABYTE = "x" * 1_000_000


class Holding(FakeMom):
    """Holds what brings large calls until it is let go; knows how large each message was."""

    def __init__(self) -> None:
        super().__init__(shop.entry())
        self.let_go = asyncio.Event()
        self.held = 0
        self.sizes: list[int] = []

    async def EnqueueTasks(self, request, context):  # noqa: N802 - the proto's
        self.sizes.append(request.ByteSize())
        if any(len(task.request) > sizes.LARGE for task in request.tasks):
            self.held += 1
            await self.let_go.wait()
        return await super().EnqueueTasks(request, context)


@contextlib.asynccontextmanager
async def narrow(mom: FakeMom, limit: int) -> AsyncIterator[Enqueuer]:
    """Send calls to a middleware that takes no message larger than `limit` bytes."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", limit)])
    mom_service_pb2_grpc.add_MomServiceServicer_to_server(mom, server)
    health = Health(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await health.serving()
    client = Mom(f"127.0.0.1:{port}")
    following = asyncio.create_task(client.run())
    assert await client.connected(10)
    enqueuer = Enqueuer(client)
    try:
        yield enqueuer
    finally:
        await enqueuer.close()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await client.close()
        await server.stop(None)


def task(key: str, size: int = 0) -> pb.NewTask:
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return pb.NewTask(service=shop.NAME, method="Put", key=key, request=b"x" * size, create_time=stamp)


async def test_large_calls_together_are_all_kept(tmp_path: Path) -> None:
    """They went in one message, which was refused, and tried again as it was until their time was up."""
    mom = Holding()
    mom.let_go.set()
    async with serving_mom(mom) as port, running_gateway(tmp_path, port) as gateway:
        body = {"aString": MEGABYTE}
        replies = await asyncio.gather(
            *(gateway.post("/v1/orders", body, Prefer="respond-async") for _ in range(24)),
        )

    assert {reply.status for reply in replies} == {202}
    assert len(mom.tasks) == 24
    assert max(mom.sizes) <= sizes.BATCH


async def test_small_calls_do_not_wait_for_large_ones(tmp_path: Path) -> None:
    """A few clients with large calls would take every other's service away."""
    mom = Holding()
    async with serving_mom(mom) as port, running_gateway(tmp_path, port) as gateway:
        large = [
            asyncio.create_task(gateway.post("/v1/orders", {"aString": MEGABYTE}, Prefer="respond-async"))
            for _ in range(20)
        ]
        await until(lambda: mom.held)
        small = await asyncio.gather(
            *(gateway.post("/v1/orders", {"aString": "small"}, Prefer="respond-async") for _ in range(20))
        )
        assert {reply.status for reply in small} == {202}
        assert not any(one.done() for one in large)
        mom.let_go.set()

        assert {reply.status for reply in await asyncio.gather(*large)} == {202}


async def test_a_message_that_is_refused_is_split() -> None:
    """Sent again as it was it is refused again; and what is refused before it is read did not run."""
    mom = Holding()
    async with narrow(mom, 20_000) as enqueuer:
        kept = await asyncio.gather(*(enqueuer.enqueue(task(str(number), 1000)) for number in range(200)))

    assert set(kept) == {Acceptance.ACCEPTED}
    assert len(mom.tasks) == 200


async def test_a_call_that_no_message_takes_is_not_accepted() -> None:
    """It would end as "outcome unknown", after seconds, and so would the calls that were sent in one batch with it."""
    mom = Holding()
    async with narrow(mom, 20_000) as enqueuer:
        too_large = asyncio.create_task(enqueuer.enqueue(task("large", 30_000)))
        others = await asyncio.gather(*(enqueuer.enqueue(task(str(number), 1000)) for number in range(10)))

        assert await too_large is Acceptance.NOT_ACCEPTED
        assert set(others) == {Acceptance.ACCEPTED}


class Echo(ledger_pb2_grpc.LedgerServiceServicer):
    """Answers as it was made to."""

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        return ledger_pb2.RecordResponse(line=request.line)


async def test_small_direct_calls_do_not_wait_for_large_ones() -> None:
    """A small call would wait until all the large ones have gone over the link, and come back."""
    ended: list[str] = []

    async def look(replica: Replica, text: str, name: str) -> None:
        request = ledger_pb2.RecordRequest(line=text).SerializeToString()
        said = await replica.call(OutgoingCall("/testing.v1.LedgerService/Look", request, "id"), 20)
        assert isinstance(said, bytes)
        assert ledger_pb2.RecordResponse.FromString(said).line == text
        ended.append(name)

    async with running_worker(Echo()) as worker, linked(worker.target) as replica, asyncio.TaskGroup() as calls:
        for _ in range(30):
            calls.create_task(look(replica, MEGABYTE, "large"))
        for _ in range(10):
            calls.create_task(look(replica, "small", "small"))

    assert len(ended) == 40
    assert "small" not in ended[20:]


async def test_neither_small_nor_large_calls_keep_the_others_from_the_link() -> None:
    """While small ones never end, a large one would wait for ever; or the other way round."""
    seen = []
    async with grpc.aio.insecure_channel("127.0.0.1:9") as channel:
        link = Link(channel)
        calls = [asyncio.create_task(link.call(OutgoingCall("/a/B", b"x" * 100_000, "id"), 20)) for _ in range(3)]
        for _ in range(6):
            calls.append(asyncio.create_task(link.call(OutgoingCall("/a/B", b"x", "id"), 20)))
            await asyncio.sleep(0)
            seen.append([len(call.request) for call in link._frame().calls])
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)

    assert seen == [[1], [100_000], [1, 1], [100_000], [1, 1], [100_000]]
