"""What a call asks for: the body's type and size, and from path, query and body to the serialized message."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Final

from aiohttp import StreamReader, hdrs, web

from poste import protojson
from poste.domain import sizes
from poste_gateway.calls import query, shapes
from poste_gateway.calls.offload import LARGE_BODY, Offload
from poste_gateway.catalogue.route_table import Match
from poste_gateway.http.problem_types import GATEWAY_BUSY, INVALID_REQUEST, NOT_JSON, REQUEST_TIMEOUT, TOO_LARGE
from poste_gateway.http.problems import RETRY_AFTER, Problem
from poste_gateway.http.responses import JSON
from poste_gateway.limits.capacity import NoCapacityError
from poste_gateway.limits.clients import client_of

_UTF8: Final = ("utf-8", "utf8")
#: The content coding that is none (RFC 9110, section 12.5.3).
_PLAIN: Final = "identity"
#: Why a body may not be read to its end.
_NOT_READ: Final = (NoCapacityError, web.RequestPayloadError, ConnectionError)


async def read(request: web.BaseRequest, match: Match, offload: Offload, *, seconds: float) -> bytes:
    """Read a call's request message.

    Args:
        request: The request.
        match: What it calls.
        offload: Reads large ones.
        seconds: How long the client may take to bring its body.

    Returns:
        The serialized message.

    Raises:
        Problem: It is not JSON, too large, did not come in time, or does not fit the message; or there is no room
            for it.
    """
    # One coroutine for all of it: each further one would cost every call.
    compose = None
    if match.route.plain and not match.query:
        _check_type(request)
    else:
        compose = _composed(request, match)
    # `client_max_size` is the application's own limit; it holds for bodies without a length too.
    limit = request.client_max_size
    content = request.content
    try:
        # As a rule it came in with the head: then there is nothing to wait for.
        body = content.read_nowait() if content.is_eof() else await _awaited(request, seconds)
    except _NOT_READ as error:
        raise _not_read(error) from error
    if len(body) > limit:
        raise _too_large(limit)
    message = match.method.input
    try:
        if len(body) > LARGE_BODY:
            read = functools.partial(compose, body) if compose else functools.partial(protojson.decode, message, body)
            encoded = await offload.run(read, peer=client_of(request), size=len(body))
        else:
            # No body is the same as an empty message.
            encoded = compose(body) if compose else protojson.decode(message, body or b"{}")
    except protojson.FieldErrors as error:
        errors = [{"field": field, "reason": reason} for field, reason in error.errors]
        raise Problem(INVALID_REQUEST, str(error), errors=errors) from error
    if len(encoded) > sizes.MAX_PAYLOAD:
        # A number's digit or two may become eight bytes.
        raise Problem(
            TOO_LARGE,
            f"A call may have {sizes.MAX_PAYLOAD} bytes as a protobuf message; this body makes one of {len(encoded)}.",
        )
    return encoded


async def read_whole(request: web.BaseRequest, *, seconds: float) -> bytes:
    """Read a request's body as it is.

    Raises:
        Problem: It is compressed, too large, did not come in time, or there is no room for it.
    """
    _check_coding(request)
    try:
        body = await _awaited(request, seconds)
    except _NOT_READ as error:
        raise _not_read(error) from error
    return body


def _not_read(error: Exception) -> Problem:
    """Return the problem of a body that could not be read."""
    if isinstance(error, NoCapacityError):
        detail = "There is no room for the body, or for more of this client's. Nothing was accepted."
        return Problem(GATEWAY_BUSY, detail, headers=RETRY_AFTER)
    return Problem(INVALID_REQUEST, "The body is broken or incomplete.")


def _composed(request: web.BaseRequest, match: Match) -> Callable[[bytes], bytes]:
    """Return a function that makes the message of the body, path and query.

    Raises:
        Problem: The body's type, or the query, is wrong.
    """
    shape, parameters = shapes.shape_of(match.method, match.route), query.read(match.query)
    if shape.raw_body:
        _check_coding(request)
    elif match.route.body:
        _check_type(request)
    media_type = request.headers.get(hdrs.CONTENT_TYPE, "")

    def compose(body: bytes) -> bytes:
        said = protojson.Raw(media_type, body) if shape.raw_body else body
        return shape.composer.compose(said, match.captured, parameters)

    return compose


async def _awaited(request: web.BaseRequest, seconds: float) -> bytes:
    limit = request.client_max_size
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(seconds):
            return await _all_of(request.content, limit)
    except TimeoutError as error:
        # Nothing more is read, and the body counts as ended: else aiohttp goes on reading it after the answer.
        request.protocol.close()
        request.content.feed_eof()
        raise Problem(
            REQUEST_TIMEOUT, f"The body did not come within {seconds:g} seconds. Nothing was accepted."
        ) from error


async def _all_of(content: StreamReader, limit: int) -> bytes:
    """Read the body to its end; not by `request.read`, which keeps it for as long as the request lives."""
    parts, size = [], 0
    while part := await content.readany():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise _too_large(limit)
    return b"".join(parts)


def _too_large(limit: int) -> Problem:
    return Problem(TOO_LARGE, f"The body may have {limit} bytes.")


def _check_type(request: web.BaseRequest) -> None:
    headers = request.headers
    if headers.get(hdrs.CONTENT_TYPE) == JSON and hdrs.CONTENT_ENCODING not in headers:
        return
    if not request.body_exists:
        # Without bytes the Content-Type does not matter.
        return
    if request.content_type != JSON:
        raise Problem(NOT_JSON, "The header Content-Type must be application/json.")
    if (request.charset or _UTF8[0]).lower() not in _UTF8:
        raise Problem(NOT_JSON, "The charset must be utf-8.")
    _check_coding(request)


def _check_coding(request: web.BaseRequest) -> None:
    if request.headers.get("Content-Encoding", _PLAIN).lower() != _PLAIN:
        raise Problem(NOT_JSON, "The body must not be compressed.")
