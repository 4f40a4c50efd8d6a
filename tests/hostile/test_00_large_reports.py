"""A middleware takes in what its peers send in turns: what they send at once it need not have at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from support.deployment import LEDGER, SUM, Deployment, deployed
from support.standing import standing

from poste.v1 import mom_service_pb2 as pb
from poste.v1 import mom_service_pb2_grpc

_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


@contextlib.asynccontextmanager
async def _stubs(one: Deployment, count: int) -> AsyncIterator[list[Any]]:
    async with contextlib.AsyncExitStack() as stack:
        address = f"127.0.0.1:{one.moms[0].port}"
        channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(count)]
        yield [mom_service_pb2_grpc.MomServiceStub(await stack.enter_async_context(one)) for one in channels]


async def test_a_dozen_peers_report_large_results_at_once(tmp_path: Path) -> None:
    """Each message was there four times over, and each peer's beside the others': a gigabyte."""
    report = pb.Completion(service=LEDGER, key="a" * 16, token="b" * 16 + ":1", response=bytes(12_000_000))
    message = pb.CompleteTasksRequest(completions=[report])
    async with deployed(tmp_path, SUM) as one, standing(one) as attack, _stubs(one, 12) as stubs:
        answers = await asyncio.gather(*(stub.CompleteTasks(message, timeout=60) for stub in stubs))
        assert [list(answer.results) for answer in answers] == [[pb.COMPLETE_RESULT_REFUSED]] * len(stubs)
        await attack.others.calls(10)


async def test_peers_whose_messages_never_come_whole_hold_nobody_up(tmp_path: Path) -> None:
    """A turn that is waited for as long as its peer likes holds up all that come after it."""
    async with deployed(tmp_path, SUM) as one, standing(one) as attack, _stubs(one, 1) as (good,):
        gate = asyncio.Event()

        async def never() -> AsyncIterator[bytes]:
            await gate.wait()
            yield b""

        channel = grpc.aio.insecure_channel(f"127.0.0.1:{one.moms[0].port}", options=_OPTIONS)
        enqueue: Any = channel.stream_unary("/poste.v1.MomService/EnqueueTasks")
        calls = [enqueue(never()) for _ in range(8)]
        answer = await good.ListQueues(pb.ListQueuesRequest(), timeout=20)
        assert answer.queues
        codes = Counter([await call.code() for call in calls])
        assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED: len(calls)}
        gate.set()
        await channel.close()
        await attack.others.calls(10)


async def test_so_many_gateways_follow_the_catalogue_and_no_more(tmp_path: Path) -> None:
    """Each stream costs what a hundred questions do, for as long as it is open."""
    async with deployed(tmp_path, SUM) as one, standing(one) as attack, _stubs(one, 9) as stubs:
        streams = [stubs[number % 9].WatchCatalogue(pb.WatchCatalogueRequest()) for number in range(400)]
        seen = await asyncio.gather(*(stream.read() for stream in streams), return_exceptions=True)
        refused = [error.code() for error in seen if isinstance(error, grpc.aio.AioRpcError)]
        assert set(refused) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        # The gateway's own is one of those that stand.
        assert len(refused) == 400 - 255
        for stream in streams:
            stream.cancel()
        await attack.others.calls(10)
