"""What is accepted fits every message that it travels in, and one call's size never ends what others share with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.rpc import status_pb2
from support import shop
from support.gateway import FakeMom, answer, running_gateway, serving_mom, staged
from support.linked import linked
from support.waiting import until
from support.worker import FakeMom as FakeWorkerMom
from support.worker import line, running_worker
from support.worker import serving_mom as serving_narrow_mom
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain import sizes
from poste.domain.codes import Code
from poste.domain.errors import CatalogueError, StartError
from poste.domain.task import DeadReason, TaskState
from poste.queue.operators import DeadLetter, DeadPage
from poste.queue.record import TaskRecord
from poste.rpc.catalogue import describe
from poste.rpc.channels import connect
from poste.runtime.environment import load
from poste.runtime.settings import GatewaySettings
from poste.service.outcome import Outcome
from poste.service.report import Reporter
from poste.upstream.failure import Failure
from poste.upstream.link import _NUMBERS
from poste.upstream.outgoing_call import OutgoingCall
from poste.upstream.replica import Replica
from poste.v1 import catalogue_pb2, link_service_pb2, task_pb2
from poste.v1 import mom_service_pb2 as pb
from poste_mom.messages import catalogue, incoming, listings

LOOK = "/testing.v1.LedgerService/Look"
NAME = "a.package.of.services.v1.WithAServiceOfALongName" * 10


class Shouting(ledger_pb2_grpc.LedgerServiceServicer):
    """Answers when it is released: with the request's own line, or an error with as long a text as that asks for."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.started = 0

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        self.started += 1
        await self.release.wait()
        if request.line.startswith("error "):
            await context.abort(grpc.StatusCode.NOT_FOUND, "x" * int(request.line.partition(" ")[2]))
        return ledger_pb2.RecordResponse(line=request.line)


async def look(replica: Replica, text: str) -> Failure | bytes:
    return await replica.call(OutgoingCall(LOOK, line(text).SerializeToString(), "id"), 20)


def test_a_body_that_no_message_carries_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call of that size would take those beside it down."""
    monkeypatch.setenv("POSTE_MAX_BODY_BYTES", str(sizes.MAX_PAYLOAD))
    assert load(GatewaySettings).max_body_bytes == sizes.MAX_PAYLOAD
    monkeypatch.setenv("POSTE_MAX_BODY_BYTES", str(sizes.MAX_PAYLOAD + 1))
    with pytest.raises(StartError, match=rf"POSTE_MAX_BODY_BYTES=.*: .*{sizes.MAX_PAYLOAD} bytes at most"):
        load(GatewaySettings)


async def test_a_body_that_makes_too_large_a_message_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digit and a comma become eight bytes and more: the body's own size says little of its message's."""
    monkeypatch.setattr(sizes, "MAX_PAYLOAD", 64 * 1024)
    bounds = dict.fromkeys(("max_body_bytes", "max_stream_message_bytes"), sizes.MAX_PAYLOAD)
    async with staged(tmp_path, answer, **bounds) as stage:
        for preference in ("no-queue", "respond-async"):
            reply = await stage.gateway.post("/v1/orders", {"list": [1] * 10_000}, Prefer=preference)

            assert reply.status == 413
            assert reply.body["type"] == "/problems/body-too-large"
            assert str(sizes.MAX_PAYLOAD) in reply.body["detail"]
        assert (await stage.gateway.post("/v1/orders", {"list": [1] * 1000})).status == 200
        assert stage.shops[0].ran == ["Place"]


@pytest.mark.parametrize(
    ("size", "calls"),
    [pytest.param(17_000_000, 1, id="one that is too large"), pytest.param(30_000, 600, id="many in one frame")],
)
async def test_errors_leave_the_link_to_its_other_calls(size: int, calls: int) -> None:
    """A frame that is refused ends every call on its link, and the outcome of each is then unknown."""
    shouting = Shouting()
    async with running_worker(shouting) as worker, linked(worker.target) as replica:
        others = [asyncio.create_task(look(replica, "other")) for _ in range(20)]
        shouts = [asyncio.create_task(look(replica, f"error {size}")) for _ in range(calls)]
        await until(lambda: shouting.started == 20 + calls)
        shouting.release.set()

        failed = await asyncio.gather(*shouts)
        assert {one.code for one in failed if isinstance(one, Failure)} == {Code.NOT_FOUND}
        assert all(isinstance(one, bytes) for one in await asyncio.gather(*others))
        assert replica.linked


async def test_the_largest_call_and_answer_share_a_link_with_others() -> None:
    """What is let in must come through, and out again."""
    largest = "x" * (sizes.MAX_PAYLOAD - len(ledger_pb2.RecordResponse(line="x" * 2**24).SerializeToString()) + 2**24)
    shouting = Shouting()
    async with running_worker(shouting) as worker, linked(worker.target) as replica:
        asked = ledger_pb2.RecordRequest(line=largest).SerializeToString()
        assert len(asked) == sizes.MAX_PAYLOAD
        others = [asyncio.create_task(look(replica, "other")) for _ in range(20)]
        large = asyncio.create_task(replica.call(OutgoingCall(LOOK, asked, "i" * 128, "t" * 55), 20))
        await until(lambda: shouting.started == 21)
        shouting.release.set()

        said = await large
        assert isinstance(said, bytes)
        assert len(said) == sizes.MAX_PAYLOAD
        assert all(isinstance(one, bytes) for one in await asyncio.gather(*others))


async def test_an_answer_that_no_message_carries_is_an_error_for_good() -> None:
    """It would be as large each time: a queued task would be run again for a day, and a client asked to try again."""
    shouting = Shouting()
    shouting.release.set()
    async with running_worker(shouting) as worker, linked(worker.target) as replica:
        said = await replica.call(
            OutgoingCall(LOOK, ledger_pb2.RecordRequest(line="x" * (sizes.MAX_PAYLOAD - 3)).SerializeToString(), "id"),
            20,
        )

        assert isinstance(said, Failure)
        assert str(sizes.MAX_PAYLOAD) in said.status.message
        assert incoming.report(pb.Completion(error=said.status), None).ending == "large"
        assert isinstance(await look(replica, "other"), bytes)


async def test_a_result_that_is_refused_for_its_size_ends_its_task() -> None:
    """It was reported again and again for as long as the process lived, and held one of its places."""
    mom = FakeWorkerMom()
    # A server's default limit is a quarter of ours.
    async with serving_narrow_mom(mom) as target, connect(target, library=True) as channel:
        reporter = Reporter(channel)
        running = asyncio.create_task(reporter.run())
        large = reporter.report(pb.Completion(service=NAME, key="large", response=b"x" * 5_000_000))
        others = [reporter.report(pb.Completion(key=f"{number}", response=b"x")) for number in range(10)]
        assert set(await asyncio.gather(large, *others)) == {pb.COMPLETE_RESULT_STORED}
        running.cancel()
        await asyncio.wait([running])

    kept = {one.key: one for one in mom.completions}
    assert "5000" in kept["large"].error.message
    assert incoming.report(kept["large"], None).ending == "large"
    assert {one.response for key, one in kept.items() if key != "large"} == {b"x"}


@pytest.mark.parametrize("text", ["x" * 16_000, "\N{POSTBOX}" * 8000, "x" * 200_000, "\N{POSTBOX}" * 50_000])
async def test_an_error_is_told_alike_by_the_link_and_without_it(text: str) -> None:
    """A long text turned a call without a link into another failure than the handler's, and one by the link not."""

    class Failing(ledger_pb2_grpc.LedgerServiceServicer):
        async def Look(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's
            await context.abort(grpc.StatusCode.NOT_FOUND, text)

    async with running_worker(Failing()) as worker, linked(worker.target) as replica:
        by_link = await look(replica, "")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await worker.call(LOOK, line())

    assert isinstance(by_link, Failure)
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.NOT_FOUND, by_link.status.message)
    assert text.startswith(by_link.status.message.removesuffix("…"))


def test_an_error_is_cut_alike_on_both_roads() -> None:
    """What travels with it has its own place in the message."""
    outcome = Outcome(Code.UNKNOWN, "\U0001f4ee" * 50_000, cause="x" * 2000)

    assert (
        outcome.public_status().message == outcome.status().message == "\U0001f4ee" * (sizes.MAX_STATUS_TEXT - 1) + "…"
    )
    assert outcome.status().ByteSize() <= sizes.MAX_STATUS + 4096


def test_a_payload_fits_all_that_wraps_it() -> None:
    """The sums on which all of it rests: the largest payload with the longest of everything beside it."""
    payload, status = b"x" * sizes.MAX_PAYLOAD, status_pb2.Status(message="x" * sizes.MAX_STATUS)
    call = link_service_pb2.LinkCall(
        number=2**63, method=NAME, request=payload, timeout_seconds=1.5, request_id="i" * 128, traceparent="t" * 55
    )
    task = pb.NewTask(service=NAME, method=NAME, key="k" * 50, request=payload, traceparent="t" * 55)
    task.create_time.GetCurrentTime()
    done = task_pb2.Task(service=NAME, method=NAME, key="k" * 50, state=task_pb2.TASK_STATE_SUCCEEDED, response=payload)
    for largest in (
        link_service_pb2.ConnectRequest(
            calls=[call], cancelled_numbers=[2**63] * _NUMBERS, wanted_numbers=[2**63] * _NUMBERS
        ),
        link_service_pb2.ConnectResponse(answers=[link_service_pb2.LinkAnswer(number=2**63, response=payload)]),
        pb.EnqueueTasksRequest(tasks=[task]),
        pb.CompleteTasksRequest(completions=[pb.Completion(service=NAME, key="k", token="t" * 100, response=payload)]),
        pb.GetTaskResponse(task=done),
    ):
        assert largest.ByteSize() <= sizes.MAX_MESSAGE, type(largest)
    # What goes together: up to the bound, or one that is larger alone.
    assert sizes.BATCH + status.ByteSize() <= sizes.MAX_MESSAGE
    assert sizes.FRAME <= sizes.BATCH < sizes.MAX_PAYLOAD


def test_a_page_of_what_died_fits_a_message() -> None:
    """A thousand tasks with long errors could not be listed, nor replayed, any more."""
    error = status_pb2.Status(code=2, message="x" * sizes.MAX_STATUS).SerializeToString()
    died = [
        DeadLetter(
            TaskRecord(
                key=f"{number:016}",
                method="Put",
                state=TaskState.DEAD,
                create_time=1e9,
                expire_time=None,
                attempt=1,
                cancel_requested=False,
                dead_reason=DeadReason.ATTEMPTS,
                response=None,
                error=error,
            ),
            die_time=1e9 + number // 3 / 1000,
            task_ttl_seconds=60,
            result_ttl_seconds=60,
        )
        for number in range(1000)
    ]
    seen: list[str] = []
    behind = listings.place("")
    while True:
        left = [one for one in died if behind is None or _place(one) > (behind.die_time, behind.key)]
        page = listings.dead_page("queue", DeadPage(left, None, 1e9))
        assert page.ByteSize() <= sizes.MAX_MESSAGE
        seen += [one.task.key for one in page.tasks]
        behind = listings.place(page.next_page_token)
        if behind is None:
            break

    assert seen == [one.record.key for one in died]


def _place(task: DeadLetter) -> tuple[float, str]:
    return round(task.die_time, 3), task.record.key


def _bulky(name: str, size: int) -> catalogue_pb2.CatalogueService:
    """Return an entry whose descriptors have as many bytes: a file of that size that nothing needs is among them."""
    entry = shop.entry()
    entry.name, files = name, entry.file_descriptor_set
    # A field that is not known is passed over: number 1000, so many bytes.
    entry.file_descriptor_set = files + b"\xc2\x3e" + _varint(size) + b"\0" * size
    return entry


def _varint(number: int) -> bytes:
    spelt = b""
    while number > 127:
        spelt += bytes([number % 128 + 128])
        number //= 128
    return spelt + bytes([number])


async def test_a_catalogue_larger_than_a_message_reaches_the_gateway(tmp_path: Path) -> None:
    """Every gateway would lose it at the same moment: when one service more is registered."""
    entries = [_bulky(f"shop.v1.None{number}", 3_000_000) for number in range(8)]
    entries.append(shop.entry())

    class Parts(FakeMom):
        async def WatchCatalogue(self, _request, _context):  # noqa: N802 - the proto's
            for part in catalogue.changes({}, {entry.name: entry for entry in self.entries}, self.store_id):
                assert part.ByteSize() <= sizes.MAX_MESSAGE
                yield part
            await asyncio.Event().wait()

    async with serving_mom(Parts(*entries)) as port, running_gateway(tmp_path, port) as gateway:
        services = (await gateway.get("/v1/services")).body["services"]

    assert [one["name"] for one in services] == [shop.NAME]


def test_an_entry_that_no_message_carries_is_refused() -> None:
    """It would keep the whole catalogue from every gateway."""
    with pytest.raises(CatalogueError, match="bytes"):
        describe(_bulky(shop.NAME, sizes.MAX_PAYLOAD))
