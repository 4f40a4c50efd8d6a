"""The gateway's HTTP server: aiohttp's protocol without its applications, whose router can't change while it serves.

Every request goes to one handler. What can't be read as HTTP is answered here, as a problem like any other: aiohttp's
own answer is a page that names its version, and its log a traceback for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import web

from poste.runtime import insides, lifecycle
from poste.runtime.waits import done_within
from poste_gateway.http.acceptor import Acceptor
from poste_gateway.http.connection import BUSY, INSIDES, Connection
from poste_gateway.http.problems import problem_response
from poste_gateway.http.responses import Response
from poste_gateway.limits.capacity import Capacity
from poste_gateway.limits.inflow import Inflow

Handle = Callable[[web.BaseRequest], Awaitable[Response | web.StreamResponse]]

#: How often within a time limit connections over that limit are searched for. A timer for each request would cost every
#: request.
_SWEEPS: Final = 6
#: How long a connection that was just made may take to bring its request once the listener has closed, in seconds.
_FIRST_REQUEST_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long clients may take, in seconds.

    Attributes:
        idle_seconds: Between two requests.
        head_seconds: To send a request's whole head, and for the TLS handshake.
        write_seconds: To read any of a response.
    """

    idle_seconds: float = 75.0
    head_seconds: float = 30.0
    write_seconds: float = 30.0


_PATIENCE: Final = Patience()


def _refusal() -> bytes:
    """Return the whole HTTP response to a connection that there is no room for."""
    return problem_response(BUSY, "", keep_alive=False).spelt(http11=True)


@contextlib.asynccontextmanager
async def serving(
    handle: Handle,
    host: str,
    port: int,
    *,
    max_body_bytes: int,
    grace_seconds: float,
    patience: Patience = _PATIENCE,
    capacity: Capacity | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve HTTP while the body runs; yields the port.

    Args:
        handle: Answers every request; it must not raise.
        host: The address to listen on.
        port: The port, 0 for any free one.
        max_body_bytes: How large a request's body may be.
        grace_seconds: How long requests may take at the end.
        patience: How long clients may take.
        capacity: The limits that clients share; defaults, for this port only, unless given.
        tls: With it HTTPS is served.

    Raises:
        StartError: The port is taken, or the address is not this host's.
    """
    insides.check("aiohttp", INSIDES)
    server = Server(handle, max_body_bytes, patience, capacity)
    acceptor = Acceptor(
        server.connection, server.capacity, refusal=_refusal, tls=tls, handshake_seconds=patience.head_seconds
    )
    runner = web.ServerRunner(server, shutdown_timeout=grace_seconds)
    await runner.setup()
    try:
        bound = await acceptor.open(host, port)
        async with lifecycle.side_tasks(server.sweep()):
            try:
                yield bound
            finally:
                # Connections in the backlog are accepted first; each has up to 2 s to send its first request.
                acceptor.close()
                await asyncio.sleep(0)
                await server.first_requests_in()
    finally:
        await runner.cleanup()
        await acceptor.end()
        server.capacity.closes_idle_no_more(server.close_idle)


class Server(web.Server):
    """Makes a protocol for each connection.

    Attributes:
        max_body_bytes: How large a request's body may be.
        capacity: The limits that clients share.
    """

    def __init__(
        self,
        handle: Handle,
        max_body_bytes: int,
        patience: Patience = _PATIENCE,
        capacity: Capacity | None = None,
    ) -> None:
        # aiohttp's types want its own responses; a `Response` has all that it uses of one.
        anything: Any = handle
        super().__init__(anything)
        self._loop_of_all = asyncio.get_running_loop()
        self._patience = patience
        self.max_body_bytes = max_body_bytes
        self.capacity = Capacity() if capacity is None else capacity
        self.capacity.closes_idle(self.close_idle)
        self._inflow = Inflow(self._loop_of_all)
        #: Connections that have not sent a request yet. Weak: one whose TLS handshake fails is never reported as lost.
        self._awaiting_first_request: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._one_came = asyncio.Event()

    async def first_requests_in(self) -> None:
        """Wait, for a bounded time, until every connection has sent a request."""
        await done_within(_FIRST_REQUEST_SECONDS, self._none_awaited())

    async def _none_awaited(self) -> None:
        while self._awaiting_first_request:
            self._one_came.clear()
            await self._one_came.wait()

    def request_received(self, protocol: Connection) -> None:
        """Called with a connection's first request, and at its end."""
        self._awaiting_first_request.discard(protocol)
        self._one_came.set()

    async def sweep(self) -> None:
        """Close connections whose clients take too long to send a head, or to read a response. Never returns."""
        patience = self._patience
        while True:
            await asyncio.sleep(min(patience.head_seconds, patience.write_seconds) / _SWEEPS)
            now = self._loop_of_all.time()
            late, unread = [], []
            for protocol in cast("list[Connection]", self.connections):
                if protocol.stuck_since(now, now - patience.write_seconds):
                    protocol.abort()
                    unread.append(protocol.address)
                elif protocol.head_overdue(now - patience.head_seconds):
                    protocol.force_close()
                    late.append(protocol.address)
            # One log line for all: they may be many, for browsers open connections in advance.
            if late:
                self.capacity.cut("late", late)
            if unread:
                self.capacity.cut("unread", unread)

    def close_idle(self, most: int) -> int:
        """Close up to `most` idle connections; return how many.

        First those that never sent a request, then the others, the longest idle first.
        """
        idle = [protocol for protocol in cast("list[Connection]", self.connections) if protocol.idle]
        idle.sort(key=operator.attrgetter("has_asked", "idle_until"))
        del idle[most:]
        for protocol in idle:
            protocol.abort()
            # It is none any more, though its end is only heard of in a moment.
            protocol.usage.leave()
        return len(idle)

    def __call__(self) -> web.RequestHandler:
        """Make the protocol of a connection without a client of its own."""
        return self.connection("", "")

    def connection(self, peer: str, address: str) -> Connection:
        """Make the protocol of a connection of a client that came from an address."""
        loop, idle_seconds = self._loop_of_all, self._patience.idle_seconds
        connection = Connection(self, loop, self._inflow, peer=peer, address=address, idle_seconds=idle_seconds)
        self._awaiting_first_request.add(connection)
        return connection
