"""What clients send that are no proper clients."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support import shop
from support.gateway import answer, staged

BODY = b"Content-Type: application/json\r\n"
LOOK = b"HEAD /v1/services HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/quotes HTTP/1.1\r\nHost: localhost\r\n" + BODY


async def exchange(port: int, sent: bytes) -> bytes:
    """Send bytes; returns the head of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (POST + b"Content-Length: 2\r\n\r\n{}", 200),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200),
        (POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", 100),
        (POST + b"Expect: miracles\r\nContent-Length: 2\r\n\r\n{}", 200),
        (POST + b"Content-Length: 99999999999\r\n\r\n{}", 413),
        (POST + b"Content-Length: 0\r\n\r\n", 200),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET http://other/v1/services HTTP/1.1\r\nHost: other\r\n\r\n", 421),
        (b"GET /v1/tasks/%ff%00%2f HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /v1/tasks/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"POST /\xed\xa0\x80 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 400),
        (b"GET /v1/tasks/\xc3\xa4?\xff=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v1/services HTTP/1.1\r\nHost: \xff\r\n\r\n", 421),
        (b"GET /v1/services HTTP/1.1\r\nHost: localhost\r\nOrigin: \xff\r\n\r\n", 403),
        (b"CONNECT /v1/quotes HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET /v1/quotes HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", 405),
        (b"CONNECT other:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 302),
        (b"FROB / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 20_000), 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"x" * 20_000), 431),
        (POST + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (
            b"POST /v1/quotes HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=\xff\r\n"
            + BODY
            + b"Content-Length: 2\r\n\r\n{}",
            200,
        ),
        (
            b"POST /v1/quotes HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: \xff\xfe\r\n"
            + BODY
            + b"Content-Length: 2\r\n\r\n{}",
            200,
        ),
        (
            b"POST /v1/quotes HTTP/1.1\r\nHost: localhost\r\nContent-Type: \xff;;\x80\r\nContent-Length: 2\r\n\r\n{}",
            415,
        ),
    ],
)
async def test_nothing_that_a_client_sends_breaks_the_gateway(tmp_path, sent, status):
    """Else one odd client is a 500 for itself, or worse for others."""
    async with staged(tmp_path, answer, cors_origins="https://a.example") as stage:
        reply = await exchange(stage.gateway.port, sent)

        assert reply.split()[1] == b"%d" % status, reply[:300]
        assert b"Traceback" not in reply
        assert b"aiohttp" not in reply
        assert reply.count(b"X-Content-Type-Options: nosniff") == (reply.split()[1] != b"100")
        assert reply.split()[1] < b"400" or b"Content-Type: application/problem+json" in reply, reply[:300]
        assert (await stage.gateway.post("/v1/quotes", {})).status == 200


async def test_a_body_that_breaks_off_runs_nothing(tmp_path):
    """Else half a request is run."""
    async with staged(tmp_path, answer) as stage:
        for sent in (POST + b"Content-Length: 20\r\n\r\n{}", POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
            writer.write(sent)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 15)
            writer.close()

        assert stage.shops[0].ran == []
        assert stage.mom.tasks == {}
        assert (await stage.gateway.get("/v1/services")).body["services"][0]["name"] == shop.NAME


async def test_a_path_with_a_line_break_is_a_problem_like_any_other(tmp_path):
    """Else some paths get a page that is not ours, without a request id."""
    async with staged(tmp_path, answer) as stage:
        reply = await exchange(stage.gateway.port, b"GET /v1/tasks/x%0Ay HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert reply.split()[1] == b"404"
    assert b"application/problem+json" in reply


@pytest.mark.parametrize("path", ["/v1/queues/x/pause", "/v1/tasks/x/replay", "/ui/events"])
async def test_a_token_that_is_no_text_is_a_wrong_one(tmp_path, path):
    """Else any client can have the gateway fail, and fill its log."""
    verb = b"GET" if path == "/ui/events" else b"POST"
    async with staged(tmp_path, answer) as stage:
        head = b"%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n\r\n" % (verb, path.encode())
        said = await exchange(stage.gateway.port, head)

    assert said.startswith(b"HTTP/1.1 401 ")


async def test_an_origin_that_is_no_text_is_not_sent_back(tmp_path):
    """Else the answer can't be written, and the client gets none."""
    async with staged(tmp_path, answer, cors_origins="*") as stage:
        said = await exchange(
            stage.gateway.port, b"GET /v1/services HTTP/1.1\r\nHost: localhost\r\nOrigin: \xff\r\n\r\n"
        )

    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"Access-Control-Allow-Origin" not in said


async def closed(reader: asyncio.StreamReader) -> bytes:
    """Wait until the gateway has closed a connection; returns what else it said. Shorter than aiohttp's lingering."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 8)
    return b""


async def drip(writer: asyncio.StreamWriter) -> None:
    """Send a head that never ends, a byte at a time."""
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("before", "sent", "dripping"),
    [
        (b"", b"", False),
        (b"", b"GET /v1/ser", False),
        (b"", b"GET /", True),
        (LOOK, b"G", False),
        (LOOK, b"GET /v1/services HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", True),
    ],
)
async def test_a_head_that_does_not_come_whole_ends_its_connection(tmp_path, before, sent, dripping):
    """Else a client that opens many connections and sends little on them has all that the gateway can hold."""
    async with staged(tmp_path, head_seconds=0.3) as stage, asyncio.TaskGroup() as group:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        if before:
            writer.write(before)
            assert (await reader.readuntil(b"\r\n\r\n")).split()[1] == b"200"
        writer.write(sent)
        dripper = group.create_task(drip(writer)) if dripping else None

        assert await closed(reader) == b""

        if dripper is not None:
            dripper.cancel()
        writer.close()


async def test_what_is_idle_or_under_way_is_not_ended_with_those_that_are_late(tmp_path):
    """Else a long call, a stream or a client's pool is cut off."""
    gate = asyncio.Event()

    async def held(request, context):
        await gate.wait()
        return await answer(request, context)

    async with staged(tmp_path, held, head_seconds=0.3) as stage:
        connect = [asyncio.open_connection("127.0.0.1", stage.gateway.port) for _ in range(3)]
        idle, called, streamed = [await one for one in connect]
        idle[1].write(LOOK)
        await idle[0].readuntil(b"\r\n\r\n")
        called[1].write(POST + b"Content-Length: 2\r\n\r\n{}")
        streamed[1].write(b"GET /ui/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await streamed[0].readuntil(b"\r\n\r\n")).split()[1] == b"200"
        # Two that come later are late: the others were passed over each time.
        for _ in range(2):
            late, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
            assert await closed(late) == b""
            writer.close()
        gate.set()
        idle[1].write(LOOK)

        assert (await idle[0].readuntil(b"\r\n\r\n")).split()[1] == b"200"
        assert (await called[0].readuntil(b"\r\n\r\n")).split()[1] == b"200"
        assert not streamed[0].at_eof()
        for _, writer in (idle, called, streamed):
            writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 20\r\n\r\n{}",
        b"Content-Length: 2\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    ],
)
async def test_a_body_that_does_not_come_is_a_408_and_runs_nothing(tmp_path, sent):
    """Else a client that brings half a request holds its connection, or half a request is run."""
    async with staged(tmp_path, answer, body_seconds=0.3) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        writer.write(POST + sent)
        if b"Expect" in sent:
            assert (await reader.readuntil(b"\r\n\r\n")).split()[1] == b"100"
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
        # The rest comes too late, with what looks like another request in it.
        writer.write(b"{}" + POST + b"Content-Length: 2\r\n\r\n{}")
        body = await closed(reader)
        writer.close()

        assert head.split()[1] == b"408", head
        assert b"application/problem+json" in head
        assert b"Connection: close\r\n" in head
        assert b"/problems/request-timeout" in body
        assert b"HTTP/1.1" not in body
        assert stage.shops[0].ran == []
        assert stage.mom.tasks == {}
        assert (await stage.gateway.post("/v1/quotes", {})).status == 200


async def test_a_body_that_takes_its_time_is_a_call_like_any_other(tmp_path):
    """Else a slow line is refused."""
    async with staged(tmp_path, answer) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
        for byte in (b"{", b"}"):
            await asyncio.sleep(0.05)
            writer.write(byte)

        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)).split()[1] == b"200"
        writer.close()
