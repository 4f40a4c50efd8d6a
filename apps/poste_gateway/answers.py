"""What the gateway answers, and how it becomes HTTP.

aiohttp's own response builds a table of headers, asks it for each thing that might be in it, and writes head and body
apart: a third of what a bare request costs. What is answered here is whole when it is made, so its head is spelt in one
piece and leaves with its body in one write.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

from aiohttp import HttpVersion11, web

from poste.rpc import protojson

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
#: Heads what changes from one look to the next.
NO_STORE: Final = {"Cache-Control": "no-store"}

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
#: What has no body, and says nothing of its length.
_BODILESS: Final = (204, 304)


@dataclass(slots=True)
class Account:
    """What is to be said of one request in the log and the metrics; filled on its way.

    Attributes:
        request_id: Its id.
        traceparent: Its place in its trace; empty if it is in none.
        trace_id: The trace; empty if it has no id.
        service: The service that it calls, if it calls one.
        method: The method.
        road: The road that it took: `direct`, `durable`, or `none` if it was refused before.
        outcome: The code, or the name of the problem, that it ended with; `QUEUED` if it was kept.
        facts: What else the log is to say, if there is anything.
    """

    request_id: str
    traceparent: str = ""
    trace_id: str = ""
    service: str = ""
    method: str = ""
    road: str = "none"
    outcome: str = "OK"
    facts: dict[str, Any] | None = None

    def note(self, name: str, value: object) -> None:
        """Have the log say one thing more."""
        self.facts = {**(self.facts or {}), name: value}


class Answer:
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
        transport.write(self._text(request))
        if request.protocol.writing_paused:
            # A client that does not read must not fill the memory: its next request waits.
            await request.writer.drain()

    async def write_eof(self) -> None:
        """Do nothing: it left whole."""

    def _text(self, request: web.BaseRequest) -> bytes:
        status, body = self.status, self.body
        headers = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        if not headers.count("\n") == headers.count("\r") == len(self.headers):
            raise ValueError(f"a header has more than one line: {self.headers}")
        # What each version does unless it is told otherwise (RFC 9112, section 9.3).
        if self.keep_alive is not (request.version == HttpVersion11):
            headers += "Connection: keep-alive\r\n" if self.keep_alive else "Connection: close\r\n"
        if body is not None and status not in _BODILESS:
            headers += f"Content-Length: {len(body)}\r\n"
        head = f"{_clock.beginning(status)}{headers}\r\n".encode()
        return head if body is None or request.method == "HEAD" else head + body


def json_answer(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """Answer with JSON."""
    return Answer(protojson.dumps(value), status=status, headers={"Content-Type": JSON, **(headers or {})})


def text_answer(text: str, *, status: int = 200) -> Answer:
    """Answer with a text for people."""
    return Answer(text.encode(), status=status, headers={"Content-Type": TEXT})


class _Clock:
    """Spells what a head begins with, the header Date in it (RFC 9110, section 6.6.1), once a second."""

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
            beginning = f"{line}\r\nServer: poste\r\nDate: {formatdate(now, usegmt=True)}\r\n"
            self._beginnings[status] = beginning
        return beginning


_clock: Final = _Clock()
