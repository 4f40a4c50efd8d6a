"""Handlers that behave in every way a handler can, by name, for the tests that compare the two roads."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from testing.v1 import ledger_pb2, ledger_pb2_grpc

Response = ledger_pb2.RecordResponse


class _Status(NamedTuple):
    """What `grpc_status.rpc_status.to_status` makes."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


def rich() -> Any:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason="EMPTY", domain="ledger"))
    status = status_pb2.Status(code=9, message="the ledger is shut", details=[detail])
    return _Status(
        grpc.StatusCode.FAILED_PRECONDITION, status.message, (("grpc-status-details-bin", status.SerializeToString()),)
    )


async def answers(_: Any, __: Any) -> Any:
    return Response(line="done", run=7)


async def aborts(_: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.NOT_FOUND, "no such line")


async def aborts_with_rich_status(_: Any, context: Any) -> Any:
    await context.abort_with_status(rich())


async def sets_code(_: Any, context: Any) -> Any:
    context.set_code(grpc.StatusCode.ALREADY_EXISTS)
    context.set_details("written before")
    return Response(line="dropped")


async def sets_code_and_rich_trailer(_: Any, context: Any) -> Any:
    status = rich()
    context.set_code(status.code)
    context.set_details(status.details)
    context.set_trailing_metadata(status.trailing_metadata)
    return Response()


async def sets_ok(_: Any, context: Any) -> Any:
    context.set_code(grpc.StatusCode.OK)
    return Response(line="fine")


async def swallows_its_abort(_: Any, context: Any) -> Any:
    try:
        await context.abort(grpc.StatusCode.ABORTED, "try again")
    except Exception:  # noqa: BLE001 - the mistake that is tried
        return Response(line="dropped")


async def raises(_: Any, __: Any) -> Any:
    raise ValueError("secret \ud800")


async def raises_at_length(_: Any, __: Any) -> Any:
    # Uncut, it would be more than a status may have.
    raise ValueError("\U0001f4ee" * 20_000)


async def says_why_and_raises(_: Any, context: Any) -> Any:
    context.set_code(grpc.StatusCode.PERMISSION_DENIED)
    context.set_details("not yours")
    raise RuntimeError


async def exits(_: Any, __: Any) -> Any:
    sys.exit(3)


async def lets_a_cancellation_escape(_: Any, __: Any) -> Any:
    inner = asyncio.create_task(asyncio.sleep(60))
    inner.cancel()
    await inner


async def returns_nothing(_: Any, __: Any) -> Any:
    return None


async def returns_another_message(_: Any, __: Any) -> Any:
    return status_pb2.Status()


async def aborts_with_ok(_: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.OK, "well")


async def aborts_with_bad_metadata(_: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.NOT_FOUND, "no", (("Not A Key", "value"),))


async def claims_not_to_have_run(_: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "copied", (("poste-not-run", "1"),))


async def uses_the_whole_context(_: Any, context: Any) -> Any:
    context.set_compression(grpc.Compression.NoCompression)
    await context.send_initial_metadata((("early", "bird"),))
    context.disable_next_message_compression()
    context.add_done_callback(lambda _: None)
    assert context.time_remaining() > 0
    assert isinstance(context.peer(), str)
    assert context.peer_identities() is None
    assert context.peer_identity_key() is None
    assert context.auth_context() == {}
    assert not context.cancelled()
    assert not context.done()
    assert context.code() is None
    assert dict(context.invocation_metadata())["poste-attempt"] == "1"
    context.set_trailing_metadata((("late", "riser"),))
    assert context.trailing_metadata() == (("late", "riser"),)
    context.set_details("ignored")
    assert context.details() == "ignored"
    return Response(line="used")


def sync_answers(_: Any, __: Any) -> Any:
    return Response(line="threaded")


def sync_aborts(_: Any, context: Any) -> Any:
    context.abort(grpc.StatusCode.OUT_OF_RANGE, "past the end")


def sync_aborts_with_rich_status(_: Any, context: Any) -> Any:
    context.abort_with_status(rich())


def sync_cancels(_: Any, context: Any) -> Any:
    assert context.is_active()
    assert context.cancel()
    assert not context.cancel()
    return Response(line="dropped")


def sync_raises_stop_iteration(_: Any, __: Any) -> Any:
    return next(iter(()))


def sync_uses_the_whole_context(_: Any, context: Any) -> Any:
    context.send_initial_metadata((("early", "bird"),))
    assert context.add_callback(lambda: None)
    assert context.time_remaining() > 0
    assert context.is_active()
    time.sleep(0)
    return Response(line="used")


def _named(*functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {function.__name__: function for function in functions}


ASYNC = _named(
    answers,
    aborts,
    aborts_with_rich_status,
    sets_code,
    sets_code_and_rich_trailer,
    sets_ok,
    swallows_its_abort,
    raises,
    raises_at_length,
    says_why_and_raises,
    exits,
    lets_a_cancellation_escape,
    returns_nothing,
    returns_another_message,
    aborts_with_ok,
    aborts_with_bad_metadata,
    claims_not_to_have_run,
    uses_the_whole_context,
)
SYNC = _named(
    sync_answers,
    sync_aborts,
    sync_aborts_with_rich_status,
    sync_cancels,
    sync_raises_stop_iteration,
    sync_uses_the_whole_context,
)


class Behaving(ledger_pb2_grpc.LedgerServiceServicer):
    """`Look` and `Legacy` behave as the request's line says; `Record` and `Store` are not implemented."""

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        return await ASYNC[request.line](request, context)

    def Legacy(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        return SYNC[request.line](request, context)
