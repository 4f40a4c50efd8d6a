"""Whatever a handler does becomes an outcome, on both roads; and only a signal ends a process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client import REGISTRY
from support.linked import linked
from support.waiting import until
from support.worker import FakeMom, RunningWorker, claimed, line, running_worker, serving_mom
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain.codes import Code
from poste.rpc.channels import code, proves_not_run
from poste.service import streams
from poste.service.admission_control import AdmissionControl
from poste.service.threads import Threads
from poste.upstream.failure import Failure
from poste.upstream.outgoing_call import OutgoingCall

SERVICE = "/testing.v1.LedgerService"
Response = ledger_pb2.RecordResponse


class PanicException(BaseException):
    """As PyO3's, of a Rust panic."""


class Mute(Exception):  # noqa: N818 - a name for a test
    """An exception whose text can't be read."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


async def panics(_: Any, __: Any) -> Any:
    raise PanicException("index out of bounds")


async def interrupts(_: Any, __: Any) -> Any:
    raise KeyboardInterrupt


async def exits(_: Any, __: Any) -> Any:
    raise SystemExit(3)


async def generator_exits(_: Any, __: Any) -> Any:
    raise GeneratorExit


async def raises_a_group(_: Any, __: Any) -> Any:
    raise BaseExceptionGroup("all", [PanicException("one"), ValueError("two")])


async def cancels_itself(_: Any, __: Any) -> Any:
    own = asyncio.current_task()
    assert own is not None
    own.cancel()
    await asyncio.sleep(60)


async def cancels_itself_and_answers(_: Any, __: Any) -> Any:
    own = asyncio.current_task()
    assert own is not None
    own.cancel()
    # Nothing is waited for any more: the cancellation would hit whatever its caller waits for next.
    return Response(line="answered")


async def times_out_as_async_timeout_4_0_2(_: Any, __: Any) -> Any:
    own = asyncio.current_task()
    assert own is not None
    # It cancels the task, makes a TimeoutError of it, and never takes the cancellation back.
    asyncio.get_running_loop().call_later(0.01, own.cancel)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise TimeoutError from None


async def is_cancelled_when_it_is_over(_: Any, __: Any) -> Any:
    own = asyncio.current_task()
    assert own is not None
    asyncio.get_running_loop().call_soon(own.cancel)
    return Response(line="answered")


async def raises_what_cant_be_told(_: Any, __: Any) -> Any:
    raise Mute


async def aborts_with_no_text(_: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.NOT_FOUND, 404)


async def has_a_callback_that_panics(_: Any, context: Any) -> Any:
    def panic(_: Any) -> None:
        raise PanicException

    context.add_done_callback(panic)
    return Response(line="answered")


def sync_panics(_: Any, __: Any) -> Any:
    raise PanicException("index out of bounds")


def sync_interrupts(_: Any, __: Any) -> Any:
    raise KeyboardInterrupt


def sync_is_cancelled(_: Any, __: Any) -> Any:
    raise asyncio.CancelledError


def sync_generator_exits(_: Any, __: Any) -> Any:
    raise GeneratorExit


def sync_aborts_with_no_text(_: Any, context: Any) -> Any:
    context.abort(grpc.StatusCode.NOT_FOUND, b"404")


UNKNOWN = (
    panics,
    interrupts,
    exits,
    generator_exits,
    raises_a_group,
    cancels_itself,
    times_out_as_async_timeout_4_0_2,
    raises_what_cant_be_told,
    sync_panics,
    sync_interrupts,
    sync_is_cancelled,
    sync_generator_exits,
)
ANSWERED = (cancels_itself_and_answers, is_cancelled_when_it_is_over, has_a_callback_that_panics)
ABORTED = (aborts_with_no_text, sync_aborts_with_no_text)
EXPECTED = {
    **dict.fromkeys(UNKNOWN, Code.UNKNOWN),
    **dict.fromkeys(ANSWERED, Code.OK),
    **dict.fromkeys(ABORTED, Code.NOT_FOUND),
}


class Odd(ledger_pb2_grpc.LedgerServiceServicer):
    """`Look` and `Legacy` do as the request's line says."""

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        return await globals()[request.line](request, context)

    def Legacy(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        return globals()[request.line](request, context)


async def code_of(call: Any) -> Code:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return code(error)
    return Code.OK


async def code_by_link(replica: Any, method: str, request: Any) -> Code:
    said = await replica.call(OutgoingCall(f"{SERVICE}/{method}", request.SerializeToString(), "id"), 5)
    return Code(said.status.code) if isinstance(said, Failure) else Code.OK


async def code_by_queue(worker: RunningWorker, mom: FakeMom, method: str, request: Any) -> Code:
    await asyncio.wait_for(worker.consumers[0].hand(claimed(method, request)), 10)
    completion = mom.completions[-1]
    return Code(completion.error.code) if completion.WhichOneof("outcome") == "error" else Code.OK


async def test_whatever_a_handler_does_becomes_an_outcome(subtests: pytest.Subtests) -> None:
    """Its task would be RUNNING for as long as the process lives, or its caller wait until its deadline."""
    mom = FakeMom()
    async with (
        serving_mom(mom) as target,
        running_worker(Odd(), mom=target, max_direct_calls=1) as worker,
        linked(worker.target) as replica,
    ):
        for behaviour, expected in EXPECTED.items():
            method = "Legacy" if behaviour.__name__.startswith("sync") else "Look"
            request = line(behaviour.__name__)
            with subtests.test(behaviour.__name__):
                assert await code_by_queue(worker, mom, method, request) is expected
                # One call at once: a place that leaked would show in the next one.
                assert await code_by_link(replica, method, request) is expected
                assert await code_of(worker.call(f"{SERVICE}/{method}", request, timeout=5)) is expected


@pytest.mark.parametrize("behaviour", [panics, cancels_itself])
async def test_its_cause_is_told_to_operators_alone(behaviour: Callable[..., Any]) -> None:
    """A search for what went wrong would find nothing; or a client would read a service's innards."""
    mom = FakeMom()
    async with serving_mom(mom) as target, running_worker(Odd(), mom=target) as worker:
        await code_by_queue(worker, mom, "Look", line(behaviour.__name__))

    error = mom.completions[-1].error
    name = {panics: "PanicException", cancels_itself: "CancelledError"}[behaviour]
    assert error.message == f"the handler failed unexpectedly ({name})"
    assert len(error.details) == 1


# -- streams: gRPC runs these itself


async def stream_panics(_: Any, __: Any) -> Any:
    yield Response(line="first")
    raise PanicException


async def stream_interrupts(_: Any, __: Any) -> Any:
    yield Response(line="first")
    raise KeyboardInterrupt


async def stream_cancels_itself(_: Any, __: Any) -> Any:
    yield Response(line="first")
    await cancels_itself(None, None)


async def stream_raises(_: Any, __: Any) -> Any:
    yield Response(line="first")
    raise ValueError("secret")


async def stream_writes_and_exits(_: Any, context: Any) -> None:
    await context.write(Response(line="first"))
    raise SystemExit(3)


def sync_stream_interrupts(_: Any, __: Any) -> Any:
    yield Response(line="first")
    raise KeyboardInterrupt


async def stream_ends(_: Any, __: Any) -> Any:
    yield Response(line="first")


def sync_stream_ends(_: Any, __: Any) -> Any:
    yield Response(line="first")


async def stream_aborts(_: Any, context: Any) -> Any:
    yield Response(line="first")
    await context.abort(grpc.StatusCode.NOT_FOUND, "no more")


async def collects(requests: Any, _: Any) -> Any:
    return Response(line=" ".join([request.line async for request in requests]))


async def collects_and_panics(requests: Any, _: Any) -> Any:
    async for _request in requests:
        raise PanicException


def sync_collects_and_interrupts(requests: Any, _: Any) -> Any:
    next(requests)
    raise KeyboardInterrupt


@contextlib.asynccontextmanager
async def streaming(
    behaviour: Callable[..., Any], *, requests: bool, threads: Threads | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """Serve one streaming method; it is guarded as `poste.serve` has it."""
    make: Any = grpc.stream_unary_rpc_method_handler if requests else grpc.unary_stream_rpc_method_handler
    handler = make(behaviour, ledger_pb2.RecordRequest.FromString, Response.SerializeToString)
    server = grpc.aio.server()
    threads = threads or Threads(4, "streams")
    guarded = streams.guarded("a.B", "C", handler, threads=threads, admission=AdmissionControl(100))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"C": guarded}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (stream_panics, Code.UNKNOWN),
        (stream_interrupts, Code.UNKNOWN),
        (stream_cancels_itself, Code.UNKNOWN),
        (stream_raises, Code.UNKNOWN),
        (stream_writes_and_exits, Code.UNKNOWN),
        (sync_stream_interrupts, Code.UNKNOWN),
        (stream_ends, Code.OK),
        (sync_stream_ends, Code.OK),
        (stream_aborts, Code.NOT_FOUND),
    ],
)
async def test_a_stream_ends_with_a_status_whatever_its_handler_does(
    behaviour: Callable[..., Any], expected: Code
) -> None:
    """Its client would wait until its deadline, and a KeyboardInterrupt go through to the loop."""
    before = _counted(expected)
    async with streaming(behaviour, requests=False) as channel:
        call = channel.unary_stream("/a.B/C", response_deserializer=Response.FromString)(
            line().SerializeToString(), timeout=5
        )
        lines = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for message in call:
                lines.append(message.line)  # noqa: PERF401 - what came before the error counts

        assert Code((await call.code()).value[0]) is expected
        assert lines == ["first"]
        assert "secret" not in await call.details()
    # And it is counted, as any other handler's run is.
    await until(lambda: _counted(expected) == before + 1)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_stream_without_a_thread_is_told_in_time_and_proved_not_run_if_it_did_not_begin(*, begun: bool) -> None:
    """It would wait for its deadline: no replica with a thread gets it, and a circuit breaker opens for others too."""
    loop, threads, release = asyncio.get_running_loop(), Threads(1, "streams"), threading.Event()
    holding: list[asyncio.Task[bool]] = []

    def hold() -> None:
        holding.append(loop.create_task(threads.run(release.wait)))

    def behaviour(*_: Any) -> Any:
        loop.call_soon_threadsafe(hold)
        yield Response(line="first")
        yield Response(line="second")

    async def read(call: Any) -> None:
        async for message in call:
            lines.append(message.line)  # noqa: PERF401 - what came before the error counts

    lines: list[str] = []
    try:
        async with streaming(behaviour, requests=False, threads=threads) as channel:
            if not begun:
                hold()
            call = channel.unary_stream("/a.B/C", response_deserializer=Response.FromString)(
                line().SerializeToString(), timeout=2
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read(call)
            release.set()
            await asyncio.gather(*holding)
    finally:
        release.set()

    assert (code(caught.value), proves_not_run(caught.value)) == (Code.RESOURCE_EXHAUSTED, not begun)
    assert lines == ["first"] * begun


def _counted(code: Code) -> float:
    labels = {"service": "a.B", "method": "C", "road": "direct", "code": code.name}
    return REGISTRY.get_sample_value("poste_handled_total", labels) or 0


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (collects, Code.OK),
        (collects_and_panics, Code.UNKNOWN),
        (sync_collects_and_interrupts, Code.UNKNOWN),
    ],
)
async def test_so_does_the_answer_to_a_stream(behaviour: Callable[..., Any], expected: Code) -> None:
    """The same, where it is the requests that come in a stream."""
    async with streaming(behaviour, requests=True) as channel:
        call = channel.stream_unary("/a.B/C")(iter([line("a").SerializeToString()] * 2), timeout=5)

        assert await code_of(call) is expected
