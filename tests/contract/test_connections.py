"""One connection and its many requests: each is answered in its turn, and what is left of one never reaches another."""

from __future__ import annotations

import asyncio
import json

import pytest
from support.gateway import answer, staged

LOOK = b"GET /v1/services HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/quotes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


async def read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one answer; returns its status and its body."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
    return int(head.split()[1]), await reader.readexactly(int(lines[b"Content-Length"]))


async def test_requests_that_are_sent_at_once_are_answered_in_their_order(tmp_path):
    """Else a client that does not wait for its answers takes one for another's, or waits for ever."""
    async with staged(tmp_path) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        writer.write(b"".join(b"GET /nothing/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(200)))
        answers = [await read(reader) for _ in range(200)]
        writer.close()

    assert [status for status, _ in answers] == [404] * 200
    assert [json.loads(body)["instance"] for _, body in answers] == [f"/nothing/{number}" for number in range(200)]


async def test_a_body_larger_than_what_is_read_at_once_comes_whole(tmp_path):
    """Else reading stops where it was paused, and the client waits for its answer until it gives up."""
    note = "x" * 1_000_000
    body = json.dumps({"aString": note}).encode()
    async with staged(tmp_path, answer) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        for _ in range(2):
            writer.write(POST % len(body) + body)
            status, answered = await read(reader)

            assert status == 200
            assert json.loads(answered)["note"] == note
        writer.close()


@pytest.mark.parametrize("size", [10, 700_000])
async def test_what_is_left_of_a_body_that_nobody_reads_is_passed_over(tmp_path, size):
    """Else it is read as the next request, or the next one is never read."""
    async with staged(tmp_path) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        writer.write(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
        assert (await read(reader))[0] == 404
        writer.write(b"x" * size + LOOK)

        assert (await read(reader))[0] == 200
        writer.close()


async def test_an_upgrade_that_is_declined_leaves_the_connection_as_it_was(tmp_path):
    """Else clients that offer another protocol first wait for ever."""
    async with staged(tmp_path) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        writer.write(
            b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n" + LOOK
        )

        assert [(await read(reader))[0] for _ in range(2)] == [404, 200]
        writer.write(LOOK)
        assert (await read(reader))[0] == 200
        writer.close()


async def test_a_request_whose_client_is_gone_before_its_turn_runs_nothing(tmp_path):
    """Else calls run whose client is gone: as many as one client sent at once."""
    came, gate, ran = asyncio.Event(), asyncio.Event(), []

    async def held(request, context):
        ran.append(request.a_double)
        if request.a_double == 1:
            came.set()
            await gate.wait()
        return await answer(request, context)

    async with staged(tmp_path, held) as stage:
        _, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        for body in (b'{"aDouble": 1}', b'{"aDouble": 2}'):
            writer.write(POST % len(body) + body)
        await asyncio.wait_for(came.wait(), 15)
        writer.transport.abort()
        # By the time that this is answered the gateway has seen the end.
        await stage.gateway.post("/v1/quotes", {"aDouble": 3})
        gate.set()
        await stage.gateway.post("/v1/quotes", {"aDouble": 3})

        assert ran == [1, 3, 3]
