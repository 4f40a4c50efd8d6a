"""One connection's requests, however many it sends at once, leave all others their turn."""

from __future__ import annotations

import asyncio

from aiohttp import web

from poste_gateway.http import server
from poste_gateway.http.responses import Response


async def _send(port: int, requests: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(requests)
    return writer


async def test_a_client_that_sends_requests_without_end_leaves_others_their_turn() -> None:
    """What is answered at once (404, say) never waited for anything: while one went on, the loop stood for all."""
    many = 3000
    heard: list[str] = []
    other = asyncio.Event()

    async def handle(request: web.BaseRequest) -> Response:
        heard.append(request.raw_path)
        if request.raw_path == "/other":
            other.set()
        return Response(status=404)

    async with server.serving(handle, "127.0.0.1", 0, max_body_bytes=1024, grace_seconds=0.1) as port:
        writers = [await _send(port, b"GET /many HTTP/1.1\r\nHost: x\r\n\r\n" * many)]
        writers.append(await _send(port, b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n"))
        async with asyncio.timeout(20):
            await other.wait()
        for writer in writers:
            writer.close()

    assert heard.index("/other") < many / 10


async def test_a_body_in_chunks_of_two_bytes_is_refused_before_it_costs_much() -> None:
    """Each chunk costs what a request's line does: sixteen such bodies of a megabyte held all others up."""
    ended: list[Exception | int] = []
    done = asyncio.Event()

    async def handle(request: web.BaseRequest) -> Response:
        try:
            ended.append(len(await request.read()))
        except web.RequestPayloadError as error:
            ended.append(error)
        done.set()
        return Response(status=400)

    async with server.serving(handle, "127.0.0.1", 0, max_body_bytes=2**20, grace_seconds=0.1) as port:
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        for chunk, count in ((b"x" * 100, 2000), (b"xx", 200_000)):
            done.clear()
            writer = await _send(port, head + b"%x\r\n%s\r\n" % (len(chunk), chunk) * count + b"0\r\n\r\n")
            async with asyncio.timeout(20):
                await done.wait()
            writer.close()

    whole, refused = ended
    assert whole == 200_000
    assert "too small" in str(refused)
