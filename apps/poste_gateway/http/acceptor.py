"""Accepts clients' connections up to the limits; those beyond are answered 503, or closed, before they cost anything.

asyncio's own servers accept every connection. They know the client's address only after its TLS handshake, and when
descriptors run out uvloop closes new connections without an answer or a log line.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from poste.runtime import lifecycle, logs
from poste.runtime.addresses import unusable
from poste_gateway.limits.capacity import Capacity
from poste_gateway.limits.refusals import refuse

#: Makes the protocol of a connection, for its client and the address that it came from.
MakeProtocol = Callable[[str, str], asyncio.Protocol]

#: How many connections may wait to be accepted; the kernel's `somaxconn` may allow fewer.
_BACKLOG: Final = 1024
#: How many are accepted in one turn of the event loop. More would keep other calls waiting; and a connection has to
#: be known as idle before it can be closed to make room for the next.
_AT_ONCE: Final = 8
#: The errors of a process, or a host, that can't have more sockets now.
_SHORT: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
#: How long nothing is accepted after such an error, in seconds.
_SHORT_SECONDS: Final = 0.25

#: How many unsent bytes the kernel buffers of a connection. Its default is megabytes; the server would see too late
#: whether the client still reads.
_UNSENT_BYTES: Final = 128 * 1024

_log: Final = logs.get("acceptor")


class Acceptor:
    """The listening sockets of one address."""

    def __init__(
        self,
        make: MakeProtocol,
        capacity: Capacity,
        *,
        refusal: Callable[[], bytes],
        tls: ssl.SSLContext | None = None,
        handshake_seconds: float = 30.0,
    ) -> None:
        """Listen nowhere yet: `open` begins.

        Args:
            make: Makes the protocol of each connection; the protocol gives its place back when the connection is lost.
            capacity: How many connections are allowed, in all and for each client.
            refusal: Returns the whole HTTP response for a connection beyond the limits. It is sent without TLS only.
            tls: With it connections begin with a TLS handshake.
            handshake_seconds: How long the handshake may take.
        """
        self._make, self._capacity = make, capacity
        self._refusal = refusal
        self._tls = tls is not None
        self._patience: dict[str, Any] = {} if tls is None else {"ssl": tls, "ssl_handshake_timeout": handshake_seconds}
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._entering: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen and accept connections from now on; returns the port, which is any free one for 0.

        Raises:
            StartError: The port is taken, or the address is not this host's.
        """
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, address in dict.fromkeys(found):
                one = socket.socket(family, kind, protocol)
                self._sockets.append(one)
                one.setblocking(False)
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                # A name may be several addresses; all of them have the one port.
                one.bind((address[0], port, *address[2:]))
                one.listen(_BACKLOG)
                port = int(one.getsockname()[1])
        except OSError as error:
            for one in self._sockets:
                one.close()
            raise unusable(host, port, error) from error
        for one in self._sockets:
            self._loop.add_reader(one, self._accept, one)
        return port

    def close(self) -> None:
        """Accept what the kernel has queued, then stop listening: no client with a connection is cut off."""
        for one in self._sockets:
            self._loop.remove_reader(one)
            with contextlib.suppress(OSError):
                while self._let_in(one):
                    pass
            one.close()
        self._sockets.clear()

    async def end(self) -> None:
        """End the TLS handshakes that are under way."""
        await lifecycle.end([*self._entering])

    def _accept(self, one: socket.socket) -> None:
        try:
            for _ in range(_AT_ONCE):
                if not self._let_in(one):
                    return
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            # Idle connections are closed to free descriptors; accepting resumes once that can have happened.
            refuse("descriptors", peer="", error=error.strerror)
            self._capacity.free()
            self._loop.remove_reader(one)
            self._loop.call_later(_SHORT_SECONDS, self._again, one)

    def _again(self, one: socket.socket) -> None:
        if one in self._sockets:
            self._loop.add_reader(one, self._accept, one)

    def _let_in(self, one: socket.socket) -> bool:
        """Accept the next connection; return whether one was waiting."""
        try:
            connection, place = one.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionError:
            # The client closed it before it was accepted.
            return True
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        address = place[0]
        peer = self._capacity.whose(address)
        if not self._capacity.enter(peer, address):
            with contextlib.suppress(OSError), connection:
                if not self._tls:
                    connection.send(self._refusal())
            return True
        task = self._loop.create_task(self._enter(connection, peer, address))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)
        return True

    async def _enter(self, connection: socket.socket, peer: str, address: str) -> None:
        entered = False

        def make() -> asyncio.Protocol:
            return self._make(peer, address)

        try:
            await self._loop.connect_accepted_socket(make, connection, **self._patience)
            entered = True
        except OSError as error:
            # The TLS handshake failed, or took too long.
            _log.debug("not entered", peer=address, error=type(error).__name__)
        finally:
            if not entered:
                self._capacity.leave(peer)
