"""From the status that a service answered with to the problem that its client sees: the same on both roads.

A detail of the type google.rpc.DebugInfo is for the service's own people: no client sees it, operators see its text.
"""

from __future__ import annotations

import base64
from typing import Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from poste import protojson
from poste.domain.codes import Code, code_of
from poste.protojson import standard
from poste.rpc.catalogue import Service
from poste.rpc.statuses import is_too_large
from poste_gateway.http.problem_types import OF_CODE, PAYLOAD_TOO_LARGE
from poste_gateway.http.problems import Problem

#: The longest wait that an answer names, in seconds: a year.
_LONGEST_RETRY_SECONDS: Final = 366 * 86_400
#: Statuses that gRPC makes itself out of an exception, with its text.
_UNEXPECTED: Final = (Code.UNKNOWN, Code.INTERNAL)


def problem_of(status: status_pb2.Status, service: Service | None) -> Problem:
    """Return the problem that a status is.

    Args:
        status: What the service, or Poste, ended the call with; never OK.
        service: The service; None if it is not in the catalogue any more.
    """
    if is_too_large(status):
        return Problem(PAYLOAD_TOO_LARGE, status.message)
    code = code_of(status.code) or Code.UNKNOWN
    kind = OF_CODE[code]
    detail = status.message or f"{kind.title}."
    if code in _UNEXPECTED and not (service is not None and service.library):
        # Only the worker library is known to keep an exception's text to itself.
        detail = f"{kind.title}."
    headers = {} if (seconds := _retry_seconds(status)) is None else {"Retry-After": str(seconds)}
    details = [one for one in status.details if not _is_debug(one)]
    return Problem(
        kind,
        detail,
        headers=headers,
        packed=[(one.TypeName(), one.value) for one in details],
        details=[_detail(one, service) for one in details],
    )


def _retry_seconds(status: status_pb2.Status) -> int | None:
    """Return how long the service says to wait before another try; None if it says nothing of that."""
    for packed in status.details:
        if packed.TypeName() != error_details_pb2.RetryInfo.DESCRIPTOR.full_name:
            continue
        try:
            delay = error_details_pb2.RetryInfo.FromString(packed.value).retry_delay
        except DecodeError:
            # It is as the handler made it.
            continue
        if 0 <= delay.seconds <= _LONGEST_RETRY_SECONDS:
            return int(delay.seconds + (delay.nanos > 0))
    return None


def debug_text(status: status_pb2.Status) -> str:
    """Return a status' DebugInfo, such as an exception's text, which is for operators; empty if there is none."""
    for packed in filter(_is_debug, status.details):
        try:
            info = error_details_pb2.DebugInfo.FromString(packed.value)
        except DecodeError:
            # It is as the handler made it.
            continue
        if info.detail:
            return str(info.detail)
    return ""


def _is_debug(packed: AnyMessage) -> bool:
    # Not Any.Is: a type's URL without a slash, which that refuses, would be shown with its value.
    return bool(packed.TypeName() == error_details_pb2.DebugInfo.DESCRIPTOR.full_name)


def _detail(packed: AnyMessage, service: Service | None) -> dict[str, Any]:
    pool = standard.pool() if service is None else service.pool
    try:
        return protojson.any_to_value(packed.type_url, packed.value, pool)
    except protojson.UnprintableError:
        # The status is worth more than its detail.
        return {"@type": packed.type_url, "value": base64.b64encode(packed.value).decode()}
