"""Rich statuses: google.rpc.Status, which travels in the trailer `grpc-status-details-bin` beside code and message."""

from __future__ import annotations

from typing import Final

import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

#: The trailer that carries a serialized google.rpc.Status.
DETAILS_TRAILER: Final = "grpc-status-details-bin"


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Return the status that a call failed with; details included if the server sent them and they are sound."""
    code, message = error.code().value[0], error.details() or ""
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
