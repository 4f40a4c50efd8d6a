"""The gateway's HTTP server: aiohttp's protocol without its applications, whose router can't change while it serves.

Every request goes to one handler. What can't be read as HTTP is answered here, as a problem like any other: aiohttp's
own answer is a page that names its version, and its log a traceback for each.

aiohttp serves handlers of every kind, and a request pays for that: a task of its own, and reading that is resumed twice
though nothing had paused it. That is a tenth of what the gateway does for a call, so `_Protocol` does without.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage, StreamWriter
from aiohttp.web_protocol import ERROR

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
    """Makes a protocol for each connection.

    Attributes:
        max_body_bytes: How large a request's body may be.
    """

    def __init__(self, handle: Handle, max_body_bytes: int) -> None:
        # What an `Answer` has is what it asks of one.
        anything: Any = handle
        super().__init__(anything)
        self._loop_of_all = asyncio.get_running_loop()
        self.max_body_bytes = max_body_bytes
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
        protocol.writer = StreamWriter(protocol, self._loop_of_all)
        self._unheard.add(protocol)
        return protocol


class _Protocol(web.RequestHandler):
    """One connection.

    Attributes:
        heard: It has brought a request.
        begun: When the head that is not whole yet began to come, the first one's with the connection; None if none did.
        writer: What writes to it.
    """

    __slots__ = ("__weakref__", "begun", "heard", "writer")
    begun: float | None
    heard: bool
    writer: StreamWriter

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

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on, if reading was paused."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    async def start(self) -> None:
        """Answer the connection's requests, one after the other, in its one task and so in one context."""
        try:
            with contextlib.suppress(ConnectionError):
                await self._answer_all()
        except Exception:  # noqa: BLE001 - the task's edge: what is wrong with one connection is logged once, here
            _log.exception("connection failed")
        finally:
            self._task_handler = None
            if self.transport is not None:
                # What is written by now still leaves.
                self.transport.close()

    async def _answer_all(self) -> None:
        while not self._force_close:
            if not self._messages:
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
                # Or the client went while its request waited for this turn.
                continue
            request, handler = self._next()
            # By these two aiohttp's own shutdown knows what to wait for, and whose body comes no more.
            self._request_in_progress, self._current_request = True, request
            try:
                answer = await handler(request)
                self._current_request = None
                _, gone = await self.finish_response(request, answer, None)
            finally:
                self._request_in_progress, self._current_request = False, None
                if self._handler_waiter is not None:
                    self._handler_waiter.set_result(None)
            if gone:
                return
            if not request.content.is_eof():
                await self._pass_over(request.content)
            if self._close or not answer.keep_alive:
                return
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            if self._keepalive_handle is None:
                self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
            if self._messages:
                # What is answered at once waits for nothing: a client that sends without end would stop the loop.
                await asyncio.sleep(0)

    def _next(self) -> tuple[web.BaseRequest, Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]]:
        """Take the next request; returns it and what answers it."""
        message, payload = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        server = cast("_Server", self._manager)
        self.begun = None
        if not self.heard:
            self.heard = True
            server.not_waited_for(self)
        handler = server.request_handler
        if not isinstance(message, RawRequestMessage):
            handler, message = self._make_error_handler(message), ERROR
        # All of them are written by one writer: it keeps nothing of what it wrote.
        writer, task = self.writer, cast("asyncio.Task[None]", self._task_handler)
        request = web.BaseRequest(
            message, payload, self, writer, task, self._loop, client_max_size=server.max_body_bytes
        )
        return request, handler

    async def _pass_over(self, payload: StreamReader) -> None:
        """Let the client send the rest of a body that nobody wants, so that it reads its answer; but not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof():
                    await payload.readany()
        if not payload.is_eof():
            self.close()

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
        _log.info("unreadable", peer=request.remote, status=status, error=type(exc).__name__, text=message)
        answer = problem_answer(_UNREADABLE, "")
        answer.keep_alive = False
        return cast("web.StreamResponse", answer)
