"""One client's connections, however many and whatever they bring, are not all served before another's one."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from poste_gateway.http.responses import Response, json_response
from poste_gateway.http.server import serving
from poste_gateway.limits.capacity import Capacity
from poste_gateway.limits.inflow import PART_BYTES, Inflow

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
CROWD, STRANGER = "127.0.0.2", "127.0.0.3"


class Source:
    """A connection that notes when it is read."""

    def __init__(self, peer: str, read: list[str]) -> None:
        self.peer, self.waiting, self.is_empty = peer, bytearray(), False
        self.aborted = False
        self._read = read

    def take(self, _: bytes) -> None:
        self._read.append(self.peer)

    def emptied(self) -> None:
        self.is_empty = True

    def abort(self) -> None:
        self.aborted = True


class Failing(Source):
    """One whose bytes can't be read."""

    def take(self, data: bytes, /) -> None:
        super().take(data)
        raise ValueError(data)


async def turns(count: int) -> None:
    """Let the event loop turn so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_one_turn_of_the_loop_can_not_take_is_read_from_each_client_in_its_turn() -> None:
    """A thousand requests of one client would all be answered before the one of another that came last."""
    inflow, read = Inflow(asyncio.get_running_loop()), []
    crowd = [Source(CROWD, read) for _ in range(1000)]
    at_once = [inflow.now(one, GET) for one in crowd]
    stranger = Source(STRANGER, read)
    await turns(2)
    stranger_at_once = inflow.now(stranger, GET)
    before = len(read)
    await turns(2)

    assert 0 < sum(at_once) < 100
    assert at_once == sorted(at_once, reverse=True)
    assert not stranger_at_once
    assert STRANGER in read[: before + 3]
    assert stranger.is_empty
    await turns(60)
    assert read.count(CROWD) == at_once.count(False)
    assert not any(one.waiting for one in crowd)


async def test_one_that_fails_in_its_turn_ends_alone() -> None:
    """No connection would be read any more, neither those that wait nor later ones, as long as the gateway lives."""
    inflow, read = Inflow(asyncio.get_running_loop()), []
    large = b" " * (PART_BYTES + 1)
    failing, sound = Failing(CROWD, read), Source(CROWD, read)
    assert not inflow.now(failing, large)
    assert not inflow.now(sound, large)
    await turns(10)

    assert (failing.aborted, sound.aborted) == (True, False)
    assert read == [CROWD] * 3
    assert not failing.waiting
    assert inflow.now(Source(STRANGER, read), GET)


async def test_a_loop_that_is_not_crowded_reads_at_once() -> None:
    """Every request would wait for a turn of the loop."""
    inflow = Inflow(asyncio.get_running_loop())
    at_once = []
    for _ in range(1000):
        at_once.append(inflow.now(Source(CROWD, []), GET))
        await turns(2)

    assert all(at_once)


async def test_what_comes_in_many_lines_is_read_by_and_by() -> None:
    """A quarter of a megabyte in chunks of two bytes would hold the loop for 50 ms, on each connection."""
    read: list[str] = []
    source = Source(CROWD, read)
    chunks = b"2\r\n  \r\n" * 30_000

    assert not Inflow(asyncio.get_running_loop()).now(source, chunks)
    await turns(2)
    assert 0 < len(read) <= 20
    await turns(100)
    assert len(read) == -(-len(chunks) // PART_BYTES)
    assert source.is_empty


@contextlib.asynccontextmanager
async def served(
    handle: Callable[[web.BaseRequest], Awaitable[Response]], capacity: Capacity | None = None
) -> AsyncIterator[Callable[[str], socket.socket]]:
    """Serve; yields what connects from an address."""
    with contextlib.ExitStack() as stack:
        async with serving(handle, "127.0.0.1", 0, max_body_bytes=1 << 20, grace_seconds=1, capacity=capacity) as port:

            def connected(source: str) -> socket.socket:
                one = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10, (source, 0)))
                one.setblocking(False)
                return one

            yield connected


async def answered(one: socket.socket) -> bytes:
    """Read until an answer has begun."""
    async with asyncio.timeout(20):
        return await asyncio.get_running_loop().sock_recv(one, 65536)


async def test_a_client_that_comes_last_is_not_answered_last() -> None:
    """A client with many connections would have the gateway for itself."""
    served_to: list[str] = []

    async def handle(request: web.BaseRequest) -> Response:
        served_to.append(str(request.remote))
        return json_response({})

    async with served(handle, Capacity()) as connected:
        crowd = [connected(CROWD) for _ in range(300)]
        stranger = connected(STRANGER)
        await asyncio.gather(*(warm(one) for one in [*crowd, stranger]))
        served_to.clear()
        # All of it has arrived before the loop reads.
        for one in [*crowd, stranger]:
            one.send(GET)
        await asyncio.gather(*(answered(one) for one in [*crowd, stranger]))

    assert len(served_to) == 301
    assert served_to.index(STRANGER) < 150


async def warm(one: socket.socket) -> None:
    one.send(GET)
    await answered(one)


async def test_others_have_their_turns_while_a_body_comes_in_tiny_chunks() -> None:
    """Sixteen such bodies had all others wait for 0.6 s."""

    async def handle(request: web.BaseRequest) -> Response:
        return json_response({"bytes": len(await request.read())})

    async with served(handle) as connected:
        one = connected(CROWD)
        body = POST + b"9\r\n123456789\r\n" * 30_000 + b"0\r\n\r\n"
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(one, body))
        reading, passed = asyncio.create_task(answered(one)), 0
        while not reading.done():
            await asyncio.sleep(0)
            passed += 1
        await sending

    assert b"270000" in reading.result()
    assert passed > len(body) // PART_BYTES // 10


async def test_what_waits_for_its_turn_is_counted_and_given_back() -> None:
    """A thousand connections with a quarter of a megabyte each would wait in a gateway of 256 MB."""
    capacity = Capacity(trusted=[ipaddress.ip_network("127.0.0.1/32")])
    held: list[int] = []

    async def handle(request: web.BaseRequest) -> Response:
        held.append(capacity.received.held)
        return json_response({"bytes": len(await request.read())})

    async with served(handle, capacity) as connected:
        several: list[Any] = [connected(CROWD) for _ in range(4)]
        body = b"Content-Length: 200000\r\n\r\n" + b" " * 200_000
        for one in several:
            one.setblocking(True)
            await asyncio.to_thread(one.sendall, GET[:-2].replace(b"GET", b"POST") + body)
            one.setblocking(False)
        answers = await asyncio.gather(*(answered(one) for one in several))

    assert all(b"200000" in one for one in answers)
    assert max(held) > 0
    assert capacity.received.held == 0
