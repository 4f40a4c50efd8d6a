"""A channel to all replicas of one server, some of which hang or are late."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.ports import free_port

from poste.rpc import channels
from poste.rpc.replicated import Replicated
from poste.rpc.servers import bind, new_server


class Server(health_pb2_grpc.HealthServicer):
    """Answers with its name, or sends it and no end, unless it hangs."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.port = 0
        self.asked = 0
        self.awake = asyncio.Event()
        self.awake.set()

    async def Check(self, *_: object) -> health_pb2.HealthCheckResponse:  # noqa: N802 - gRPC's name
        await self.awake.wait()
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def Watch(self, *_: object) -> AsyncIterator[health_pb2.HealthCheckResponse]:  # noqa: N802 - the same
        yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        await asyncio.Event().wait()

    async def tell(self, _: bytes, __: object) -> bytes:
        self.asked += 1
        await self.awake.wait()
        return self.name

    async def tell_for_ever(self, _: bytes, __: object) -> AsyncIterator[bytes]:
        yield self.name
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def serving(*servers: Server) -> AsyncIterator[Replicated]:
    async with contextlib.AsyncExitStack() as stack:
        for one in servers:
            served = new_server()
            health_pb2_grpc.add_HealthServicer_to_server(one, served)
            handlers = {
                "Tell": grpc.unary_unary_rpc_method_handler(one.tell),
                "TellForEver": grpc.unary_stream_rpc_method_handler(one.tell_for_ever),
            }
            served.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Teller", handlers),))
            one.port = bind(served, "127.0.0.1", 0)
            await served.start()
            stack.push_async_callback(served.stop, None)
        yield await stack.enter_async_context(
            connected("ipv4:" + ",".join(f"127.0.0.1:{one.port}" for one in servers), replicas=len(servers))
        )


@contextlib.asynccontextmanager
async def connected(target: str, *, replicas: int) -> AsyncIterator[Replicated]:
    async with Replicated(target) as channel:
        running = asyncio.create_task(channel.run())
        try:
            names: set[bytes] = set()
            while len(names) < replicas:
                names.add(await channel.unary_unary("/Teller/Tell")(b"", timeout=20, wait_for_ready=True))
            yield channel
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_replica_that_hangs_is_left_within_1_5_seconds():
    """Every second call would wait for its deadline for as long as one replica of the middleware hangs."""
    hung, well = Server(b"hung"), Server(b"well")
    async with serving(hung, well) as channel:
        tell = channel.unary_unary("/Teller/Tell")
        hung.awake.clear()
        asked = hung.asked
        begin = time.monotonic()
        answers = await asyncio.gather(*(tell(b"", timeout=20) for _ in range(4)), return_exceptions=True)
        took = time.monotonic() - begin
        asked = hung.asked - asked
        later = [await tell(b"", timeout=20) for _ in range(4)]

        lost = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert [answer for answer in answers if answer not in lost] == [b"well"] * (4 - asked)
        assert [channels.code(error).name for error in lost] == ["UNAVAILABLE"] * asked
        # It was asked: it may have done it.
        assert not any(channels.proves_not_run(error) for error in lost)
        assert took < 2 * 1.5
        assert later == [b"well"] * 4

        hung.awake.set()
        async with asyncio.timeout(20):
            while await tell(b"", timeout=20) != b"hung":
                pass


async def test_a_stream_moves_to_a_replica_that_lives():
    """A gateway would hear nothing of the catalogue for as long as the middleware that it heard of it from hangs."""
    one, other = Server(b"one"), Server(b"other")
    async with serving(one, other) as channel:
        stream = channel.unary_stream("/Teller/TellForEver")(b"")
        first = await anext(stream)
        (one if first == b"one" else other).awake.clear()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(stream)

    assert channels.code(caught.value).name == "UNAVAILABLE"


async def test_what_the_only_replica_was_asked_goes_on_while_it_is_silent():
    """A middleware that is late would be asked everything again: later still, and never done."""
    late = Server(b"late")
    async with serving(late) as channel:
        tell = channel.unary_unary("/Teller/Tell")
        late.awake.clear()
        asked = late.asked
        answer = asyncio.ensure_future(tell(b"", timeout=20))
        # Longer than it takes to be found silent.
        await asyncio.wait([answer], timeout=2)
        late.awake.set()

        assert await answer == b"late"
        assert late.asked == asked + 1


async def test_what_reached_no_replica_is_proved_not_run():
    """A call that was never sent would be reported as one that may be kept."""
    async with connected(f"127.0.0.1:{free_port()}", replicas=0) as channel:
        tell = channel.unary_unary("/Teller/Tell")
        refused, waited = await asyncio.gather(
            tell(b"", timeout=0.1, wait_for_ready=False),
            tell(b"", timeout=0.1, wait_for_ready=True),
            return_exceptions=True,
        )

    assert isinstance(refused, grpc.aio.AioRpcError)
    assert isinstance(waited, grpc.aio.AioRpcError)
    assert channels.proves_not_run(refused)
    assert channels.proves_not_run(waited)
    assert channels.code(waited).name == "DEADLINE_EXCEEDED"
