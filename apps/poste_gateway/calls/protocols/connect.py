"""Connect (https://connectrpc.com/docs/protocol): unary calls, also by GET, and streams that the server sends."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import hdrs, web
from multidict import istr

from poste import protojson
from poste.domain.codes import Code
from poste.rpc.catalogue import MethodKind, Service
from poste_gateway.calls import query
from poste_gateway.calls.protocols import envelopes, rpc
from poste_gateway.calls.protocols.envelopes import envelope
from poste_gateway.calls.protocols.rpc import JSON_CODEC, PROTO_CODEC, Codec, Rpc, RpcError
from poste_gateway.catalogue.route_table import Match
from poste_gateway.http.problem_types import NOT_JSON, OF_CODE
from poste_gateway.http.problems import Problem, invalid
from poste_gateway.http.responses import JSON, NO_STORE, Response

#: By it a call of Connect's in JSON is told from one of REST's.
VERSION: Final = istr("Connect-Protocol-Version")
_STREAM_CODING: Final = istr("Connect-Content-Encoding")
#: The verbs of a request whose query has all of it.
GETS: Final = (hdrs.METH_GET, hdrs.METH_HEAD)
#: What a GET of Connect's has in its query; the first may be missing, and the second may be another's parameter.
_VERSION_MARK: Final = re.compile(r"(?:^|&)connect=v1(?:&|$)")
_MARK: Final = re.compile(r"(?:^|&)(?:connect=v1|encoding=)")
#: The flag of the last message of a stream.
_LAST: Final = 2
#: The code that Connect spells in another way.
_CANCELLED: Final = "canceled"


class _Connect(Rpc):
    """Connect with one codec: of unary methods, or of those that answer with streams."""

    def __init__(self, codec: Codec, *, streams: bool) -> None:
        super().__init__(f"application/connect+{codec.name}" if streams else f"application/{codec.name}", codec)
        self.name = "connect"
        self._streams = streams
        self._coding = _STREAM_CODING if streams else hdrs.CONTENT_ENCODING

    def reader(self, request: web.BaseRequest, match: Match) -> Callable[[bytes], bytes]:
        method, read = match.method, self.codec.read
        if (method.kind is MethodKind.UNARY) is self._streams:
            takes = "application/json or application/proto" if self._streams else "application/connect+json or +proto"
            detail = f"{method.path.lstrip('/')} is called with the Content-Type {takes}."
            raise Problem(NOT_JSON, detail)
        if request.method in GETS:
            asked = _message_of(match.query)
            return lambda _: read(method.input, asked)
        if request.headers.get(VERSION, "1") != "1":
            raise invalid(VERSION, "must be 1")
        coding = request.headers.get(self._coding, rpc.IDENTITY)
        if coding != rpc.IDENTITY:
            raise rpc.no_compression(coding, self._coding)
        if self._streams:
            return lambda body: read(method.input, envelopes.the_one(body))
        return lambda body: read(method.input, body)

    def answer(
        self, match: Match, service: Service, response: bytes, returned: str, applied: Mapping[str, str]
    ) -> Response:
        headers = {**self.returned_headers(returned, service), "Content-Type": self.media_type, **applied}
        return Response(self.codec.write(match.method.output, response), headers=headers)

    def failed(self, error: RpcError, headers: Mapping[str, str], status: int | None = None) -> Response:
        if self._streams and status is None:
            head, trailing = rpc.parted(headers)
            body = self.last(trailing, error)
            return Response(body, headers={**NO_STORE, **head, "Content-Type": self.media_type})
        return Response(
            protojson.dumps(_to_value(error)),
            status=int(status or OF_CODE[error.code].status),
            headers={**NO_STORE, **headers, "Content-Type": JSON},
        )

    def last(self, trailing: Mapping[str, str], error: RpcError | None = None) -> bytes:
        value: dict[str, Any] = {} if error is None else {"error": _to_value(error)}
        if trailing:
            value["metadata"] = {key: [one] for key, one in trailing.items()}
        return envelope(_LAST, protojson.dumps(value))


JSON_UNARY: Final = _Connect(JSON_CODEC, streams=False)
_PROTO_UNARY: Final = _Connect(PROTO_CODEC, streams=False)
#: Those that their media type alone tells.
BY_MEDIA_TYPE: Final = (_PROTO_UNARY, _Connect(JSON_CODEC, streams=True), _Connect(PROTO_CODEC, streams=True))


def of_query(raw: str) -> Rpc | None:
    """Return the protocol of a GET with this query, as it came; None if it is none of Connect's.

    That of a codec that is unknown is told once it is read.
    """
    if _MARK.search(raw) is None:
        return None
    return _PROTO_UNARY if re.search(r"(?:^|&)encoding=proto(?:&|$)", raw) else JSON_UNARY


def names_itself(raw: str) -> bool:
    """Return whether a query says that it is of Connect, wherever it was sent."""
    return _VERSION_MARK.search(raw) is not None


def _message_of(raw: str) -> bytes:
    """Return the message in a GET's query.

    Raises:
        Problem: It can't be read.
    """
    asked: dict[str, str] = {}
    for name, value in query.read(raw):
        asked.setdefault(name, value)
    if asked.get("connect", "v1") != "v1":
        raise invalid("connect", "must be v1")
    if (encoding := asked.get("encoding")) not in (JSON_CODEC.name, PROTO_CODEC.name):
        raise Problem(NOT_JSON, "The query parameter encoding must be json or proto." if encoding else _NO_ENCODING)
    if "message" not in asked:
        raise invalid("message", "is required: the query parameter that is the request message")
    if (coding := asked.get("compression") or rpc.IDENTITY) != rpc.IDENTITY:
        raise rpc.no_compression(coding, "compression")
    message = asked["message"]
    if asked.get("base64") != "1":
        return message.encode()
    try:
        return base64.b64decode(message + "=" * (-len(message) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("message", "must be base64 in the alphabet for URLs") from error


_NO_ENCODING: Final = "The query parameter encoding is missing: it must be json or proto."


def _to_value(error: RpcError) -> dict[str, Any]:
    """Return an error as JSON values."""
    code = _CANCELLED if error.code is Code.CANCELLED else error.code.name.lower()
    value: dict[str, Any] = {"code": code, "message": error.message}
    if error.details:
        value["details"] = [_detail(one) for one in error.details]
    return value


def _detail(detail: rpc.Detail) -> dict[str, Any]:
    value = {"type": detail.type_name, "value": base64.b64encode(detail.value).rstrip(b"=").decode()}
    return value if detail.debug is None else {**value, "debug": detail.debug}
