"""No client takes all that a gateway has, whether it leaves answers unread, brings bodies slowly, or stays idle."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import resource
import socket
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from support import memory, shop
from support.bystander import bystander
from support.gateway import answer, staged
from support.gateway_process import QUOTE, GatewayProcess, gateway_process
from support.shop import Receipt
from support.waiting import until

from poste.runtime import metrics
from poste.runtime.log_throttle import LogThrottle
from poste_gateway.http.responses import Response, json_response
from poste_gateway.http.server import serving
from poste_gateway.limits.budgets import Budget
from poste_gateway.limits.capacity import Capacity

MEGABYTE = 1 << 20
LARGE = 4 * MEGABYTE
CALL = b"POST /v1/quotes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SMALL = CALL + b"Content-Length: 2\r\n\r\n{}"
HASTY: dict[str, Any] = {"write_seconds": 0.5, "head_seconds": 5, "body_seconds": 5}


async def large(request: Any, _: Any) -> Any:
    """Answer 4 MB to who says so."""
    return Receipt(number=7, note="x" * LARGE if request.a_string == "large" else "")


@contextlib.asynccontextmanager
async def connections(
    port: int, count: int, *, window: int | None = None, source: str = "127.0.0.1"
) -> AsyncIterator[list[socket.socket]]:
    """Open so many, with a small receive window if one is given."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            if window is not None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            one.bind((source, 0))
            one.setblocking(False)
            opened.append(one)
        for begin in range(0, count, 100):
            await asyncio.gather(*(loop.sock_connect(one, ("127.0.0.1", port)) for one in opened[begin : begin + 100]))
        yield opened


async def figure(gateway: GatewayProcess, name: str) -> float:
    """Read a figure of the gateway's metrics."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.part.admin_port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def _none_in_flight(gateway: GatewayProcess) -> bool:
    return await figure(gateway, f'poste_calls_in_flight{{service="{shop.NAME}"}}') == 0


async def ended(one: socket.socket) -> bytes:
    """Read what comes until the gateway ends the connection."""
    loop, came = asyncio.get_running_loop(), b""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            while part := await loop.sock_recv(one, 65536):
                came += part
    return came


async def test_answers_that_nobody_reads_are_bounded_and_ended(tmp_path: Path) -> None:
    """A hundred clients that read nothing of 4 MB each held 900 MB, for as long as they liked."""
    body = b'{"aString": "large"}'
    call = CALL + b"Prefer: no-queue\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with (
        # The last of the connections waits for its call until the answers to all others were read, in turns.
        gateway_process(tmp_path, large, **HASTY | {"head_seconds": 60}) as gateway,
        bystander(gateway.url, QUOTE, {}, {"number": "7", "total": 0, "note": ""}) as others,
        connections(gateway.part.port, 100, window=4096) as unread,
    ):
        # Not all at once: what a service without the library sends at one time is gRPC's, until it is read.
        for begin in range(0, len(unread), 10):
            for one in unread[begin : begin + 10]:
                await asyncio.get_running_loop().sock_sendall(one, call)
            await until(lambda: _none_in_flight(gateway), what="the answers")

        async def all_told() -> bool:
            cut = await figure(gateway, 'poste_connections_cut_total{reason="unread"}')
            return cut + await figure(gateway, 'poste_refused_total{reason="answers"}') >= 100

        await until(all_told, seconds=30, what="the end of all of them")
        await others.calls(10)

        assert await figure(gateway, 'poste_refused_total{reason="answers"}') > 0
        assert await figure(gateway, 'poste_connections_cut_total{reason="unread"}') > 3
        assert await figure(gateway, "poste_unsent_bytes") == 0
        memory.within(gateway.part, 256)
    others.unharmed()
    assert '"reason":"answers"' in gateway.part.log
    assert '"reason":"unread"' in gateway.part.log


async def test_who_reads_slowly_has_the_whole_answer(tmp_path: Path) -> None:
    """A limit for the whole of an answer would cut off a client on a slow line, or one that is busy for a moment."""
    body = b'{"aString": "large"}'
    loop = asyncio.get_running_loop()
    async with gateway_process(tmp_path, large, **HASTY) as gateway, connections(gateway.part.port, 1) as (one,):
        await loop.sock_sendall(one, CALL + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        begin, came = loop.time(), 0
        while part := await loop.sock_recv(one, 64 * 1024):
            came += len(part)
            if loop.time() - begin < 4 * HASTY["write_seconds"]:
                await asyncio.sleep(0.05)

    assert came > LARGE


async def test_bodies_that_come_slowly_are_bounded_and_ended(tmp_path: Path) -> None:
    """Three hundred bodies of a megabyte without their last byte held 640 MB."""
    sent = CALL + b"Content-Length: %d\r\n\r\n%s" % (MEGABYTE, b" " * (MEGABYTE - 1))
    loop = asyncio.get_running_loop()
    async with (
        gateway_process(tmp_path, answer, body_seconds=3) as gateway,
        bystander(gateway.url, QUOTE, {}, {"number": "7", "total": 0, "note": ""}) as others,
        connections(gateway.part.port, 300) as slow,
    ):

        async def send(one: socket.socket) -> bytes:
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(one, sent)
            return await ended(one)

        said = await asyncio.gather(*map(send, slow))
        await others.calls(10)

        statuses = [one.split(b" ", 2)[1] if one else b"" for one in said]
        assert set(statuses) <= {b"503", b"408"}
        assert statuses.count(b"503") > 200
        assert statuses.count(b"408") > 10
        refused = next(one for one in said if b" 503 " in one)
        assert b"\r\nRetry-After: 1\r\n" in refused
        assert b"/problems/gateway-busy" in refused
        assert await figure(gateway, 'poste_refused_total{reason="bodies"}') == statuses.count(b"503")
        assert await figure(gateway, "poste_received_bytes") == 0
        memory.within(gateway.part, 256)
    others.unharmed()
    assert gateway.part.log.count('"reason":"bodies"') < 20


async def test_two_thousand_that_are_idle_take_nobody_the_door(tmp_path: Path) -> None:
    """Idle connections lived for an hour, and at 1,024 of them every other client was reset without a word."""
    async with (
        gateway_process(tmp_path, answer, max_connections=1500, idle_seconds=2) as gateway,
        bystander(gateway.url, QUOTE, {}, {"number": "7", "total": 0, "note": ""}) as others,
        connections(gateway.part.port, 2000) as idle,
    ):
        await others.calls(20)

        assert await figure(gateway, "poste_connections") <= 1500
        assert await figure(gateway, 'poste_connections_cut_total{reason="crowded"}') >= 500
        memory.within(gateway.part, 256)
        for one in idle:
            await ended(one)
        await others.calls(10)
    others.unharmed()
    assert '"reason":"crowded"' in gateway.part.log


async def test_more_connections_than_descriptors_do_no_harm(tmp_path: Path) -> None:
    """When descriptors run out new connections are reset, and what the gateway itself opens fails."""
    async with (
        gateway_process(tmp_path, answer, descriptors=200) as gateway,
        bystander(gateway.url, QUOTE, {}, {"number": "7", "total": 0, "note": ""}) as others,
        connections(gateway.part.port, 400),
    ):
        await others.calls(20)
        assert memory.descriptors(gateway.part.process.pid) < 200
        assert await figure(gateway, 'poste_refused_total{reason="descriptors"}') == 0
    others.unharmed()


async def test_who_comes_while_there_is_no_descriptor_is_let_in_later(tmp_path: Path) -> None:
    """New connections were reset without a word, or the gateway tried to accept them again and again at once."""
    loop = asyncio.get_running_loop()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    refused = metrics.refused_total.labels("descriptors")._value
    async with staged(tmp_path, answer) as stage:
        with socket.socket() as one:
            one.setblocking(False)
            # All that there are below some number are taken.
            taken = [os.dup(one.fileno()) for _ in range(20)]
            before = refused.get()
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, hard))
            try:
                await loop.sock_connect(one, ("127.0.0.1", stage.gateway.port))
                await loop.sock_sendall(one, SMALL)
                await until(lambda: refused.get() > before)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for number in taken:
                    os.close(number)
            assert (await answered(one)).split()[1] == b"200"
    assert refused.get() <= before + 20


async def test_one_client_has_its_share_of_the_connections_and_is_told(tmp_path: Path) -> None:
    """One client with many connections under way would leave no other a connection."""
    loop = asyncio.get_running_loop()
    async with gateway_process(tmp_path, answer, max_peer_connections=3, trusted_proxies="127.0.0.1/32") as gateway:
        async with connections(gateway.part.port, 6, source="127.0.0.2") as held:
            for one in held:
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(one, SMALL)
            said = [await answered(one) for one in held]
            assert [one.split()[1] for one in said] == [b"200"] * 3 + [b"503"] * 3
            assert b"\r\nRetry-After: 1\r\n" in said[-1]
            assert b"/problems/gateway-busy" in said[-1]
            # Another has its own share, and a proxy none.
            async with connections(gateway.part.port, 3, source="127.0.0.3"), connections(gateway.part.port, 5):
                await loop.sock_sendall(held[0], SMALL)
                assert (await answered(held[0])).split()[1] == b"200"
        assert await figure(gateway, 'poste_refused_total{reason="peer-connections"}') == 3
        async with connections(gateway.part.port, 1, source="127.0.0.2") as (again,):
            await loop.sock_sendall(again, SMALL)
            assert (await answered(again)).split()[1] == b"200"


async def test_heads_that_do_not_end_are_refused(tmp_path: Path) -> None:
    """A head may have a megabyte for aiohttp, whose limits are each line's alone."""
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    loop = asyncio.get_running_loop()
    async with staged(tmp_path) as stage, connections(stage.gateway.port, 1) as (one,):
        await loop.sock_sendall(one, head)
        with contextlib.suppress(ConnectionError):
            for number in range(20):
                await loop.sock_sendall(one, b"X-%d: %s\r\n" % (number, b"x" * 8000))
                await asyncio.sleep(0)
        assert (await answered(one)).split()[1] == b"431"


async def test_what_waits_behind_a_call_on_its_connection_is_bounded(tmp_path: Path) -> None:
    """Who sends requests without waiting for answers had a megabyte of them held for each connection, uncounted."""
    gate = asyncio.Event()

    async def held(request: Any, context: Any) -> Any:
        await gate.wait()
        return await answer(request, context)

    loop = asyncio.get_running_loop()
    long = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: %s\r\n\r\n" % (b"x" * 8000)
    async with staged(tmp_path, held, max_received_bytes=MEGABYTE) as stage:
        async with connections(stage.gateway.port, 30) as crowd:
            for one in crowd:
                await loop.sock_sendall(one, SMALL + long * 12)
            await until(lambda: len(stage.shops[0].ran) >= 5)
            gate.set()
            said = [await answered(one) for one in crowd]
        # Each that was begun is answered; the ones behind it only where there was room.
        assert {one.split()[1] for one in said if one} <= {b"200", b"503"}
        assert (await stage.gateway.post("/v1/quotes", {})).status == 200


async def answered(one: socket.socket) -> bytes:
    """Read the beginning of what is said on a connection."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            return await asyncio.get_running_loop().sock_recv(one, 65536)
    return b""


def test_a_budget_is_for_all_and_has_a_share_for_each() -> None:
    """One client would take what there is for all."""
    budget = Budget(100, 50)
    assert budget.take("a", 50)
    assert not budget.take("a", 1)
    assert budget.take("b", 50)
    assert not budget.take("c", 1)
    assert not budget.take("", 1)
    budget.give("a", 50)
    # Who has no share of its own has what there is.
    assert budget.take("", 50)
    budget.give("b", 50)
    budget.give("", 50)
    assert budget.held == 0
    # What is alone has all the room it needs, in one piece or in several.
    assert budget.take("a", 500)
    assert budget.take("a", 500, beside=500)
    assert not budget.take("b", 1)


def test_a_client_that_is_refused_often_does_not_fill_the_log() -> None:
    """A line for each refusal makes the log what one client attacks."""
    lines: list[dict[str, Any]] = []
    log = SimpleNamespace(warning=lambda event, **facts: lines.append({"event": event, **facts}))
    seldom = LogThrottle(log, "warning")
    for _ in range(1000):
        seldom.write("busy", "bodies", peer="a")
    seldom.write("busy", "answers", peer="a")
    assert [line["reason"] for line in lines] == ["bodies", "answers"]
    lines.clear()
    often = LogThrottle(log, "warning", period_seconds=0)
    for throttle in (seldom, often):
        for number in (3, 4):
            throttle.write_sum("calls refused", counted="calls", number=number, queue="a", reason="full")
    assert [line["calls"] for line in lines] == [3, 3, 4]


class Held:
    """What a handler holds while it reads a body."""


@pytest.mark.parametrize("end", ["refused", "gone"])
async def test_nothing_of_a_body_that_failed_is_held_in_a_circle(end: str) -> None:
    """The collector seldom runs: a hundred refused bodies of a megabyte were a hundred megabytes, and grew."""
    held: list[weakref.ref[Held]] = []

    async def handle(request: web.BaseRequest) -> Response:
        mine = Held()
        held.append(weakref.ref(mine))
        try:
            await request.read()
        except Exception:  # noqa: BLE001 - whatever it is, it has ended
            return json_response({"failed": True})
        return json_response({})

    capacity = Capacity(max_received_bytes=64 * 1024)
    gc.collect()
    gc.disable()
    try:
        async with serving(handle, "127.0.0.1", 0, max_body_bytes=MEGABYTE, grace_seconds=1, capacity=capacity) as port:
            assert capacity.received.take("other", 8 * 1024)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(CALL + b"Content-Length: 200000\r\n\r\n" + b" " * 4096)
            await until(lambda: held)
            if end == "refused":
                writer.write(b" " * 100_000)
                assert b"failed" in await reader.read()
            writer.close()
            del reader, writer
            await until(lambda: capacity.connections == 0)
            await until(lambda: held[0]() is None)
    finally:
        gc.enable()
