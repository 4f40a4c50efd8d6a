"""The probes and the metrics of a process that has no HTTP face of its own.

Only probes and Prometheus ask, for three paths, so asyncio's streams do: aiohttp's server takes 9 MB in each process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Final, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from poste.runtime import logs
from poste.runtime.addresses import unusable

#: Returns None while the process is ready, else why it is not.
Readiness = Callable[[], str | None]

#: How long a request may take altogether, in seconds.
_REQUEST_SECONDS: Final = 10.0
#: The largest head of a request, in bytes.
_HEAD_BYTES: Final = 16 * 1024

_log: Final = logs.get("admin")


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes
    type: str = "text/plain; charset=utf-8"


@contextlib.asynccontextmanager
async def serving(
    host: str, port: int, ready: Readiness, *, collect: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[int]:
    """Serve `/livez`, `/readyz` and `/metrics` while the body runs; yields the port.

    Args:
        host: The address to listen on.
        port: The port, 0 for any free one.
        ready: Returns why the process is not ready, None if it is.
        collect: Brings figures up to date before each scrape.

    Raises:
        StartError: The port is taken, or the address is not this host's.
    """
    requests: set[asyncio.Task[None]] = set()

    async def answer(path: bytes) -> _Answer:
        match path:
            case b"/livez":
                return _Answer(HTTPStatus.OK, b"alive\n")
            case b"/readyz":
                if (reason := ready()) is not None:
                    return _Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n".encode())
                return _Answer(HTTPStatus.OK, b"ready\n")
            case b"/metrics":
                if collect is not None:
                    await collect()
                return _Answer(HTTPStatus.OK, generate_latest(), CONTENT_TYPE_LATEST)
        return _Answer(HTTPStatus.NOT_FOUND, b"there are /livez, /readyz and /metrics\n")

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_serve_connection(reader, writer, answer))
        requests.add(task)
        task.add_done_callback(requests.discard)

    try:
        server = await asyncio.start_server(on_connection, host, port, limit=_HEAD_BYTES)
    except OSError as error:
        raise unusable(host, port, error) from error
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in (running := [*requests]):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _serve_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Callable[[bytes], Awaitable[_Answer]]
) -> None:
    """Answer a connection's one request; whatever is wrong with the connection is its client's to see."""
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            request_line = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0].split(b" ")
            reply = await _reply(request_line, answer)
            head = (
                f"HTTP/1.1 {reply.status:d} {reply.status.phrase}\r\nContent-Type: {reply.type}\r\n"
                f"Content-Length: {len(reply.body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + (b"" if request_line[0] == b"HEAD" else reply.body))
            writer.close()
            await writer.wait_closed()
    except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.transport.abort()


async def _reply(request_line: list[bytes], answer: Callable[[bytes], Awaitable[_Answer]]) -> _Answer:
    match request_line:
        case [b"GET" | b"HEAD", target, _]:
            try:
                return await answer(target.partition(b"?")[0])
            except Exception:  # noqa: BLE001 - the edge: logged, and answered as nothing but a failure
                _log.exception("failed", target=target.decode("ascii", "replace"))
                return _Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"failed; the log says why\n")
        case [_, _, _]:
            return _Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD\n")
    return _Answer(HTTPStatus.BAD_REQUEST, b"this is no HTTP/1.1\n")
