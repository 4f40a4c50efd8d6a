"""The gateway's HTTP server: aiohttp's protocol without its applications, whose router can't change while it serves.

Every request goes to one handler. What can't be read as HTTP is answered here, as a problem like any other: aiohttp's
own answer is a page that names its version, and its log a traceback for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from poste.runtime import lifecycle, logs, sites
from poste_gateway.answers import Answer
from poste_gateway.kinds import INVALID_REQUEST
from poste_gateway.problems import Problem, problem_answer

Handle = Callable[[web.BaseRequest], Awaitable[Answer | web.StreamResponse]]

#: How long a client may take to bring a request's whole head, in seconds: one that never does, or does so byte by byte,
#: would hold its connection. Between requests it may be idle for as long as aiohttp keeps it.
HEAD_SECONDS: Final = 30.0

_log: Final = logs.get("http")
#: How often within that time those who are late are looked for: a timer for each request would cost every request.
_SWEEPS: Final = 6
#: How long a connection that was just made may take to bring its request once the listener has closed, in seconds.
_FIRST_REQUEST_SECONDS: Final = 2.0
_UNREADABLE: Final = Problem(INVALID_REQUEST, "The request can't be read as HTTP/1.1.")


@contextlib.asynccontextmanager
async def serving(
    handle: Handle,
    host: str,
    port: int,
    *,
    max_body_bytes: int,
    grace_seconds: float,
    head_seconds: float = HEAD_SECONDS,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve HTTP while the body runs; yields the port.

    Args:
        handle: Answers every request; it must not raise.
        host: The address to listen on.
        port: The port, 0 for any free one.
        max_body_bytes: How large a request's body may be.
        grace_seconds: How long requests may take at the end.
        head_seconds: How long a client may take to bring a request's head.
        tls: Serves HTTPS.

    Raises:
        StartError: The port is taken, or the address is not this host's.
    """
    server = _Server(handle, max_body_bytes)
    runner = web.ServerRunner(server, shutdown_timeout=grace_seconds)
    async with sites.bound(runner, host, port, tls) as bound, lifecycle.side_tasks(server.sweep(head_seconds)):
        try:
            yield bound
        finally:
            # Those who stand at the door are let in before it closes, and heard before anybody is sent away.
            await asyncio.sleep(0)
            for site in tuple(runner.sites):
                await site.stop()
            await server.heard()


class _Server(web.Server):
    """Makes a protocol for each connection, and a request from each message."""

    def __init__(self, handle: Handle, max_body_bytes: int) -> None:
        # What an `Answer` has is what it asks of one, and every protocol is one of ours.
        anything: Any = handle
        factory: Any = self._request
        super().__init__(anything, request_factory=factory)
        self._loop_of_all = asyncio.get_running_loop()
        self._max_body_bytes = max_body_bytes
        #: Connections that have not brought a request yet. Weak: of one whose TLS fails nothing more is heard.
        self._unheard: weakref.WeakSet[_Protocol] = weakref.WeakSet()
        self._one_heard = asyncio.Event()

    async def heard(self) -> None:
        """Wait until every connection has brought a request, or has shown that it is in no hurry."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_REQUEST_SECONDS):
                while self._unheard:
                    self._one_heard.clear()
                    await self._one_heard.wait()

    def not_waited_for(self, protocol: _Protocol) -> None:
        """Know that a connection brought a request, or ended."""
        self._unheard.discard(protocol)
        self._one_heard.set()

    async def sweep(self, head_seconds: float) -> None:
        """Close, again and again, the connections whose clients take longer than that to bring a request's head."""
        while True:
            await asyncio.sleep(head_seconds / _SWEEPS)
            limit = self._loop_of_all.time() - head_seconds
            late = [protocol for protocol in cast("list[_Protocol]", self.connections) if protocol.owes_since(limit)]
            for protocol in late:
                protocol.force_close()
            if late:
                # One line for all of them: they may be many, and a browser that connects in advance is no attack.
                _log.info("late", closed=len(late))

    def __call__(self) -> web.RequestHandler:
        # Bodies come in as they were sent: a compressed one could grow without bounds.
        protocol = _Protocol(
            self,
            loop=self._loop_of_all,
            access_log=None,  # type: ignore[arg-type]  # none is what its own runners pass too
            auto_decompress=False,
        )
        protocol.heard = False
        protocol.begun = None
        self._unheard.add(protocol)
        return protocol

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: _Protocol,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        protocol.begun = None
        if not protocol.heard:
            protocol.heard = True
            self.not_waited_for(protocol)
        return web.BaseRequest(
            message, payload, protocol, writer, task, self._loop_of_all, client_max_size=self._max_body_bytes
        )


class _Protocol(web.RequestHandler):
    """One connection.

    Attributes:
        heard: It has brought a request.
        begun: When the head that is not whole yet began to come, the first one's with the connection; None if none did.
    """

    __slots__ = ("__weakref__", "begun", "heard")
    begun: float | None
    heard: bool

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Know that it stands; by TLS, once hands are shaken, which asyncio limits itself."""
        super().connection_made(transport)
        self.begun = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Take what came, and know when it was only a part of a head.

        A part that came while the request before it was under way is seen when more of it comes. Until then its
        connection is like an idle one, and ends as those do.
        """
        super().data_received(data)
        waiter = self._waiter
        if waiter is not None and self.begun is None and not waiter.done():
            self.begun = self._loop.time()

    def owes_since(self, limit: float) -> bool:
        """Tell whether a head began to come by then and is still not whole."""
        # A whole one may be here that its task has not taken up yet.
        return self.begun is not None and self.begun <= limit and not self._messages

    def connection_lost(self, exc: BaseException | None) -> None:
        """Know that the client, or this side, has ended it."""
        server = cast("_Server | None", self._manager)
        super().connection_lost(exc)
        if server is not None:
            server.not_waited_for(self)

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
