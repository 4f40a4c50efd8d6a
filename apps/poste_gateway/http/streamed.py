"""An answer whose body comes in parts, as long as there are some: chunked, so that one that was cut short is seen.

A part is asked for once the client has taken the one before: so who does not read holds back who makes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from aiohttp import HttpVersion11, web

from poste_gateway.http.responses import PIECE, Response

#: The last chunk (RFC 9112, section 7.1), with no trailers.
_LAST: Final = b"0\r\n\r\n"


class CutShortError(Exception):
    """The rest of the body will not come, and the client can be told only by the connection's end."""


class Streamed(Response):
    """Such an answer.

    Attributes:
        ended: Called when it is over, however it ended.
    """

    __slots__ = ("_chunked", "_close", "_parts", "_request", "ended")

    def __init__(
        self, parts: AsyncIterator[bytes], close: Callable[[], Awaitable[None]], *, headers: dict[str, str]
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            parts: The parts. It raises CutShortError if there are no more, and should be.
            close: Called once, whether any part was asked for or not.
            headers: Those of the head.
        """
        super().__init__(None, headers=headers)
        self._parts, self._close = parts, close
        self._chunked = True
        self.ended: Callable[[], None] | None = None
        self._request: web.BaseRequest

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write the head.

        Raises:
            ConnectionError: The client is gone.
        """
        self._request = request
        self._chunked = request.version == HttpVersion11
        if self._chunked:
            self.headers["Transfer-Encoding"] = "chunked"
        else:
            # The body's end is the connection's.
            self.keep_alive = False
        try:
            await super().prepare(request)
        except BaseException:
            await self._end()
            raise

    async def write_eof(self) -> None:
        """Write the parts, until there are no more.

        Raises:
            ConnectionError: The client is gone, or has to see that the body is not whole.
        """
        protocol: Any = self._request.protocol
        # Its parts are made for this client alone.
        protocol.for_client_only = True
        try:
            if self._request.method != "HEAD":
                async for part in self._parts:
                    if part:
                        await self._write(b"%x\r\n%b\r\n" % (len(part), part) if self._chunked else part)
                if self._chunked:
                    await self._write(_LAST)
        except CutShortError as error:
            protocol.abort()
            raise ConnectionResetError(str(error)) from error
        except asyncio.CancelledError:
            if not client_left(self._request):
                raise
            raise ConnectionResetError("the client is gone") from None
        finally:
            protocol.for_client_only = False
            await self._end()

    async def _write(self, data: bytes) -> None:
        """Write as fast as the client reads."""
        protocol: Any = self._request.protocol
        left = memoryview(data)
        while left:
            if protocol.writing_paused:
                await self._request.writer.drain()
            transport = self._request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client is gone")
            transport.write(left[:PIECE])
            left = left[PIECE:]
        if protocol.writing_paused:
            await self._request.writer.drain()

    async def _end(self) -> None:
        try:
            await self._close()
        finally:
            if self.ended is not None:
                self.ended()


def client_left(request: web.BaseRequest) -> bool:
    """Return whether a cancellation was that of the connection's end, and nothing else; it is over then."""
    task = asyncio.current_task()
    return request.transport is None and task is not None and task.uncancel() == 0
