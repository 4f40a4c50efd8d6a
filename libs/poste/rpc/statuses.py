"""Rich statuses: google.rpc.Status, which travels in the trailer `grpc-status-details-bin` beside code and message."""

from __future__ import annotations

from typing import Final

import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from poste.domain import sizes
from poste.domain.codes import Code

#: The trailer that carries a serialized google.rpc.Status.
DETAILS_TRAILER: Final = "grpc-status-details-bin"
#: The detail that marks a response too large for a message, unlike anything else that a handler fails with.
_TOO_LARGE: Final = AnyMessage()
_TOO_LARGE.Pack(error_details_pb2.ErrorInfo(domain="poste", reason="RESPONSE_TOO_LARGE"))
#: What gRPC says where it refuses what a server sent, for its size, before its own words for what that is.
_REFUSED_HERE: Final = "Stream removed ("


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Return the status that a call failed with; details included if the server sent them and they are sound."""
    code, message = error.code().value[0], error.details() or ""
    if code == Code.RESOURCE_EXHAUSTED and message.startswith(_REFUSED_HERE):
        # Made on this side, by a limit of this side's. Only its text distinguishes it from a server's own, so it
        # decides nothing but the client's message: both say that the call ran.
        return too_large(
            f"the response, or what comes with it, is too large: a message carries {sizes.MAX_PAYLOAD} bytes"
        )
    rich = rich_status(tuple(error.trailing_metadata() or ()))
    if rich is not None and rich.code == code:
        return rich
    return status_pb2.Status(code=code, message=message)


def rich_status(trailing_metadata: tuple[tuple[str, str | bytes], ...]) -> status_pb2.Status | None:
    """Return the status that the trailers carry, if they carry a sound one."""
    for key, value in trailing_metadata:
        if key == DETAILS_TRAILER and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def bounded(status: status_pb2.Status) -> status_pb2.Status:
    """Return a status as it may be kept: one that is too large loses its details, and its text's end."""
    if status.ByteSize() <= sizes.MAX_KEPT_STATUS:
        return status
    return status_pb2.Status(code=status.code, message=status.message[: sizes.MAX_STATUS_TEXT])


def too_large(words: str) -> status_pb2.Status:
    """Return the status of a call whose handler answered with more than a message carries."""
    return status_pb2.Status(code=Code.INTERNAL, message=words, details=[_TOO_LARGE])


def response_too_large(size: int) -> status_pb2.Status:
    """Return that status of a response of so many bytes."""
    return too_large(f"the response has {size} bytes: a message carries {sizes.MAX_PAYLOAD}")


def is_too_large(status: status_pb2.Status) -> bool:
    """Return whether a status is that of a response that no message carries."""
    return _TOO_LARGE in status.details
