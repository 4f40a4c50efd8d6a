"""Whatever a handler does becomes an outcome; only a cancellation from outside comes out as one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.waiting import until
from testing.v1 import ledger_pb2

from poste.domain.codes import Code
from poste.rpc.schemas.schema import MethodSchema
from poste.rpc.statuses import is_too_large
from poste.runtime import lifecycle, logs
from poste.service.call import Call
from poste.service.handlers import Runner
from poste.service.outcome import Outcome
from poste.service.servicer import ServedMethod
from poste.service.threads import Threads


def method(behaviour: Callable[[Any, Any], Any], *, coroutine: bool = True) -> ServedMethod:
    return ServedMethod(
        service="a.B",
        name="C",
        behaviour=behaviour,
        coroutine=coroutine,
        parse=ledger_pb2.RecordRequest.FromString,
        serialize=ledger_pb2.RecordResponse.SerializeToString,
        schema=MethodSchema(ledger_pb2.RecordRequest.DESCRIPTOR, ledger_pb2.RecordResponse.DESCRIPTOR),
    )


async def run(behaviour: Callable[[Any, Any], Any], *, coroutine: bool = True, **more: Any) -> Outcome:
    runner = Runner("queued", threads=2)
    try:
        return await runner.run(method(behaviour, coroutine=coroutine), b"", more.pop("call", None) or Call(), **more)
    finally:
        runner.close()


async def test_a_handlers_own_timeout_error_is_not_ours() -> None:
    """Without it a handler whose own call timed out would count as one that hung."""

    async def behaviour(_: Any, __: Any) -> Any:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)

    outcome = await run(behaviour, timeout_seconds=60)

    assert (outcome.code, outcome.cause) == (Code.UNKNOWN, "TimeoutError: ")


async def test_an_answer_given_despite_the_timeout_counts() -> None:
    """Without it the result of a handler that could not stop any more would be thrown away."""

    async def behaviour(_: Any, __: Any) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return ledger_pb2.RecordResponse(line="late")

    assert (await run(behaviour, timeout_seconds=0.01)).code is Code.OK


async def test_a_response_too_large_for_a_message_is_an_error_on_both_roads() -> None:
    """Without it the report of it would be refused for ever, and its task never end."""

    async def behaviour(_: Any, __: Any) -> Any:
        return ledger_pb2.RecordResponse(line="x" * 16 * 1024 * 1024)

    assert is_too_large((await run(behaviour)).public_status())


async def test_a_done_callback_that_fails_harms_nobody() -> None:
    """Without it one careless callback would fail a call that went well, or keep the others from theirs."""
    called = []

    async def behaviour(_: Any, context: Any) -> Any:
        context.add_done_callback(lambda _: 1 / 0)
        context.add_done_callback(called.append)
        return ledger_pb2.RecordResponse()

    assert (await run(behaviour)).code is Code.OK
    assert len(called) == 1


async def test_a_decorated_handler_is_still_a_coroutine() -> None:
    """Without it an ordinary decorator would send an `async def` handler to a thread, with the wrong context."""

    async def inner() -> Any:
        return ledger_pb2.RecordResponse(line="inner")

    outcome = await run(lambda _, __: inner())

    assert outcome.response == ledger_pb2.RecordResponse(line="inner").SerializeToString()


async def test_the_request_id_is_bound_to_the_handlers_log_lines() -> None:
    """Without it a handler's lines could not be found by the request they belong to."""
    seen: list[Any] = []

    def behaviour(_: Any, __: Any) -> Any:
        seen.append(logs.names.get()())
        return ledger_pb2.RecordResponse()

    await asyncio.create_task(run(behaviour, coroutine=False, call=Call(request_id="r1")))

    assert seen == [{"request_id": "r1"}]
    assert logs.names.get(None) is None


async def test_threads_are_bounded_and_a_job_cancelled_in_time_never_runs() -> None:
    """Without it a burst would start a thread each, and tasks that timed out waiting would run after all."""
    threads, gate, ran = Threads(2, "test"), threading.Event(), []

    def job(number: int) -> int:
        gate.wait(20)
        ran.append(number)
        return number

    running = [asyncio.create_task(threads.run(lambda number=number: job(number))) for number in range(4)]
    await asyncio.sleep(0)
    alive = [thread for thread in threading.enumerate() if thread.name.startswith("test-")]
    running[3].cancel()
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*running, return_exceptions=True)
    threads.close()
    await until(lambda: not any(thread.is_alive() for thread in alive), what="the threads' end")

    assert len(alive) == 2
    assert all(thread.daemon for thread in alive), "a stuck handler must not keep the interpreter"
    assert results[:3] == [0, 1, 2]
    assert isinstance(results[3], asyncio.CancelledError)
    assert sorted(ran) == [0, 1, 2]


async def test_a_thread_is_used_again() -> None:
    """Without it every call of a `def` handler would cost a new thread."""
    threads = Threads(8, "again")
    names = {await threads.run(lambda: threading.current_thread().name) for _ in range(5)}
    threads.close()

    assert names == {"again-1"}


@pytest.mark.parametrize("coroutine", [True, False])
async def test_its_owners_cancellation_comes_out(*, coroutine: bool) -> None:
    """Without it a lost lease, or a client that left, would be taken for a handler's failure."""
    began, gate = asyncio.Event(), threading.Event()
    loop, call = asyncio.get_running_loop(), Call()

    async def waits(_: Any, __: Any) -> Any:
        began.set()
        await asyncio.sleep(60)

    def blocks(_: Any, __: Any) -> Any:
        loop.call_soon_threadsafe(began.set)
        gate.wait(20)

    running = asyncio.create_task(run(waits if coroutine else blocks, coroutine=coroutine, call=call))
    await began.wait()
    lifecycle.cancel(running)
    with pytest.raises(asyncio.CancelledError):
        await running
    gate.set()

    assert call.cancelled
    assert call.over
