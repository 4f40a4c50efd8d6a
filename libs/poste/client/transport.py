"""One HTTP exchange with a gateway: its deadline, and what each way to fail means for the caller."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from poste.client.errors import AnswerLost, GatewayUnreachable, NotAGateway, Problem

#: A gateway that does not take a connection within this time, in seconds, counts as unreachable.
_CONNECT_SECONDS: Final = 5.0
_FIRST_ERROR: Final = 400
#: The type of an answer that is a stream of messages.
_STREAM: Final = "application/x-ndjson"
#: Names a request in the logs: each is given one here, so that one whose answer is lost has it too.
REQUEST_ID: Final = "X-Request-Id"


@dataclass(frozen=True, slots=True)
class Reply:
    """A gateway's answer that is no error.

    Attributes:
        status: The HTTP status.
        document: The JSON object of its body; one of a stream's messages is any JSON.
        streamed: It is one of a stream's messages.
    """

    status: int
    document: Any
    streamed: bool = False


class Transport:
    """Sends requests to one gateway, over connections that it keeps."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self._url = url
        self._key = {"Authorization": f"Bearer {key}"} if key else {}
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Get ready to send."""
        # A redirect would send a call somewhere else than it was meant for, so none is followed (see `replies`).
        self._session = aiohttp.ClientSession(raise_for_status=False)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(
        self,
        verb: str,
        path: str,
        *,
        timeout_seconds: float,
        headers: Mapping[str, str] | None = None,
        message: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> Reply:
        """Send one request and read its one answer.

        Raises:
            Problem: The gateway answered with an error.
            GatewayUnreachable: Nothing was sent.
            AnswerLost: It was sent, and no whole answer came within the deadline.
            NotAGateway: The answer is not one that a gateway gives.
            ValueError: The message holds what JSON can't say (NaN, infinity), or a stream came in answer.
        """
        sending = self.replies(verb, path, timeout_seconds=timeout_seconds, headers=headers, message=message)
        async with contextlib.aclosing(sending) as replies:
            async for reply in replies:
                if not reply.streamed:
                    return reply
                break
        raise ValueError(f"{path} answers with a stream")

    async def replies(
        self,
        verb: str,
        path: str,
        *,
        timeout_seconds: float,
        headers: Mapping[str, str] | None = None,
        message: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> AsyncGenerator[Reply, None]:
        """Send one request and yield its answer, or as many messages as its stream has.

        The deadline is that of an answer, or of a stream's beginning: how long it lasts, gateway and service say.

        Raises:
            Problem: The gateway answered with an error, or a stream ended with one.
            GatewayUnreachable: Nothing was sent.
            AnswerLost: It was sent, and no whole answer came within the deadline, or the stream broke.
            NotAGateway: The answer is not one that a gateway gives.
            ValueError: The message holds what JSON can't say (NaN, infinity).
        """
        body = None if message is None else json.dumps(message, allow_nan=False).encode()
        sent = {REQUEST_ID: new_request_id(), **self._key, **_trace(), **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        with self._failures(f"{self._url} did not answer within {timeout_seconds:g} s", sent[REQUEST_ID]):
            async with contextlib.AsyncExitStack() as stack:
                async with asyncio.timeout(timeout_seconds):
                    response = await stack.enter_async_context(
                        self._opened.request(
                            verb, self._url + path, data=body, headers=sent, timeout=limits, allow_redirects=False
                        )
                    )
                    streams = response.content_type == _STREAM
                    whole = b"" if streams else await response.read()
                if not streams:
                    yield self._reply(response, whole)
                    return
                # Not by `readline`, which has a longest line.
                rest: list[bytes] = []
                async for chunk in response.content.iter_any():
                    first, *more = chunk.split(b"\n")
                    rest.append(first)
                    for start in more:
                        yield self._message(response, b"".join(rest))
                        rest = [start]

    async def events(
        self, path: str, *, silence_seconds: float, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Follow a stream of events; yields the name and the data of each.

        Args:
            path: Where it is.
            silence_seconds: How long nothing may come.
            headers: Sent with the request.

        Raises:
            Problem: The gateway answered with an error.
            GatewayUnreachable: There is no way to it.
            AnswerLost: The stream ended, or nothing came for too long.
            NotAGateway: The answer is not one that a gateway gives.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence_seconds)
        sent = {REQUEST_ID: new_request_id(), **self._key, **(headers or {})}
        with self._failures(f"nothing came from {self._url} for {silence_seconds:g} s", sent[REQUEST_ID]):
            async with self._opened.get(
                self._url + path, headers=sent, timeout=limits, allow_redirects=False
            ) as response:
                if response.content_type != "text/event-stream":
                    self._reply(response, await response.read())
                    raise NotAGateway(f"{self._url} does not answer as a Poste gateway: no events")
                rest = b""
                async for chunk in response.content.iter_any():
                    *blocks, rest = (rest + chunk).split(b"\n\n")
                    for block in blocks:
                        event = _event(block.decode())
                        if event is not None:
                            yield event
        raise AnswerLost(f"{self._url} ended the stream", request_id=sent[REQUEST_ID])

    @property
    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is not open: use it in `async with`")
        return self._session

    @contextlib.contextmanager
    def _failures(self, late: str, request_id: str) -> Iterator[None]:
        """Say what each way to fail means for a request; `late` what it means if time ran out."""
        try:
            yield
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise GatewayUnreachable(f"no gateway answers at {self._url}") from error
        except TimeoutError as error:
            raise AnswerLost(late, request_id=request_id) from error
        except aiohttp.ClientResponseError as error:
            raise NotAGateway(f"{self._url} does not answer in HTTP") from error
        except aiohttp.ClientError as error:
            broken = f"{self._url} broke the connection before it answered"
            raise AnswerLost(broken, request_id=request_id) from error

    def _message(self, response: aiohttp.ClientResponse, line: bytes) -> Reply:
        """Read a line of a stream."""
        document = _json_object(line) or {}
        if "result" in document:
            return Reply(response.status, document["result"], streamed=True)
        problem = document.get("error")
        if not isinstance(problem, dict):
            raise NotAGateway(f"{self._url} does not answer as a Poste gateway: a line without a message")
        status = problem.get("status")
        raise Problem(
            problem,
            status=status if isinstance(status, int) else response.status,
            request_id=response.headers.get(REQUEST_ID, ""),
        )

    def _reply(self, response: aiohttp.ClientResponse, body: bytes) -> Reply:
        document = _json_object(body)
        if document is None:
            raise NotAGateway(f"{self._url} does not answer as a Poste gateway: HTTP {response.status}, no JSON")
        if response.status < _FIRST_ERROR:
            return Reply(response.status, document)
        if response.content_type != "application/problem+json":
            raise NotAGateway(f"{self._url} does not answer as a Poste gateway: HTTP {response.status}")
        retry_after = response.headers.get("Retry-After", "")
        raise Problem(
            document,
            status=response.status,
            retry_after_seconds=int(retry_after) if retry_after.isdecimal() else None,
            location=response.headers.get("Location", ""),
            request_id=response.headers.get(REQUEST_ID, ""),
        )


def new_request_id() -> str:
    """Return an id for a request."""
    return secrets.token_hex(8)


def _trace() -> dict[str, str]:
    """Return the headers of the trace that the caller's code is a part of (W3C `traceparent`), if it is in one."""
    headers: dict[str, str] = {}
    # A program that is traced has loaded it; for any other it would be megabytes for nothing.
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry import propagate  # noqa: PLC0415 - as said

        propagate.inject(headers)
    return headers


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _event(block: str) -> tuple[str, dict[str, Any]] | None:
    """Read one event of a stream; None if it is a comment, or its data is no JSON object."""
    fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
    document = _json_object(fields.get("data", "").encode())
    return None if document is None else (fields.get("event", ""), document)
