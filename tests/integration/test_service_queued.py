"""The queued road: what a worker's process makes of claimed tasks. The test plays the consumer's part."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from support.behaviours import Behaving
from support.ports import free_port
from support.waiting import until
from support.worker import FakeMom, claimed, line, running_worker, serving_mom
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain.codes import Code
from poste.queue.consumer import NotRun
from poste.rpc.schemas.schema import MethodSchema, fingerprint_of
from poste.runtime import lifecycle
from poste.v1 import mom_service_pb2

_DECLARED = ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"].methods_by_name["Look"]
#: The schema that `Look` has here.
LOOK = MethodSchema(_DECLARED.input_type, _DECLARED.output_type)


class Slow(ledger_pb2_grpc.LedgerServiceServicer):
    """`Look` ends when it is cancelled; `Store` holds out against that; `Legacy` blocks its thread."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.release = threading.Event()
        self.metadata: dict[str, str] = {}
        self.remaining_seconds = 0.0
        self.active_at_end: bool | None = None

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        self.metadata = dict(context.invocation_metadata())
        self.remaining_seconds = context.time_remaining()
        self.running.set()
        if request.line == "ask":
            return ledger_pb2.RecordResponse()
        return await asyncio.Event().wait()

    async def Store(self, request: Any, _: Any) -> Any:  # noqa: N802 - the proto's name
        self.running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return ledger_pb2.RecordResponse(line=request.line)

    async def Record(self, _: Any, __: Any) -> Any:  # noqa: N802 - the proto's name
        self.running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("while clearing up") from None

    def Legacy(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        self.release.wait(20)
        self.active_at_end = context.is_active()
        return ledger_pb2.RecordResponse(line=request.line)


async def test_the_handler_sees_which_task_it_is() -> None:
    """Without it no handler could distinguish a repeated run from a new task."""
    slow = Slow()
    async with running_worker(slow) as worker:
        running = worker.consumers[0].hand(claimed("Look", line(), key="k42", attempt=3))
        await slow.running.wait()
        lifecycle.cancel(running)
    assert slow.metadata == {"poste-task-key": "k42", "poste-attempt": "3"}


@pytest.mark.parametrize("method", ["Look", "Record"])
async def test_a_cancel_of_the_client_is_reported(method: str) -> None:
    """Without it a cancelled task would stay RUNNING, or be run again, or fail with what its clearing up raised."""
    mom, slow = FakeMom(), Slow()
    async with serving_mom(mom) as target, running_worker(slow, mom=target) as worker:
        task = claimed(method, line())
        running = worker.consumers[0].hand(task)
        await slow.running.wait()
        task.cancel_requested = True
        lifecycle.cancel(running)
        await asyncio.wait_for(running, 10)

    assert [one.WhichOneof("outcome") for one in mom.completions] == ["cancelled"]


async def test_a_handler_may_still_end_after_the_cancel() -> None:
    """Without it the result of a handler that could not stop any more would be thrown away."""
    mom, slow = FakeMom(), Slow()
    async with serving_mom(mom) as target, running_worker(slow, mom=target) as worker:
        task = claimed("Store", line("held out"))
        running = worker.consumers[0].hand(task)
        await slow.running.wait()
        task.cancel_requested = True
        lifecycle.cancel(running)
        await asyncio.wait_for(running, 10)

    assert ledger_pb2.RecordResponse.FromString(mom.completions[0].response).line == "held out"


@pytest.mark.parametrize("method", ["Look", "Record"])
async def test_a_lost_lease_reports_nothing(method: str) -> None:
    """Without it a task that another runs by now would be reported from here."""
    mom, slow = FakeMom(), Slow()
    async with serving_mom(mom) as target, running_worker(slow, mom=target) as worker:
        running = worker.consumers[0].hand(claimed(method, line()))
        await slow.running.wait()
        lifecycle.cancel(running)
        with pytest.raises(asyncio.CancelledError):
            await running

    assert mom.completions == []


async def test_a_cancel_that_comes_while_it_is_reported_is_too_late_but_an_order_is_not() -> None:
    """Without it a result would be lost to a late cancel, or a stop would wait for a middleware that is away."""
    mom, port = FakeMom(), free_port()
    async with running_worker(Behaving(), mom=f"127.0.0.1:{port}") as worker:
        first, second = claimed("Look", line("answers"), key="1"), claimed("Look", line("answers"), key="2")
        reported, given_back = worker.consumers[0].hand(first), worker.consumers[0].hand(second)
        done, _ = await asyncio.wait([reported, given_back], timeout=0.3)
        assert not done, "the reports were taken before they were let through"
        for task, running in ((first, reported), (second, given_back)):
            task.cancel_requested = True
            lifecycle.cancel(running)
        done, _ = await asyncio.wait([reported, given_back], timeout=0.1)
        assert not done
        lifecycle.cancel(given_back)
        with pytest.raises(asyncio.CancelledError):
            await given_back
        async with serving_mom(mom, port):
            await asyncio.wait_for(reported, 10)
    assert "response" in {one.WhichOneof("outcome") for one in mom.completions if one.key == "1"}


async def test_a_handler_that_takes_too_long_ends_with_deadline_exceeded() -> None:
    """Without it one hanging handler after the other would fill the process; the catalogue says how long."""
    mom, slow = FakeMom(), Slow()
    mom.settings.settings.queued_timeout_seconds = 0.2
    async with serving_mom(mom) as target, running_worker(slow, mom=target) as worker:

        async def learnt() -> bool:
            await worker.consumers[0].hand(claimed("Look", line("ask")))
            return slow.remaining_seconds <= 0.2

        await until(learnt, what="the catalogue's timeout")
        mom.batches.clear()
        for method in ("Look", "Legacy", "Record"):
            await asyncio.wait_for(worker.consumers[0].hand(claimed(method, line(), key=method)), 10)
        slow.release.set()
        await until(lambda: slow.active_at_end is not None, what="the thread's end")

    assert [one.error.code for one in mom.completions] == [Code.DEADLINE_EXCEEDED] * 3
    assert slow.active_at_end is False


async def test_a_method_that_is_not_here_is_not_run() -> None:
    """An older replica's word on a task would be final, though a newer one has its method."""
    mom = FakeMom()
    async with serving_mom(mom) as target, running_worker(Behaving(), mom=target) as worker:
        with pytest.raises(NotRun, match="Newer"):
            await worker.consumers[0].hand(claimed("Newer", line()))
    assert not mom.completions


async def test_it_registers_itself_with_all_that_a_gateway_needs() -> None:
    """Without it a service that no catalogue file names could not be called by REST."""
    mom = FakeMom()
    async with serving_mom(mom) as target, running_worker(Behaving(), mom=target) as worker:
        await until(lambda: mom.registered)
        request = mom.registered[0]
        assert (request.service, request.address) == ("testing.v1.LedgerService", worker.target)
        assert b"testing/v1/ledger.proto" in request.file_descriptor_set
        assert request.replica
        assert request.methods == ["Legacy", "Look"]
    # Once it has stopped.
    assert [one.replica for one in mom.withdrawn] == [request.replica]


class Judging(FakeMom):
    """Compares schemas as the test says, and counts how often it is asked."""

    def __init__(self, *verdicts: mom_service_pb2.SchemaVerdict.ValueType) -> None:
        super().__init__()
        self.verdicts = list(verdicts)
        self.kept: list[bytes] = []

    async def JudgeSchema(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        return mom_service_pb2.JudgeSchemaResponse(
            verdict=self.verdicts.pop(0), differences=["field 1 `a` was removed"]
        )

    async def KeepSchema(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's name
        self.kept.append(request.text)
        return mom_service_pb2.KeepSchemaResponse(kept=True)


async def test_a_pair_of_schemas_is_judged_once() -> None:
    """Each of a million calls that wait would cost a question to the middleware after every deploy."""
    mom = Judging(mom_service_pb2.SCHEMA_VERDICT_UNKNOWN, mom_service_pb2.SCHEMA_VERDICT_COMPATIBLE)
    async with serving_mom(mom) as target, running_worker(Slow(), mom=target) as worker:
        for _ in range(3):
            await worker.consumers[0].hand(claimed("Look", line("ask"), schema="another-schema-0"))

    assert [one.WhichOneof("outcome") for one in mom.completions] == ["response"] * 3
    # What it did not know to compare with was sent.
    assert [fingerprint_of(text) for text in mom.kept] == [LOOK.fingerprint]


async def test_what_is_held_aside_is_reported_as_not_run() -> None:
    """The middleware would take the refusal for the handler's own answer, and the call be FAILED."""
    mom, slow = Judging(mom_service_pb2.SCHEMA_VERDICT_BREAKING), Slow()
    async with serving_mom(mom) as target, running_worker(slow, mom=target) as worker:
        await worker.consumers[0].hand(claimed("Look", line("ask"), schema="another-schema-0"))

    (held,) = mom.completions
    assert (held.held, held.error.code) == (True, Code.FAILED_PRECONDITION)
    assert "field 1 `a` was removed" in held.error.message
    assert not slow.running.is_set()


@pytest.mark.parametrize("verdicts", [(mom_service_pb2.SCHEMA_VERDICT_ELSEWHERE,), ()])
async def test_what_another_replica_is_to_run_or_is_not_known_yet_waits(verdicts: Any) -> None:
    """It would be held aside beside a replica that can run it, or run by a schema that was never compared."""
    mom = Judging(*verdicts) if verdicts else FakeMom()
    async with serving_mom(mom) as target, running_worker(Slow(), mom=target) as worker:
        with pytest.raises(NotRun):
            await worker.consumers[0].hand(claimed("Look", line("ask"), schema="another-schema-0"))

    assert mom.completions == []


async def test_a_call_of_the_very_schema_asks_nobody() -> None:
    """Every call would cost a question."""
    mom = Judging()
    async with serving_mom(mom) as target, running_worker(Slow(), mom=target) as worker:
        await worker.consumers[0].hand(claimed("Look", line("ask"), schema=LOOK.fingerprint))

    assert len(mom.completions) == 1
