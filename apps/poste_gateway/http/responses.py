"""The gateway's HTTP responses.

aiohttp's own response builds a multidict of headers, looks each special one up in it, and writes head and body apart: a
third of the cost of a bare request. These responses are complete when they are made, so head and body are written at
once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from aiohttp import HttpVersion11, web

from poste import protojson

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
#: Headers of responses that must not be cached.
NO_STORE: Final = {"Cache-Control": "no-store"}
#: Headers of responses whose body a service made: a browser runs its scripts without access to this origin, where the
#: page acts for who signed in.
SANDBOX: Final = {"Content-Security-Policy": "sandbox allow-downloads allow-forms allow-popups allow-scripts"}
#: No browser may guess the type of an answer.
_GUESSING: Final = "X-Content-Type-Options"
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
#: A larger body is written in pieces of so many bytes: asyncio keeps each written piece until all of it is sent.
PIECE: Final = 64 * 1024
#: How many times a response's size is counted: the message and its JSON are in memory at the same time.
_WRITTEN: Final = 2
#: Responses up to this size are counted only if their clients leave them unread, in bytes.
UNCOUNTED_BYTES: Final = 16 * 1024
#: The statuses of responses without a body and a Content-Length.
_BODILESS: Final = (204, 304)


@dataclass(slots=True)
class AccessRecord:
    """What the access log and the metrics say of one request; filled while it is handled.

    Attributes:
        request_id: Its id.
        traceparent: Its place in its trace; empty if it is in none.
        trace_id: The trace; empty if it has no id.
        service: The service that it calls, if it calls one.
        method: The method.
        road: The road that it took: `direct`, `queued`, or `none` if it was refused before.
        outcome: The code, or the name of the problem, that it ended with; `QUEUED` if it was kept.
        route: Of a request that is no call: the gateway's own route, or `none` if it asks for nothing that there is.
        facts: Further fields of the log line; None if there are none.
    """

    request_id: str
    traceparent: str = ""
    trace_id: str = ""
    service: str = ""
    method: str = ""
    road: str = "none"
    outcome: str = "OK"
    route: str = "none"
    facts: dict[str, Any] | None = None

    def names(self) -> dict[str, str]:
        """Return the fields by which every other log line names the request."""
        names = {"request_id": self.request_id}
        if self.facts and "task" in self.facts:
            names["task"] = self.facts["task"]
        return names

    def note(self, name: str, value: object) -> None:
        """Add a field to the log line."""
        self.facts = {**(self.facts or {}), name: value}


class Response:
    """A whole answer. aiohttp asks of one `keep_alive`, `prepare` and `write_eof`.

    Attributes:
        status: The HTTP status.
        body: The body; None if it comes later, and ends with the connection.
        headers: The headers, but for those that every answer has.
        keep_alive: The connection takes another request.
    """

    __slots__ = ("body", "headers", "keep_alive", "status")

    def __init__(
        self,
        body: bytes | None = b"",
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        keep_alive: bool = True,
    ) -> None:
        self.status = status
        self.body = body
        self.headers = {} if headers is None else headers
        self.keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write it.

        Raises:
            ConnectionError: The client is gone.
        """
        self.keep_alive = self.keep_alive and request.keep_alive
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        without_body = request.method == "HEAD"
        transport.write(self.spelt(http11=request.version == HttpVersion11, without_body=without_body))
        if request.protocol.writing_paused or (not without_body and len(self.body or b"") > PIECE):
            await self._write_rest(request, b"" if without_body else self.body or b"")

    async def _write_rest(self, request: web.BaseRequest, body: bytes) -> None:
        """Write the rest of a large body as fast as the client reads it."""
        protocol: Any = request.protocol
        if not protocol.usage.promise(len(body)):
            # Its head is sent already: no other status can be given any more.
            protocol.abort()
            raise ConnectionResetError("there is no room for the answer")
        left = memoryview(body)[PIECE:]
        while True:
            if protocol.writing_paused:
                await request.writer.drain()
            transport = request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client is gone")
            if not left:
                return
            transport.write(left[:PIECE])
            left = left[PIECE:]

    async def write_eof(self) -> None:
        """Do nothing: `prepare` has written all of it."""

    def spelt(self, *, http11: bool, without_body: bool = False) -> bytes:
        """Return the head with the body, or with the beginning of a large one.

        Args:
            http11: The request is HTTP/1.1's.
            without_body: The head alone.
        """
        status, body = self.status, self.body
        headers = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        if not headers.count("\n") == headers.count("\r") == len(self.headers):
            raise ValueError(f"a header has more than one line: {self.headers}")
        # Only where it differs from the version's default (RFC 9112, section 9.3).
        if self.keep_alive is not http11:
            headers += "Connection: keep-alive\r\n" if self.keep_alive else "Connection: close\r\n"
        if body is not None and status not in _BODILESS:
            headers += f"Content-Length: {len(body)}\r\n"
        head = f"{_clock.beginning(status)}{headers}\r\n".encode()
        if body is None or without_body:
            return head
        return head + (body if len(body) <= PIECE else body[:PIECE])


def room_for(request: web.BaseRequest, size: int) -> bool:
    """Reserve room for a response of so many bytes until it is sent or given up; return False if there is none."""
    if size <= UNCOUNTED_BYTES:
        return True
    protocol: Any = request.protocol
    return bool(protocol.usage.promise(_WRITTEN * size))


def make_room(request: web.BaseRequest, size: int, decided: Callable[[bool], None]) -> Callable[[], None]:
    """Reserve room for a response that its service holds back until then (`upstream.link.MakeRoom`)."""
    protocol: Any = request.protocol
    over: Callable[[], None] = protocol.usage.make_room(_WRITTEN * size, decided)
    return over


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON."""
    return Response(protojson.dumps(value), status=status, headers={"Content-Type": JSON, **(headers or {})})


def written_answer(body: bytes) -> Response:
    """Answer with JSON that is written already."""
    return Response(body, headers={"Content-Type": JSON})


def tag_of(body: bytes) -> str:
    """Return what tells a body from all others."""
    return hashlib.sha256(body).hexdigest()[:32]


def tagged(request: web.BaseRequest, body: bytes, tag: str, *, content_type: str, headers: dict[str, str]) -> Response:
    """Answer with a body that has a tag, or that the client's copy of it is still good (RFC 9110, section 13.1.2)."""
    headers = {**headers, "ETag": f'"{tag}"'}
    # Not aiohttp's own reading, which takes a millisecond for a thousand of them.
    known = ",".join(request.headers.getall("If-None-Match", ()))
    if f'"{tag}"' in known or known.strip() == "*":
        return Response(status=304, headers=headers)
    return Response(body, headers={**headers, "Content-Type": content_type})


def text_answer(text: str, *, status: int = 200) -> Response:
    """Answer with a text for people."""
    return Response(text.encode(), status=status, headers={"Content-Type": TEXT})


class _Clock:
    """Makes the beginning of a head, with the header Date (RFC 9110, section 6.6.1), once a second for each status."""

    def __init__(self) -> None:
        self._second = 0
        self._beginnings: dict[int, str] = {}

    def beginning(self, status: int) -> str:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._beginnings.clear()
        beginning = self._beginnings.get(status)
        if beginning is None:
            # The version is the server's own, whatever the request's is (RFC 9110, section 6.2).
            line = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}"
            date = formatdate(now, usegmt=True)
            beginning = f"{line}\r\nServer: poste\r\nDate: {date}\r\n{_GUESSING}: nosniff\r\n"
            self._beginnings[status] = beginning
        return beginning


_clock: Final = _Clock()
