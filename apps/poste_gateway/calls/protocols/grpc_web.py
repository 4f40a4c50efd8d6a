"""gRPC-Web, binary and as text: gRPC whose trailers are the body's last frame.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote

from aiohttp import web
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import status_pb2

from poste.domain import sizes
from poste.rpc.catalogue import Service
from poste_gateway.calls.protocols import envelopes, rpc
from poste_gateway.calls.protocols.envelopes import envelope
from poste_gateway.calls.protocols.rpc import JSON_CODEC, PROTO_CODEC, Codec, Rpc, RpcError
from poste_gateway.catalogue.route_table import Match
from poste_gateway.http.problem_types import INVALID_REQUEST
from poste_gateway.http.problems import Problem
from poste_gateway.http.responses import NO_STORE, Response

_TYPE_URL: Final = "type.googleapis.com/"
#: The flag of the frame that is the trailers.
_TRAILERS: Final = 0x80
#: One piece of text in base64: its padding, if it has any, ends it, and what follows is another one.
_PIECE: Final = re.compile(rb"[^=]+={0,2}")
#: What of a status' text stands as it is (gRPC over HTTP/2, "Status-Message").
_SAFE: Final = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"


class _GrpcWeb(Rpc):
    """gRPC-Web of one media type."""

    name = "grpc-web"

    def __init__(self, media_type: str, codec: Codec) -> None:
        super().__init__(media_type, codec)
        self._text = "-text" in media_type

    def reader(self, request: web.BaseRequest, match: Match) -> Callable[[bytes], bytes]:
        coding = request.headers.get("Grpc-Encoding", rpc.IDENTITY)
        if coding != rpc.IDENTITY:
            raise rpc.no_compression(coding, "Grpc-Encoding")

        def read(body: bytes) -> bytes:
            return self.codec.read(match.method.input, envelopes.the_one(_decoded(body) if self._text else body))

        return read

    def answer(
        self, match: Match, service: Service, response: bytes, returned: str, applied: Mapping[str, str]
    ) -> Response:
        head, trailing = rpc.parted(self.returned_headers(returned, service))
        body = envelope(0, self.codec.write(match.method.output, response)) + self.last(trailing)
        return Response(self.spelt(body), headers={**head, "Content-Type": self.media_type, **applied})

    def failed(self, error: RpcError, headers: Mapping[str, str], status: int | None = None) -> Response:
        head, trailing = rpc.parted(headers)
        body = self.spelt(self.last(trailing, error))
        return Response(body, status=int(status or 200), headers={**NO_STORE, **head, "Content-Type": self.media_type})

    def last(self, trailing: Mapping[str, str], error: RpcError | None = None) -> bytes:
        lines = dict(trailing)
        lines["grpc-status"] = "0" if error is None else str(int(error.code))
        if error is not None:
            lines["grpc-message"] = quote(error.message[: sizes.MAX_STATUS_TEXT], safe=_SAFE, errors="replace")
            if error.details:
                details = [AnyMessage(type_url=_TYPE_URL + one.type_name, value=one.value) for one in error.details]
                status = status_pb2.Status(code=int(error.code), message=error.message, details=details)
                lines["grpc-status-details-bin"] = base64.b64encode(status.SerializeToString()).decode()
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return envelope(_TRAILERS, text.encode("ascii"))

    def spelt(self, body: bytes) -> bytes:
        return base64.b64encode(body) if self._text else body


_PROTO: Final = ("application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text")
ALL: Final = (
    *(_GrpcWeb(media_type, PROTO_CODEC) for media_type in (*_PROTO, "application/grpc-web-text+proto")),
    _GrpcWeb("application/grpc-web+json", JSON_CODEC),
)


def _decoded(text: bytes) -> bytes:
    try:
        return b"".join(base64.b64decode(piece, validate=True) for piece in _PIECE.findall(text))
    except (binascii.Error, ValueError) as error:
        raise Problem(INVALID_REQUEST, "The body must be base64.") from error
