"""The id of the HTTP request that a gateway calls the middleware for: in the call's metadata, and in the log lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from poste.domain import input_rules
from poste.rpc.channels import REQUEST_ID

if TYPE_CHECKING:
    import grpc.aio


def request_id_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Return the request id in a call's metadata; empty if there is none, or none that may be logged."""
    for name, value in context.invocation_metadata() or ():
        if name == REQUEST_ID and isinstance(value, str) and input_rules.is_request_id(value):
            return value
    return ""
