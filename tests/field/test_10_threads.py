"""`def` handlers that hang: what waits for a thread has not run, and a process that lost all says so and ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
from support.deployment import LEDGER, deployed
from support.linked import linked
from support.waiting import until
from support.worker import FakeMom, RunningWorker, claimed, line, running_worker, serving_mom
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain.codes import Code
from poste.queue.consumer import NotRun
from poste.rpc.channels import code, proves_not_run
from poste.service.threads import NoThread, Threads
from poste.upstream.failure import Failure
from poste.upstream.outgoing_call import OutgoingCall

LEGACY = "/testing.v1.LedgerService/Legacy"


class Hanging(ledger_pb2_grpc.LedgerServiceServicer):
    """`Legacy` hangs in its thread when its line says so."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.ran: list[str] = []

    def Legacy(self, request: Any, _: Any) -> Any:  # noqa: N802 - the proto's name
        self.ran.append(request.line)
        if request.line.startswith("hang"):
            self.release.wait(30)
        return ledger_pb2.RecordResponse(line=request.line)

    async def Look(self, request: Any, _: Any) -> Any:  # noqa: N802 - the proto's name
        return ledger_pb2.RecordResponse(line=request.line)


@pytest.fixture
async def hanging() -> AsyncIterator[Hanging]:
    one = Hanging()
    yield one
    one.release.set()


async def refused(worker: RunningWorker, text: str, seconds: float) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.call(LEGACY, line(text), timeout=seconds)
    return caught.value


async def metric(worker: RunningWorker, name: str) -> float:
    async with aiohttp.ClientSession() as http, http.get(f"{worker.admin_url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(one.rpartition(" ")[2]) for one in lines if one.startswith(name + "{"))


async def readiness(worker: RunningWorker) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(f"{worker.admin_url}/readyz") as answer:
        return answer.status, await answer.text()


async def test_a_direct_call_without_a_thread_is_proved_not_run(hanging: Hanging) -> None:
    """It would wait for its deadline, its outcome unknown: a 502, or a circuit breaker that opens for others too."""
    async with (
        running_worker(hanging, concurrency=1, threads_lost_seconds=0) as worker,
        linked(worker.target) as replica,
    ):
        before = await metric(worker, "poste_threads_lost")
        held = asyncio.create_task(worker.call(LEGACY, line("hang"), timeout=2))
        await until(lambda: hanging.ran == ["hang"])
        # Its call goes on: others wait for the thread as long as they have time.
        waited = await refused(worker, "waits", 0.5)
        by_link = await replica.call(OutgoingCall(LEGACY, line("waits by link").SerializeToString(), "id"), 0.5)
        assert (code(waited), proves_not_run(waited)) == (Code.RESOURCE_EXHAUSTED, True)
        assert isinstance(by_link, Failure)
        assert by_link.not_run
        with pytest.raises(grpc.aio.AioRpcError):
            await held
        # Its call is over: the thread is lost, and waiting for it is of no use.
        await until(lambda: readiness_is(worker, 503), what="it says that it is not ready")
        assert "lost to handlers that do not end" in (await readiness(worker))[1]
        assert await metric(worker, "poste_threads_lost") == before + 1
        began = asyncio.get_running_loop().time()
        late = await refused(worker, "late", 20)
        assert asyncio.get_running_loop().time() - began < 10
        assert proves_not_run(late)
        hanging.release.set()
        await until(lambda: readiness_is(worker, 200), what="it is ready again")
        assert await worker.call(LEGACY, line("after"))
        assert await metric(worker, "poste_threads_lost") == before

    assert hanging.ran == ["hang", "after"]


async def readiness_is(worker: RunningWorker, status: int) -> bool:
    return (await readiness(worker))[0] == status


async def test_one_services_threads_are_not_anothers(hanging: Hanging) -> None:
    """A service that hangs would take its neighbours in the same process along."""
    from calculator.v1 import sum_pb2, sum_pb2_grpc  # noqa: PLC0415 - here only

    class Plain(sum_pb2_grpc.SumServiceServicer):
        def Add(self, request: Any, _: Any) -> Any:  # noqa: N802 - the proto's name
            return sum_pb2.AddResponse(result=request.a + request.b)

    async with running_worker(hanging, Plain(), concurrency=1, threads_lost_seconds=0) as worker:
        assert code(await refused(worker, "hang", 0.3)) is Code.DEADLINE_EXCEEDED
        assert await worker.call("/calculator.v1.SumService/Add", sum_pb2.AddRequest(a=1, b=2))


async def test_a_task_without_a_thread_is_given_back(hanging: Hanging) -> None:
    """It would wait until its time is over, be counted as an attempt, and in the end be DEAD without having run."""
    mom = FakeMom()
    mom.settings.settings.queued_timeout_seconds = 0.2
    async with (
        serving_mom(mom) as target,
        running_worker(hanging, mom=target, concurrency=1, threads_lost_seconds=0) as worker,
    ):
        await until(lambda: mom.registered)
        before = await metric(worker, "poste_threads_lost")

        async def lost() -> bool:
            await asyncio.wait([worker.consumers[0].hand(claimed("Legacy", line("hang")))], timeout=0.5)
            return await metric(worker, "poste_threads_lost") > before

        await until(lost, what="a lost thread")
        with pytest.raises(NotRun):
            await worker.consumers[0].hand(claimed("Legacy", line("innocent")))
        # What needs no thread is not held up.
        await worker.consumers[0].hand(claimed("Look", line("async"), key="async"))
        assert mom.completions[-1].key == "async"

    assert "innocent" not in hanging.ran


async def test_a_call_that_is_given_up_never_runs() -> None:
    """What is reported as "not run" would run once a thread is free."""
    threads, gate, ran = Threads(1, "test"), threading.Event(), []
    holding = asyncio.create_task(threads.run(lambda: gate.wait(20)))
    await asyncio.sleep(0)
    with pytest.raises(NoThread):
        await threads.run(lambda: ran.append("given up"), patience_seconds=0.05)
    with pytest.raises(NoThread):
        await threads.run(lambda: ran.append("at once"), patience_seconds=0.0)
    cancelled = asyncio.create_task(threads.run(lambda: ran.append("cancelled")))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    gate.set()
    await holding
    await threads.run(lambda: ran.append("later"))
    threads.close()

    assert ran == ["later"]
    assert threads.lost == 0


async def test_a_process_that_lost_its_threads_ends_in_order_and_nothing_innocent_is_dead(tmp_path: Path) -> None:
    """13 hung calls took all threads for good, and a hundred innocent ones went DEAD without ever starting."""
    settings = {LEDGER: {"queued_timeout_seconds": 0.3, "backoff_seconds": 0.2, "max_backoff_seconds": 0.2}}
    async with deployed(tmp_path, settings=settings) as one:
        worker = one.service("support.stubborn:Stubborn", concurrency=3, threads_lost_seconds=1, grace_seconds=1)
        worker.start()
        await one.up(LEDGER)

        async def queue(name: str, seconds: float) -> str:
            fields = {"line": name, "sleepSeconds": seconds, "times": 1}
            reply = await one.ask("POST", f"/{LEDGER}/Legacy", fields, Prefer="respond-async")
            assert reply.status == 202, reply
            return reply.headers["Location"]

        hung = [await queue(f"hung{number}", 1) for number in range(3)]
        await until(lambda: one.runs([f"hung{number}" for number in range(3)], "Legacy") == [1] * 3)
        innocent = [await queue(f"innocent{number}", 0) for number in range(20)]
        await until(lambda: not worker.alive, what="it ends by itself")
        assert worker.process is not None
        assert worker.process.returncode == 1, worker.log
        assert "threads lost" in worker.log
        assert one.runs([f"innocent{number}" for number in range(20)], "Legacy") == [0] * 20
        worker.start()
        ended = await one.ended([*innocent, *hung])

    assert {task["state"] for task in ended} == {"SUCCEEDED"}
    assert {task["attempt"] for task in ended[:20]} == {1}
