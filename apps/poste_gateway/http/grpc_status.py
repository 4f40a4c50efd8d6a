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
    return Problem(kind, detail, details=[_detail(one, service) for one in status.details if not _is_debug(one)])


def debug_text(status: status_pb2.Status) -> str:
    """Return what a status tells the service's own people, such as an exception's text; empty if it tells nothing."""
    for packed in filter(_is_debug, status.details):
        try:
            told = error_details_pb2.DebugInfo.FromString(packed.value)
        except DecodeError:
            # It is as the handler made it.
            continue
        if told.detail:
            return str(told.detail)
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
