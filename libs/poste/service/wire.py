"""A call that came by itself, on gRPC's own wire: what came with it, and how it is ended there."""

from __future__ import annotations

import time
from typing import Any, TypeAlias

import grpc.aio

from poste.domain import input_rules, traceparents
from poste.domain.codes import Code
from poste.rpc.channels import NOT_RUN
from poste.service.call import ATTEMPT, REQUEST_ID, TASK_ID, TASK_KEY, Call
from poste.service.outcome import STATUS_CODES, Metadata, Metadatum, Outcome

Wire: TypeAlias = grpc.aio.ServicerContext[Any, Any]


def call_of(wire: Wire) -> Call:
    """Return the call that came over the wire."""
    # Read now: once the call is over its context leads nowhere, and a `def` handler may ask late.
    remaining: float | None = wire.time_remaining()
    metadata = _metadata(wire)
    request_id = _of(metadata, REQUEST_ID)
    return Call(
        given=metadata,
        request_id=request_id if input_rules.is_request_id(request_id) else "",
        peer=wire.peer(),
        deadline=None if remaining is None else time.monotonic() + remaining,
        wire=wire,
        traceparent=traceparents.read(_of(metadata, traceparents.HEADER)),
    )


async def end(wire: Wire, outcome: Outcome) -> bytes:
    """End a call: set its trailers, and return its response.

    Raises:
        grpc.aio.AbortError: It ends with an error.
    """
    if outcome.not_run:
        await wire.abort(STATUS_CODES[outcome.code], outcome.details, ((NOT_RUN, "1"),))
    if outcome.code is not Code.OK:
        outcome = outcome.bounded()
        await wire.abort(STATUS_CODES[outcome.code], outcome.details, outcome.trailing_metadata)
    if outcome.trailing_metadata:
        wire.set_trailing_metadata(outcome.trailing_metadata)
    return outcome.response


def _of(metadata: Metadata, key: str) -> str:
    return next((value for one, value in metadata if one == key and isinstance(value, str)), "")


def _metadata(wire: Wire) -> Metadata:
    pairs = [Metadatum(key, value) for key, value in wire.invocation_metadata() or () if key not in (TASK_ID, TASK_KEY)]
    if all(pair.key != ATTEMPT for pair in pairs):
        pairs.append(Metadatum(ATTEMPT, "1"))
    return tuple(pairs)
