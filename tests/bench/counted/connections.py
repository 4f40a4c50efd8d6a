"""Connections without sockets: each brings its next request once the one before is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from bench import counted

_BODY: Final = b'{"a": 3.5, "b": 1}'
_REQUEST: Final = (
    b"POST /v1/sum HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n%%s\r\n%s" % (len(_BODY), _BODY)
)


class Connections:
    """All connections of a server."""

    def __init__(
        self,
        server: Callable[[], asyncio.Protocol],
        *,
        headers: bytes = b"",
        status: int = 200,
        ending: bytes = b'{"result":4.5}',
    ) -> None:
        """Connect to a server whose answers, if they are right, have this status and end so.

        The requests bring more `headers`, each a line with its end.
        """
        self._request = _REQUEST % headers
        self._beginning, self._ending = b"HTTP/1.1 %d " % status, ending
        self._loop = asyncio.get_running_loop()
        self._idle: list[_Transport] = []
        self._left = 0
        self._over = self._loop.create_future()
        for _ in range(counted.AT_ONCE):
            protocol = server()
            transport = _Transport(self, protocol)
            protocol.connection_made(transport)
            self._idle.append(transport)

    async def call(self, calls: int) -> None:
        """Make so many calls."""
        self._left, self._over = calls, self._loop.create_future()
        self._send()
        await self._over

    def answered(self, transport: _Transport, data: bytes) -> None:
        """Know that a connection has its answer."""
        if not data.startswith(self._beginning) or not data.endswith(self._ending):
            raise AssertionError(data)
        self._idle.append(transport)
        # The last ones may come in a turn of their own: a turn of the gateway's reads only so many requests.
        if len(self._idle) in (1, counted.AT_ONCE):
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        # In one turn, as from one look at the sockets.
        idle, self._idle = self._idle, []
        while idle and self._left:
            self._left -= 1
            idle.pop().protocol.data_received(self._request)
        self._idle += idle
        if len(self._idle) == counted.AT_ONCE and not self._over.done():
            self._over.set_result(None)


class _Transport(asyncio.Transport):
    def __init__(self, connections: Connections, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.protocol = protocol
        self._connections = connections

    def write(self, data: Any) -> None:
        self._connections.answered(self, data)

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: nothing is left unread here."""

    def pause_reading(self) -> None:
        raise AssertionError("nothing is read here")

    def resume_reading(self) -> None:
        """Do nothing: it was not paused."""
