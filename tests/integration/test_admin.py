"""The probes' and Prometheus' own port: what it answers, and that a bad request does not harm it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from poste.runtime import admin


class Process:
    """What is told of it."""

    def __init__(self) -> None:
        self.trouble: str | None = None
        self.scrapes = 0

    async def collect(self) -> None:
        self.scrapes += 1
        if self.trouble == "defect":
            raise ValueError("a defect")

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        async with admin.serving("127.0.0.1", 0, lambda: self.trouble, collect=self.collect) as port:
            yield port


async def get(port: int, path: str, verb: str = "GET") -> tuple[int, str]:
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.request(verb, path) as answer,
    ):
        return answer.status, await answer.text()


async def raw(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    said = b""
    with contextlib.suppress(ConnectionError):
        said = await reader.read()
    writer.close()
    return said


async def test_probes_are_told_how_the_process_is() -> None:
    """Who runs it would send calls to one that is not ready, or kill one that only waits."""
    process = Process()
    async with process.serving() as port:
        assert await get(port, "/livez") == (200, "alive\n")
        assert await get(port, "/readyz?verbose") == (200, "ready\n")
        process.trouble = "the middleware is away"
        assert await get(port, "/livez") == (200, "alive\n")
        assert await get(port, "/readyz") == (503, "the middleware is away\n")
        assert await get(port, "/readyz", "HEAD") == (503, "")


async def test_metrics_are_brought_up_to_date_first() -> None:
    """A dashboard would show what was true at the scrape before."""
    process = Process()
    async with process.serving() as port:
        status, text = await get(port, "/metrics")

    assert status == 200
    assert "# HELP poste_" in text
    assert process.scrapes == 1


async def test_a_defect_is_told_and_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    """After one scrape that failed all others would fail, or the reason would be logged nowhere."""
    process = Process()
    async with process.serving() as port:
        process.trouble = "defect"
        assert (await get(port, "/metrics"))[0] == 500
        process.trouble = None
        assert (await get(port, "/metrics"))[0] == 200

    assert "a defect" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /v1/queues HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /livez HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"405"),
        (b"\x00\xff\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 100_000, b""),
        (b"\r\n\r\n", b"400"),
    ],
)
async def test_what_is_no_request_for_it_is_refused(request_: bytes, status: bytes) -> None:
    """One wrong client would take the probes away from all others."""
    async with Process().serving() as port:
        said = await raw(port, request_)
        assert said[9:12] == status
        assert await get(port, "/livez") == (200, "alive\n")


async def test_a_stop_waits_for_no_client() -> None:
    """Half a request would hold up the process' end."""
    async with Process().serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HT")
        await get(port, "/livez")
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
