"""Partial bodies (`body:` and `response_body` of a route) and `google.api.HttpBody`.

A request's message may be spread over path, query and body; the body may be the JSON of one field, or the raw bytes of
a `google.api.HttpBody`. An answer may be one field or an `HttpBody` too.
"""

from __future__ import annotations

import functools
import re
from typing import Final, NamedTuple

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from poste import protojson
from poste.protojson.plans import class_of
from poste.rpc.catalogue import Method
from poste.rpc.http_rules import fields
from poste.rpc.http_rules.rules import WHOLE, Route
from poste_gateway.http.responses import JSON, SANDBOX

#: The media type of bytes without one (RFC 9110, section 8.3).
UNKNOWN: Final = "application/octet-stream"
#: A media type, perhaps with parameters, that may be written into a header.
_MEDIA_TYPE: Final = re.compile(r"[\w!#$&^.+*-]{1,127}/[\w!#$&^.+*-]{1,127}(?:[ \t]*;[\x20-\x7e\t]*)?", re.ASCII)
_LONGEST_TYPE: Final = 500


class Shape(NamedTuple):
    """How the messages of one route are read and written.

    Attributes:
        composer: Makes request messages of path, query and body.
        raw_body: The body is the bytes of a google.api.HttpBody.
        raw_answer: The answer is.
    """

    composer: protojson.Composer
    raw_body: bool
    raw_answer: bool


class Written(NamedTuple):
    """An answer's body, and the headers that describe it."""

    body: bytes
    headers: dict[str, str]


# Bounded, since each keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=4096)
def shape_of(method: Method, route: Route) -> Shape:
    """Return how the messages of a method's route are read and written."""
    captured = [variable.field for variable in route.template.variables]
    return Shape(
        protojson.Composer(method.input, body=route.body, captured=captured),
        raw_body=not route.default and _is_raw(method.input, route.body),
        raw_answer=not route.default and _is_raw(method.output, route.response_field or WHOLE),
    )


def write(method: Method, route: Route, response: bytes) -> Written:
    """Write an answer.

    Raises:
        UnprintableError: The bytes are no such message, or it holds what JSON can't.
    """
    if not shape_of(method, route).raw_answer:
        return Written(protojson.encode(method.output, response, route.response_field), {"Content-Type": JSON})
    message = class_of(method.output)
    try:
        held = message.FromString(response)
    except DecodeError as error:
        reason = f"its bytes are no {method.output.full_name}"
        raise protojson.UnprintableError(protojson.FieldError("", reason)) from error
    body = getattr(held, route.response_field) if route.response_field else held
    media_type = body.content_type
    if len(media_type) > _LONGEST_TYPE or not _MEDIA_TYPE.fullmatch(media_type):
        media_type = UNKNOWN
    # What a service answers is no page of the gateway's own, whatever it says: it sees nothing of what that keeps.
    return Written(body.data, {"Content-Type": media_type, **SANDBOX})


def _is_raw(message: Descriptor, path: str) -> bool:
    if path == WHOLE:
        return bool(message.full_name == fields.HTTP_BODY)
    return bool(path) and fields.is_http_body(fields.find(message, path))
