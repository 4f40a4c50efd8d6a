"""The link's protocol, broken from either end: what can't be answered ends the link, with a reason; no slot leaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import status_pb2
from support.linked import linked
from support.waiting import until
from support.worker import RunningWorker, line, running_worker
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain.codes import Code
from poste.rpc.servers import Health, bind, new_server
from poste.runtime import metrics
from poste.upstream.failure import LOST, Failure
from poste.upstream.outgoing_call import OutgoingCall
from poste.upstream.replica import Replica
from poste.v1 import link_service_pb2 as pb
from poste.v1 import link_service_pb2_grpc

LOOK = "/testing.v1.LedgerService/Look"
#: How many calls the service runs at once: so many slots there are to leak.
SLOTS = 4


class Gated(ledger_pb2_grpc.LedgerServiceServicer):
    """Answers at once, or when it is released if it is to `wait`."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.seen: list[tuple[str, dict[str, str]]] = []

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's
        self.seen.append((request.line, dict(context.invocation_metadata())))
        if request.line == "wait":
            await self.release.wait()
        return ledger_pb2.RecordResponse(line=request.line)


def look(number: int, text: str = "now", **changes: Any) -> pb.LinkCall:
    fields = {"method": LOOK, "request": line(text).SerializeToString(), "timeout_seconds": 20.0, **changes}
    return pb.LinkCall(number=number, **fields)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Gated, RunningWorker]]:
    gated = Gated()
    async with running_worker(gated, max_direct_calls=SLOTS) as worker:
        yield gated, worker
        # Whatever came before, all the slots are there.
        gated.release.set()

        async def free() -> bool:
            calls = [worker.call(LOOK, line("now")) for _ in range(SLOTS)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            return not any(isinstance(one, BaseException) for one in answers)

        await until(free, what="all the slots")


async def frames(worker: RunningWorker, *sent: pb.ConnectRequest | bytes) -> tuple[list[pb.LinkAnswer], Any]:
    """Send frames on a link of their own, and no more; returns the answers, and the link's error, if it had one."""
    stream: Any = worker.channel.stream_stream(
        "/poste.v1.LinkService/Connect", response_deserializer=pb.ConnectResponse.FromString
    )(timeout=20)
    answers: list[pb.LinkAnswer] = []
    await stream.read()
    try:
        for one in sent:
            await stream.write(one if isinstance(one, bytes) else one.SerializeToString())
        await stream.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        # It has ended: a read says why.
        pass
    try:
        while (frame := await stream.read()) is not grpc.aio.EOF:
            answers += frame.answers
    except grpc.aio.AioRpcError as error:
        return answers, error
    return answers, None


async def test_a_number_that_is_in_use_ends_the_link_and_leaks_no_slot() -> None:
    """A few of them, and the service took no direct call any more for as long as it lived."""
    async with serving() as (_, worker):
        before = metrics.links_broken_total._value.get()
        for _ in range(2 * SLOTS):
            _, error = await frames(worker, pb.ConnectRequest(calls=[look(1, "wait"), look(1, "wait")]))

            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "number 1 " in error.details()
        assert metrics.links_broken_total._value.get() == before + 2 * SLOTS


async def test_a_call_that_is_cancelled_as_it_comes_leaks_no_slot() -> None:
    """Its task was cancelled before its first turn and never counted as ended: its link could not end."""
    async with serving() as (_, worker):
        for _ in range(2 * SLOTS):
            answers, error = await frames(
                worker, pb.ConnectRequest(calls=[look(1, "wait"), look(2)], cancelled_numbers=[1, 1, 3, 2**64 - 1])
            )
            assert error is None
            assert [one.number for one in answers] == [2]


async def test_odd_calls_are_answered_one_by_one() -> None:
    """One call to an unknown method failed those beside it, or held a slot for ever."""
    nan, inf = float("nan"), float("inf")
    odd = [
        *(look(number, timeout_seconds=seconds) for number, seconds in enumerate((nan, -inf, -1.0, 0.0), 1)),
        look(2**64 - 1, timeout_seconds=inf),
        look(0, timeout_seconds=1e300),
        look(11, method="/no.such.Service/Method"),
        look(12, method="m" * 100_000),
        look(13, request=b"\xff\xff\xff"),
        look(14, request_id="\x1b[2J\n", traceparent="\x1b]0;x\x07"),
        look(15, request_id="x" * 1_000_000, traceparent="00-" + "x" * 100_000),
    ]
    async with serving() as (gated, worker):
        answers = []
        for call in odd:
            # One after the other, for there are few slots.
            said, error = await frames(worker, pb.ConnectRequest(calls=[call]))
            assert error is None
            answers += said

        codes = {one.number: Code(one.error.code) for one in answers}
        assert [codes[one] for one in (1, 2, 3, 4)] == [Code.INVALID_ARGUMENT] * 4
        assert [codes[one] for one in (2**64 - 1, 0, 14, 15)] == [Code.OK] * 4
        assert [codes[one] for one in (11, 12, 13)] == [
            *(Code.UNIMPLEMENTED, Code.UNIMPLEMENTED),
            Code.INVALID_ARGUMENT,
        ]
        assert all("x-request-id" not in given and "traceparent" not in given for _, given in gated.seen)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\xff\xff\xff\xff", None),
        (pb.ConnectRequest(cancelled_numbers=[1] * 20_000), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.ConnectRequest(calls=[pb.LinkCall()] * 20_000), grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["rubbish", "cancellations", "calls"],
)
async def test_a_frame_that_is_none_ends_its_link_alone(sent: Any, code: Any) -> None:
    """It ended the service, or held its loop for as long as all of it took."""
    async with serving() as (_, worker), linked(worker.target) as beside:
        _, error = await frames(worker, pb.ConnectRequest(calls=[look(1, "wait")]), sent)

        assert error is not None
        assert code in (None, error.code())
        assert isinstance(await beside.call(OutgoingCall(LOOK, line("now").SerializeToString(), "id"), 20), bytes)


class Careless(link_service_pb2_grpc.LinkServiceServicer):
    """A service that answers as it likes."""

    def __init__(self, say: Callable[[pb.LinkCall], Any]) -> None:
        self.say = say
        self.links = 0

    async def Connect(self, request_iterator: Any, context: Any) -> None:  # noqa: N802 - the proto's
        self.links += 1
        await context.write(b"")
        async for frame in request_iterator:
            for call in frame.calls:
                said = self.say(call)
                await context.write(said if isinstance(said, bytes) else said.SerializeToString())


@contextlib.asynccontextmanager
async def careless(say: Callable[[pb.LinkCall], Any]) -> AsyncIterator[tuple[Careless, Replica]]:
    service, server = Careless(say), new_server()
    handler = grpc.stream_stream_rpc_method_handler(service.Connect, request_deserializer=pb.ConnectRequest.FromString)  # type: ignore[arg-type]  # grpc's stubs know no coroutines
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("poste.v1.LinkService", {"Connect": handler}),)
    )
    health = Health(server)
    port = bind(server, "127.0.0.1", 0)
    await server.start()
    await health.serving()
    try:
        async with linked(f"127.0.0.1:{port}") as replica:
            yield service, replica
    finally:
        await server.stop(None)


def answers(*said: pb.LinkAnswer) -> pb.ConnectResponse:
    return pb.ConnectResponse(answers=said)


@pytest.mark.parametrize(
    "say",
    [
        lambda _: answers(pb.LinkAnswer(number=2**64 - 1, response=b"")),
        lambda call: answers(pb.LinkAnswer(number=call.number + 1, response=b"")),
        lambda call: answers(pb.LinkAnswer(number=call.number)),
        lambda _: b"\xff\xff\xff\xff",
        lambda call: b"\x0a\x06\x1a\x04\x12\x02\xff\xfe" + bytes([8, call.number]),
        lambda call: answers(pb.LinkAnswer(number=call.number, response=b"x" * (15 << 20))).SerializeToString() * 2,
    ],
    ids=["to no method", "to the next", "nothing", "rubbish", "no text", "oversized"],
)
async def test_an_answer_that_is_none_ends_the_link_and_the_next_is_opened(say: Any) -> None:
    """A gateway took it for the answer of another call, or for a success, or ended."""
    async with careless(say) as (service, replica):
        for _ in range(2):
            await until(lambda: replica.linked, what="a link")
            assert await replica.call(OutgoingCall(LOOK, b"", "id"), 20) == LOST
        assert service.links >= 2
        assert replica.in_flight == 0


@pytest.mark.parametrize(
    ("code", "told"), [(0, Code.UNKNOWN), (-1, Code.UNKNOWN), (4711, Code.UNKNOWN), (5, Code.NOT_FOUND)]
)
async def test_an_error_of_any_code_and_size_is_one(code: int, told: Code) -> None:
    """A number that is no code was the gateway's own failure; a text of megabytes went to the client as it was."""
    status = status_pb2.Status(code=code, message="x" * 5_000_000)
    async with careless(lambda call: answers(pb.LinkAnswer(number=call.number, error=status))) as (_, replica):
        said = await replica.call(OutgoingCall(LOOK, b"", "id"), 20)

        assert isinstance(said, Failure)
        assert said.code is told
        assert len(said.status.message) < 10_000
        assert replica.linked


async def test_answers_twice_or_too_late_are_passed_over() -> None:
    """An answer that crosses its call's time-out or cancellation is not a mistake of either side."""
    late: list[pb.LinkAnswer] = []

    def say(call: pb.LinkCall) -> pb.ConnectResponse:
        answer = pb.LinkAnswer(number=call.number, response=b"fine")
        late.append(answer)
        return answers(*late, answer)

    async with careless(say) as (service, replica):
        for _ in range(5):
            assert await replica.call(OutgoingCall(LOOK, b"", "id"), 20) == b"fine"
        assert service.links == 1
