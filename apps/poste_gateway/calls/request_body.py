"""What a call asks for: its body, as large as it may be and in time, and from that to the serialized message."""

from __future__ import annotations

import asyncio
import functools
from typing import Final

from aiohttp import StreamReader, web

from poste import protojson
from poste.domain import sizes
from poste_gateway.calls.offload import LARGE_BODY, Offload
from poste_gateway.calls.protocols import REST, Protocol
from poste_gateway.calls.protocols.rest import check_coding, check_type
from poste_gateway.catalogue.route_table import Match
from poste_gateway.http.problem_types import GATEWAY_BUSY, INVALID_REQUEST, REQUEST_TIMEOUT, TOO_LARGE
from poste_gateway.http.problems import RETRY_AFTER, Problem, unfit
from poste_gateway.limits.capacity import NoCapacityError
from poste_gateway.limits.clients import client_of

#: Why a body may not be read to its end.
_NOT_READ: Final = (NoCapacityError, web.RequestPayloadError, ConnectionError)


async def read(
    request: web.BaseRequest, match: Match, protocol: Protocol, offload: Offload, *, seconds: float
) -> bytes:
    """Read a call's request message.

    Args:
        request: The request.
        match: What it calls.
        protocol: How it is to be read.
        offload: Reads large ones.
        seconds: How long the client may take to bring its body.

    Returns:
        The serialized message.

    Raises:
        Problem: It is of another type, too large, did not come in time, or does not fit the message; or there is no
            room for it.
    """
    # One coroutine for all of it: each further one would cost every call.
    compose = None
    if protocol is REST and match.route.plain and not match.query:
        check_type(request)
    else:
        compose = protocol.reader(request, match)
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
        raise unfit(error) from error
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
    check_coding(request)
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
