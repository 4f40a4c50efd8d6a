"""Channels on real servers: what a call meets on its way, and what is proved by that."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import grpc.aio
from chaos.proxy import Link, Mode
from support.names import serving_names
from support.ports import free_port

from poste.rpc.channels import connect
from poste.rpc.servers import Health, bind, new_server

#: Connections end so often that some call meets the end of nearly every tenth.
AGE_MS = 10
CONNECTIONS = 100
#: Much less than gRPC's own pause between two resolutions of a name, in seconds.
SOON = 15
#: How long a server that is starved of its processor may take for its first bytes, in seconds.
GREETING_SECONDS = 1.5


@contextlib.asynccontextmanager
async def serving(host: str, port: int) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    server = new_server()
    health = Health(server)
    bound = bind(server, host, port)
    await server.start()
    await health.serving()
    try:
        yield server, bound
    finally:
        await server.stop(None)


async def reached(channel: grpc.aio.Channel) -> None:
    async with asyncio.timeout(SOON):
        while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(state)


async def test_a_connection_that_ends_by_its_age_fails_no_call() -> None:
    """A call that never ran would be reported as one that may have: 502 every other minute, without need."""
    ran: Counter[bytes] = Counter()
    connections: set[str] = set()

    async def run(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        ran[request] += 1
        connections.add(context.peer())
        return request

    server = grpc.aio.server(
        options=[("grpc.max_connection_age_ms", AGE_MS), ("grpc.max_connection_age_grace_ms", 60_000)]
    )
    handlers = {"Run": grpc.unary_unary_rpc_method_handler(run)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("aged.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with connect(f"127.0.0.1:{port}", library=False) as channel:
        call = channel.unary_unary("/aged.Service/Run")
        failed = []

        async def client(name: int) -> None:
            number = 0
            while len(connections) < CONNECTIONS:
                number += 1
                try:
                    # Waiting, for between two connections this young there may be none.
                    await call(f"{name} {number}".encode(), timeout=20, wait_for_ready=True)
                except grpc.aio.AioRpcError as error:
                    failed.append(error.details())

        await asyncio.gather(*(client(name) for name in range(8)))
    await server.stop(None)

    assert failed == []
    assert set(ran.values()) == {1}


async def test_a_replica_that_was_moved_is_found_at_its_new_address() -> None:
    """Else nothing is kept or reported for half a minute when the middleware's container is replaced."""
    async with (
        serving("127.0.0.2", 0) as (old, port),
        serving("127.0.0.3", port),
        serving_names("127.0.0.2") as names,
        connect(f"dns://{names.authority}/tasks.mom:{port}", library=True) as channel,
    ):
        await reached(channel)
        names.address = "127.0.0.3"
        await old.stop(None)
        while channel.get_state() is grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)

        await reached(channel)


async def test_a_server_that_is_slow_to_greet_is_reached() -> None:
    """Else a middleware on a host with too much to do stays away: each connection is given up too early."""
    async with serving("127.0.0.1", 0) as (_, port):
        busy = Link("busy", free_port(), port)
        busy.mode, busy.delay_seconds = Mode.DELAY, GREETING_SECONDS
        await busy.open()
        async with connect(f"127.0.0.1:{busy.port}", library=False) as channel:
            await reached(channel)
        await busy.close()
