"""One connection: aiohttp's protocol, whose requests are answered one after the other without a task for each.

aiohttp serves handlers of every kind, and a request pays for that: a task of its own, and reading that is resumed twice
though nothing had paused it. That is a tenth of what the gateway does for a call, so `Connection` does without. It also
bounds what aiohttp does not: bytes received and not answered yet, bytes written that the client does not read, and
for how long.

For that it uses private names of aiohttp, and this is the only file that does: `INSIDES` lists them, and
`poste.runtime.insides` checks at start that they exist. What they are relied upon for is shown by
`tests/hostile/test_03_room.py` (flow control, refusals, times), `tests/hostile/test_04_inflow.py` (turns of reading),
and `tests/contract/test_connections.py` and `test_raw_http.py` (keep-alive, pipelining, shutdown, what is no HTTP).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

from aiohttp import StreamReader, web

from poste.runtime import insides, logs
from poste.runtime.log_throttle import LogThrottle
from poste.runtime.waits import done_within
from poste_gateway.access.identity import ANYONE, Identity
from poste_gateway.http.problem_types import GATEWAY_BUSY
from poste_gateway.http.problems import RETRY_AFTER, Problem, problem_response
from poste_gateway.http.unreadable import FIELD_BYTES, HEAD_BYTES, LINE_BYTES, HeadTooLargeError, problem_of
from poste_gateway.limits.capacity import Capacity, NoCapacityError
from poste_gateway.limits.inflow import Inflow
from poste_gateway.limits.refusals import refuse
from poste_gateway.limits.usage import Usage

with insides.importing("aiohttp"):
    from aiohttp import web_protocol
    from aiohttp.http import RawRequestMessage, StreamWriter
    from aiohttp.streams import EMPTY_PAYLOAD

#: The private names of aiohttp that are used, by class or module.
INSIDES: Final = (
    (
        web.RequestHandler,
        (
            # The requests whose heads are parsed, and the future of the wait for the next one.
            *("_messages", "_waiter", "_parser", "_current_request", "_request_in_progress", "_handler_waiter"),
            # Closing: after this answer, or at once.
            *("_close", "_force_close", "_task_handler", "_manager", "_loop", "_lingering_time"),
            # The keep-alive timer.
            *("_keepalive_handle", "_keepalive_timeout", "_next_keepalive_close_time", "_process_keepalive"),
            # Flow control: of the body, and of the requests that wait.
            *("_reading_paused", "_buffer_paused", "_pause_transport_reading", "_resume_transport_reading"),
            *("_pause_reading_for_buffer", "_resume_reading_if_drained"),
            # Writing an answer, and answering bytes that are no HTTP request.
            *("finish_response", "handle_error", "_make_error_handler", "start"),
        ),
    ),
    (web_protocol, ("ERROR", "_ErrInfo")),
    (StreamReader, ("total_bytes",)),
)

_log: Final = logs.get("http")
_seldom: Final = LogThrottle(_log, "info")
#: How long a client that was refused in the middle of its request may go on sending before it reads the answer, in
#: seconds. Closed earlier, it would get a reset instead of the answer.
_LINGER_SECONDS: Final = 2.0
#: How many bytes of answers a connection may leave unread before writing waits for it. Not counted in any budget, so
#: every connection may take as many at the same time.
_UNREAD_BYTES: Final = 16 * 1024
#: How many unanswered bytes a connection may send before they are counted. Every connection may, at the same time.
_FREE_BYTES: Final = 8 * 1024
#: What a pipelined request costs besides its bytes while it waits, in bytes.
_REQUEST_BYTES: Final = 4 * 1024
#: Only requests with more header lines than this are counted as what is made of them: others cost no time for it.
_USUAL_LINES: Final = 32
#: So many bytes of a connection may wait for their turn to be parsed; reading pauses at more.
_WAITING_BYTES: Final = 16 * 1024
#: So many bytes of pipelined requests may wait behind the one that is answered; reading pauses at more.
_AHEAD_BYTES: Final = 64 * 1024
#: The answer to a connection or a request that there is no room for.
BUSY: Final = Problem(
    GATEWAY_BUSY, "There is no room for more requests, or for this client's. Nothing was accepted.", headers=RETRY_AFTER
)


class Owner(Protocol):
    """The server that a connection belongs to."""

    max_body_bytes: int
    capacity: Capacity
    request_handler: Any

    def request_received(self, protocol: Connection) -> None:
        """Called with a connection's first request, and at its end."""


class Connection(web.RequestHandler):
    """One connection.

    Attributes:
        peer: The client that its share of the limits is counted for; empty if it has none of its own.
        address: The client's address.
        usage: What it takes of the limits that all clients share.
        inflow: Gives the connections their turns to be parsed.
        waiting: The bytes received that wait for that turn.
        held: Reading is paused until `waiting` is empty.
        has_asked: It has sent a request.
        begun: When the incomplete head began, the first one's with the connection; None if there is none.
        stuck: Since when the client has read nothing of what is written, or the connection is closing; None otherwise.
        pipe: Its transport; None once it is lost.
        left_over: How many bytes were unsent when it was first seen closing.
        came: How many bytes were received that are not answered yet.
        passing: Received bytes are discarded.
        refused: There was no room for its request; nothing more is parsed.
        ended: Done when it is lost; None if nothing waits for that.
        writer: Writes its answers.
        for_client_only: What its request is answered with is of use to its client alone: the request is cancelled once
            the client has gone.
        identity: Who its request is from.
    """

    __slots__ = (
        "__weakref__",
        "address",
        "begun",
        "came",
        "ended",
        "for_client_only",
        "has_asked",
        "held",
        "identity",
        "inflow",
        "left_over",
        "passing",
        "peer",
        "pipe",
        "refused",
        "stuck",
        "usage",
        "waiting",
        "writer",
    )
    peer: str
    address: str
    usage: Usage
    inflow: Inflow
    waiting: bytearray
    held: bool
    begun: float | None
    has_asked: bool
    stuck: float | None
    pipe: asyncio.Transport | None
    came: int
    passing: bool
    refused: bool
    left_over: int
    ended: asyncio.Future[None] | None
    writer: StreamWriter
    for_client_only: bool
    identity: Identity

    def __init__(
        self,
        owner: Owner,
        loop: asyncio.AbstractEventLoop,
        inflow: Inflow,
        *,
        peer: str,
        address: str,
        idle_seconds: float,
    ) -> None:
        """Begin before there is a transport: `connection_made` brings that.

        Args:
            owner: The server.
            loop: The event loop.
            inflow: Gives the connections their turns to be parsed.
            peer: The client that its share of the limits is counted for; empty if it has none of its own.
            address: The client's address.
            idle_seconds: How long it may wait for a request after the first.
        """
        anything: Any = owner
        # Bodies come in as they were sent: a compressed one could grow without bounds.
        super().__init__(
            anything,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # none is what aiohttp's own runners pass too
            auto_decompress=False,
            keepalive_timeout=idle_seconds,
            max_line_size=LINE_BYTES,
            max_field_size=FIELD_BYTES,
        )
        self.peer, self.address, self.usage = peer, address, Usage(owner.capacity, peer, address)
        self.inflow, self.waiting = inflow, bytearray()
        self.has_asked = self.held = self.passing = self.refused = self.for_client_only = False
        self.begun = self.stuck = self.pipe = self.ended = None
        self.left_over = self.came = 0
        self.writer = StreamWriter(self, loop)
        self.identity = ANYONE

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when it is open; with TLS after the handshake, whose time asyncio bounds.

        From here on the first head must come in time.
        """
        super().connection_made(transport)
        self.pipe = cast("asyncio.Transport", transport)
        self.pipe.set_write_buffer_limits(_UNREAD_BYTES)
        self.begun = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Parse what was received, at once or in its turn."""
        # Empty data comes from aiohttp's own flow control: the parser is to go on with what it holds.
        if not data or self._close or self._force_close or self.inflow.now(self, data):
            self.take(data)
            return
        waiting = len(self.waiting)
        if self.came + waiting > _FREE_BYTES:
            self._weigh()
        if waiting > _WAITING_BYTES and not self.held:
            self.held = True
            self._pause_transport_reading()

    def emptied(self) -> None:
        """Called when `waiting` is empty: resume reading if it was paused for that, and for nothing else."""
        if self.held:
            self.held = False
            if not self._reading_paused and not self._buffer_paused:
                self._resume_transport_reading()

    def take(self, data: bytes) -> None:
        """Parse what was received, and note the time if it is only a part of a head.

        A part that comes while the request before it is answered is not seen until more of it comes. Until then its
        connection counts as idle, and is closed like one.
        """
        super().data_received(data)
        self.came += len(data)
        if self.came > _FREE_BYTES or len(self._messages) > 1:
            self._weigh()
        waiter = self._waiter
        if waiter is not None and self.begun is None and not waiter.done():
            self.begun = self._loop.time()

    def _is_split(self) -> bool:
        """Return whether a body's framing is larger than the body.

        A megabyte in chunks of a byte or two would keep the event loop busy for seconds.
        """
        messages, current = self._messages, self._current_request
        if len(messages) == 1:
            body = messages[0][1]
        elif not messages and current is not None:
            body = current.content
        else:
            return False
        return self.came > HEAD_BYTES + 2 * int(body.total_bytes)

    def _weigh(self) -> None:
        """Count the bytes that are not answered yet against the limits; refuse the request if they don't fit."""
        if self.passing or self._close or self._force_close:
            return
        messages = self._messages
        if not messages and self._waiter is not None and self.came > HEAD_BYTES:
            self._refuse(HeadTooLargeError())
            return
        if self._is_split():
            self._refuse(web.RequestPayloadError("the body comes in chunks that are too small"))
            return
        if not self.usage.receive(self.came + len(self.waiting) + _REQUEST_BYTES * len(messages) - _FREE_BYTES):
            refuse("bodies", peer=self.address, bytes=self.came)
            self._refuse(NoCapacityError())
            # At once: otherwise all that come at the same time would be refused for the sum of what they brought.
            self._recount(0)
            return
        if messages and self.came > _AHEAD_BYTES and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _refuse(self, error: Exception) -> None:
        """Parse nothing more, and answer the last request with this error unless it is whole and already begun."""
        current = self._current_request
        if self._messages:
            self._messages[-1][1].set_exception(error)
        elif current is not None:
            current.content.set_exception(error)
        else:
            self._messages.append((web_protocol._ErrInfo(400, error, ""), EMPTY_PAYLOAD))  # noqa: SLF001 - see INSIDES
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
        self._close = self.refused = True
        self.waiting.clear()
        # The client must be able to send its request to the end, or it would never read the answer.
        self._reading_paused = False
        self._resume_transport_reading()

    def _release(self, content: StreamReader) -> None:
        """Give back what the answered request was counted as, and drop what is held of it."""
        if self.refused or self.pipe is None:
            _forget(content)
        usage = self.usage
        # Nearly always zero, and this runs with every request.
        if usage.unsent:
            usage.answered()
        if not self._messages:
            self.came = 0
            if usage.received:
                usage.keep(len(self.waiting) - _FREE_BYTES)

    def _recount(self, came: int) -> None:
        self.came = came
        self.usage.keep(came + len(self.waiting) - _FREE_BYTES)

    def pause_writing(self) -> None:
        """Called when the client leaves too much of its answers unread."""
        super().pause_writing()
        self.stuck = self._loop.time()

    def resume_writing(self) -> None:
        """Called when the client has read them."""
        super().resume_writing()
        self.stuck = None

    def stuck_since(self, now: float, limit: float) -> bool:
        """Return whether the client has read nothing since `limit` (loop time), of its answers or of the last of them.

        Args:
            now: The loop's time.
            limit: The time since when it would have had to read something.
        """
        if self.pipe is None:
            return False
        if self.stuck is None:
            if self.pipe.is_closing():
                self.stuck, self.left_over = now, self.pipe.get_write_buffer_size()
            return False
        if self.left_over and self.pipe.get_write_buffer_size() != self.left_over:
            # It closes once the rest is sent, and some of the rest was.
            self.stuck = None
            return False
        return self.stuck <= limit

    def abort(self) -> None:
        """Close it at once; what is not sent yet is lost."""
        pipe = self.pipe
        self.force_close()
        if pipe is not None:
            pipe.abort()

    @property
    def idle(self) -> bool:
        """Whether it waits for a request."""
        return self.pipe is not None and self._waiter is not None and not self._waiter.done() and not self.waiting

    @property
    def idle_until(self) -> float:
        """When it would be closed if it stayed idle."""
        return self._next_keepalive_close_time

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
                # What is written by now is still sent.
                self.transport.close()

    async def _answer_all(self) -> None:
        request: Any = None
        answer: Any = None
        while not self._force_close:
            if not self._messages:
                # They may hold megabytes, and a client may be idle for long.
                request = answer = None
                await self._wait()
                # Back to the loop's condition: the client may have gone while its request waited for this turn.
                continue
            request, handler = self._next()
            # aiohttp's shutdown reads these two: whether to wait, and which body ends with the connection.
            self._request_in_progress, self._current_request = True, request
            try:
                answer = await handler(request)
                self._current_request = None
                if self._close:
                    answer.keep_alive = False
                gone = (await self.finish_response(request, answer, None))[1]
            finally:
                self._request_in_progress, self._current_request = False, None
                self._release(request.content)
                if self._handler_waiter is not None:
                    self._handler_waiter.set_result(None)
            if gone:
                return
            if self.refused or not request.content.is_eof():
                await self._pass_over(request.content)
            if self._close or not answer.keep_alive:
                return
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            if self._keepalive_handle is None:
                self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
            if self._messages:
                # A request may be answered without any wait: a client that pipelines without end would stop the loop.
                await asyncio.sleep(0)

    async def _wait(self) -> None:
        """Wait for the next request."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _next(self) -> tuple[web.BaseRequest, Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]]:
        """Take the next request; returns it and what answers it."""
        message, payload = self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and not self._messages:
            # It is the last one that was received, and all before it are answered.
            if isinstance(message, RawRequestMessage):
                self._recount(sum(len(name) + len(value) for name, value in message.raw_headers))
            self._resume_reading_if_drained()
        server = cast("Owner", self._manager)
        self.begun = None
        if not self.has_asked:
            self.has_asked = True
            server.request_received(self)
        handler = server.request_handler
        if not isinstance(message, RawRequestMessage):
            handler, message = self._make_error_handler(message), web_protocol.ERROR
        elif (lines := len(message.raw_headers)) > _USUAL_LINES:
            # Where it came in parts it is counted twice. That does no harm.
            self.inflow.made(lines)
        # One writer serves all requests: it keeps no state of what it wrote.
        writer, task = self.writer, cast("asyncio.Task[None]", self._task_handler)
        request = web.BaseRequest(
            message, payload, self, writer, task, self._loop, client_max_size=server.max_body_bytes
        )
        return request, handler

    async def _pass_over(self, payload: StreamReader) -> None:
        """Discard the rest of a body that the handler did not read, for a bounded time.

        Many clients read the answer only after they have sent their whole request.
        """
        if self.refused:
            await self._linger()
            return
        self.passing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._lingering_time):
                while not payload.is_eof():
                    await payload.readany()
        self.passing = False
        self._recount(0)
        if not payload.is_eof():
            self.close()

    async def _linger(self) -> None:
        """Give a client that was refused in the middle of its request time to read the answer."""
        if self.pipe is None:
            return
        self.ended = self._loop.create_future()
        await done_within(_LINGER_SECONDS, self.ended)

    def head_overdue(self, limit: float) -> bool:
        """Return whether a head that began before `limit` (loop time) is still incomplete."""
        # A whole one may be parsed that the connection's task has not taken up yet.
        return self.begun is not None and self.begun <= limit and not self._messages

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called at its end, whichever side closed it: gives back all that it held."""
        server, task = cast("Owner | None", self._manager), self._task_handler
        super().connection_lost(exc)
        if self.for_client_only and task is not None:
            task.cancel()
        if server is not None:
            server.request_received(self)
        self.pipe = self.stuck = None
        self.waiting.clear()
        self.usage.leave()
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer bytes that are no HTTP request, or a request that was refused before it was read."""
        problem = BUSY if isinstance(exc, NoCapacityError) else problem_of(exc)
        if problem is not BUSY:
            _seldom.write("unreadable", type(exc).__name__, peer=request.remote, status=status, text=message)
        return cast("web.StreamResponse", problem_response(problem, "", keep_alive=False))


def _forget(content: StreamReader) -> None:
    """Drop the tracebacks of a body's error: their frames hold the body, in a reference cycle.

    The garbage collector runs seldom; a hundred clients that are refused a megabyte would hold a hundred megabytes.
    """
    error = content.exception()
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
