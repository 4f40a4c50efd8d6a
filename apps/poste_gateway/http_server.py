"""The gateway's HTTP server: aiohttp's protocol without its applications, whose router can't change while it serves.

Every request goes to one handler. What can't be read as HTTP is answered here, as a problem like any other: aiohttp's
own answer is a page that names its version, and its log a traceback for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from poste.runtime import admin, logs
from poste_gateway.answers import Answer
from poste_gateway.kinds import INVALID_REQUEST
from poste_gateway.problems import Problem, problem_answer

Handle = Callable[[web.BaseRequest], Awaitable[Answer | web.StreamResponse]]

_log: Final = logs.get("http")
_UNREADABLE: Final = Problem(INVALID_REQUEST, "The request can't be read as HTTP/1.1.")


@contextlib.asynccontextmanager
async def serving(
    handle: Handle,
    host: str,
    port: int,
    *,
    max_body_bytes: int,
    grace_seconds: float,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve HTTP while the body runs; yields the port.

    Args:
        handle: Answers every request; it must not raise.
        host: The address to listen on.
        port: The port, 0 for any free one.
        max_body_bytes: How large a request's body may be.
        grace_seconds: How long requests may take at the end.
        tls: Serves HTTPS.

    Raises:
        StartError: The port is taken, or the address is not this host's.
    """
    runner = web.ServerRunner(_Server(handle, max_body_bytes), shutdown_timeout=grace_seconds)
    async with admin.bound(runner, host, port, tls) as bound:
        yield bound


class _Server(web.Server):
    """Makes a protocol for each connection, and a request from each message."""

    def __init__(self, handle: Handle, max_body_bytes: int) -> None:
        # What an `Answer` has is what it asks of one.
        anything: Any = handle
        super().__init__(anything, request_factory=self._request)
        self._loop_of_all = asyncio.get_running_loop()
        self._max_body_bytes = max_body_bytes

    def __call__(self) -> web.RequestHandler:
        # Bodies come in as they were sent: a compressed one could grow without bounds.
        return _Protocol(
            self,
            loop=self._loop_of_all,
            access_log=None,  # type: ignore[arg-type]  # none is what its own runners pass too
            auto_decompress=False,
        )

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return web.BaseRequest(
            message, payload, protocol, writer, task, self._loop_of_all, client_max_size=self._max_body_bytes
        )


class _Protocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never became a request."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        _log.info("unreadable", peer=request.remote, status=status, error=type(exc).__name__, text=message)
        answer = problem_answer(_UNREADABLE, "")
        answer.keep_alive = False
        return cast("web.StreamResponse", answer)
