"""What a handler may say through its context, and what it may not."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.rpc import status_pb2

from poste.domain.codes import Code
from poste.service.call import Call, checked
from poste.service.context import AsyncContext, SyncContext
from poste.service.outcome import Outcome


def test_metadata_that_grpc_cannot_send_is_refused_at_once() -> None:
    """Without it gRPC would find out while it ends the call, and the client would wait for its deadline."""
    for pair in (("Upper", "x"), ("", "x"), ("key", "ünprintable"), ("key", "line\nbreak"), ("spa ce", "x")):
        with pytest.raises(ValueError, match="metadata"):
            checked([pair])
    good = [("key", "value"), ("raw", b"ascii"), ("some-bin", b"\x00\xff"), ("text-bin", "text")]

    assert checked(good) == (("key", "value"), ("raw", "ascii"), ("some-bin", b"\x00\xff"), ("text-bin", b"text"))


def test_only_the_library_proves_that_a_call_did_not_run() -> None:
    """Without it a handler that passes on another call's trailers would have its own work done twice."""
    assert checked([("poste-not-run", "1"), ("other", "1")]) == (("other", "1"),)


async def test_the_first_abort_stands() -> None:
    """Without it the answer would depend on which of two aborts the road saw."""
    call = Call()
    context = AsyncContext(call)
    with pytest.raises(grpc.aio.AbortError):
        await context.abort(grpc.StatusCode.NOT_FOUND, "first")
    with pytest.raises(grpc.aio.UsageError):
        await context.abort(grpc.StatusCode.INTERNAL, "second")

    assert call.failure() == Outcome(Code.NOT_FOUND, "first")
    assert context.done()


async def test_an_abort_without_words_keeps_those_set_before() -> None:
    """Without it details set first would be lost, which gRPC keeps."""
    call = Call()
    context = AsyncContext(call)
    context.set_details("said before")
    context.set_trailing_metadata((("key", "value"),))
    with pytest.raises(grpc.aio.AbortError):
        await context.abort(grpc.StatusCode.NOT_FOUND)

    assert call.failure() == Outcome(Code.NOT_FOUND, "said before", trailing_metadata=(("key", "value"),))


async def test_a_unary_method_neither_reads_nor_writes() -> None:
    """Without it such a mistake would wait for ever on the queued road, where there is no stream."""
    context = AsyncContext(Call())
    with pytest.raises(grpc.aio.UsageError):
        await context.read()
    with pytest.raises(grpc.aio.UsageError):
        await context.write(b"")


async def test_a_callback_added_late_is_refused() -> None:
    """Without it the caller would wait for a call that never comes, where grpc's own context says so."""
    import asyncio  # noqa: PLC0415 - the loop only

    call = Call()
    context = SyncContext(call, asyncio.get_running_loop())
    call.close()

    assert not context.add_callback(lambda: None)
    assert not context.is_active()
    assert not context.cancel()


def test_codes_by_number_are_understood() -> None:
    """Without it a handler that sets a plain number would fail on one road, as gRPC takes both."""
    call = Call()
    call.set_code(5)
    assert call.status_code is grpc.StatusCode.NOT_FOUND
    call.set_code(999)
    assert call.status_code is grpc.StatusCode.UNKNOWN


def test_a_rich_status_of_another_code_is_not_believed() -> None:
    """Without it a stale trailer would replace the code that the handler ended with."""
    stale = status_pb2.Status(code=5, message="stale").SerializeToString()
    outcome = Outcome(Code.ABORTED, "fresh", trailing_metadata=checked([("grpc-status-details-bin", stale)]))

    assert outcome.status() == status_pb2.Status(code=10, message="fresh")


def test_text_that_is_not_unicode_can_be_reported() -> None:
    """Without it a handler's odd text would make its result impossible to report."""
    call = Call()
    call.set_code(grpc.StatusCode.INTERNAL)
    call.details = "half \ud83d"

    assert call.failure().status().message == "half ?"
