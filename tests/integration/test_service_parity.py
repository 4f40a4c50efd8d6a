"""A handler means the same on both roads."""

from __future__ import annotations

import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from support.behaviours import ASYNC, SYNC, Behaving
from support.linked import linked
from support.worker import FakeMom, RunningWorker, claimed, line, running_worker, serving_mom
from testing.v1 import ledger_pb2

from poste.domain.codes import Code
from poste.rpc.statuses import status_of
from poste.upstream.failure import Failure, of_error
from poste.upstream.outgoing_call import OutgoingCall

SERVICE = "/testing.v1.LedgerService"
#: Handlers whose exception is shown to operators on the queued road (in the task's detail), and not on the direct one.
UNEXPECTED = {
    "raises": "ValueError: secret ?",
    "raises_at_length": "ValueError: \U0001f4ee",
    "exits": "SystemExit: 3",
    "lets_a_cancellation_escape": "CancelledError: ",
    "returns_nothing": "TypeError: ",
    "returns_another_message": "TypeError: ",
    "aborts_with_ok": "ValueError: abort needs a code other than OK",
    "aborts_with_bad_metadata": "ValueError: metadata key 'Not A Key'",
    "sync_raises_stop_iteration": "",
}
CASES = [("Look", name) for name in ASYNC] + [("Legacy", name) for name in SYNC]


#: What the client gets, for handlers that say it themselves: both roads could agree on something wrong.
SAID = {
    "aborts": (Code.NOT_FOUND, "no such line"),
    "aborts_with_rich_status": (Code.FAILED_PRECONDITION, "the ledger is shut"),
    "sets_code": (Code.ALREADY_EXISTS, "written before"),
    "swallows_its_abort": (Code.ABORTED, "try again"),
    "says_why_and_raises": (Code.PERMISSION_DENIED, "not yours"),
    "sync_aborts": (Code.OUT_OF_RANGE, "past the end"),
    "sync_cancels": (Code.CANCELLED, ""),
}


async def test_both_roads_end_the_same(subtests: pytest.Subtests) -> None:
    """Without it a client would see another error while the service is away than while it is up."""
    mom = FakeMom()
    async with (
        serving_mom(mom) as target,
        running_worker(Behaving(), mom=target) as worker,
        linked(worker.target) as replica,
    ):
        for method, name in CASES:
            with subtests.test(name):
                by_itself = await call(worker, method, name)
                await compare(worker, mom, method, name, by_itself)
            with subtests.test(f"{name}, by the link"):
                by_link = await replica.call(
                    OutgoingCall(f"{SERVICE}/{method}", line(name).SerializeToString(), "id"), 10
                )
                await compare(worker, mom, method, name, by_link)


async def call(worker: RunningWorker, method: str, name: str) -> Failure | bytes:
    try:
        return await worker.call(f"{SERVICE}/{method}", line(name))
    except grpc.aio.AioRpcError as error:
        return of_error(error)


async def compare(worker: RunningWorker, mom: FakeMom, method: str, name: str, answer: Failure | bytes) -> None:
    direct: status_pb2.Status | bytes = answer
    if isinstance(answer, Failure):
        assert not answer.not_run, "the handler did run"
        direct = answer.status
    await worker.consumers[0].hand(claimed(method, line(name)))
    completion = mom.completions[-1]
    if completion.WhichOneof("outcome") == "response":
        assert direct == completion.response
        assert ledger_pb2.RecordResponse.FromString(completion.response).line != "dropped"
        return
    queued = completion.error
    assert isinstance(direct, status_pb2.Status)
    assert direct.code == queued.code
    assert direct.message == queued.message
    assert bool(direct.details) == ("rich" in name)
    if name in UNEXPECTED:
        assert direct.code == Code.UNKNOWN
        assert direct.message.startswith("the handler failed unexpectedly (")
        (packed,) = queued.details
        told = error_details_pb2.DebugInfo()
        assert packed.Unpack(told)
        assert told.detail.startswith(UNEXPECTED[name])
    else:
        assert direct.details == queued.details
    if name in SAID:
        assert SAID[name] == (direct.code, direct.message)


async def test_undecodable_requests_are_invalid_on_both_roads() -> None:
    """Without it rubbish would be retried as an unexpected failure on the queued road."""
    mom = FakeMom()
    async with serving_mom(mom) as target, running_worker(Behaving(), mom=target) as worker:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await worker.call(f"{SERVICE}/Look", b"\xff")
        await worker.consumers[0].hand(claimed("Look", b"\xff"))
    assert status_of(caught.value) == mom.completions[0].error
    assert mom.completions[0].error.code == Code.INVALID_ARGUMENT
