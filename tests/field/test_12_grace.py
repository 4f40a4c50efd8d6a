"""Grace means grace: what does not end is left behind, the rest is given back, the lease ends, the process exits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs
from support.deployment import LEDGER, SUM, Deployment, Part, deployed
from support.office import Office
from support.waiting import until
from support.worker import FakeMom, claimed, line, running_worker, serving_mom
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain.codes import Code
from poste.domain.task import DeadReason, TaskState
from poste.queue.consumer import ClaimedTask

#: How long a stop may take besides its grace, in seconds: to clean up, to give back, to leave.
BESIDES = 12


class Deaf:
    """A handle that heeds no cancellation until it is released; of a method `Heeds` it does."""

    def __init__(self, office: Office) -> None:
        self.office = office

    async def __call__(self, task: ClaimedTask) -> None:
        self.office.ran.append(task.key)
        while not self.office.release.is_set():
            try:
                await self.office.release.wait()
            except asyncio.CancelledError:
                if task.method == "Heeds":
                    raise


async def test_the_rest_is_given_back_and_the_lease_ends(office: Office) -> None:
    """One handler that ignores its cancellation kept its neighbours from every other process, until it ended."""
    deaf = Deaf(office)
    (again,) = await office.enqueue()
    (once,) = await office.enqueue(repeatable=False)
    heeding = await office.enqueue(2, method="Heeds")
    consumer = office.consume(deaf, grace_seconds=0.1)
    await until(lambda: len(office.ran) == 4)
    await asyncio.wait_for(office.stop(consumer), BESIDES)

    states = [await office.state(key) for key in (again, *heeding)]
    record = (await office.tasks.read(office.queue, once)).record
    assert states == [TaskState.QUEUED] * 3
    assert record is not None
    # It had started, and may yet do whatever it does.
    assert record.dead_reason is DeadReason.OUTCOME_UNKNOWN
    assert await office.incarnations() == []


async def test_a_lost_lease_is_got_over(office: Office) -> None:
    """A consumer would wait for ever for a handler that ignores its cancellation, and never take a task again."""
    deaf = Deaf(office)
    await office.enqueue()
    office.consume(deaf)
    await until(lambda: office.ran)
    (old,) = await office.incarnations()
    await office.client.zrem(office.keys.leases, old)

    async def joined() -> bool:
        return (await office.incarnations()) not in ([], [old])

    await until(joined, what="the next incarnation")


@contextlib.asynccontextmanager
async def released(release: asyncio.Event) -> AsyncIterator[None]:
    """Let handlers that ignore cancellation end when the test does, whatever its end."""
    try:
        yield
    finally:
        release.set()


class DeafService(ledger_pb2_grpc.LedgerServiceServicer):
    """`Look` heeds no cancellation until it is released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def Look(self, request: Any, _: Any) -> Any:  # noqa: N802 - the proto's name
        while request.line == "deaf" and not self.release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.release.wait()
        return ledger_pb2.RecordResponse(line=request.line)


async def test_a_handler_that_does_not_heed_its_deadline_has_an_outcome() -> None:
    """Its task would be RUNNING for as long as the process lives, and its place be lost."""
    mom, deaf = FakeMom(), DeafService()
    mom.settings.settings.queued_timeout_seconds = 0.2
    path = "/testing.v1.LedgerService/Look"
    async with contextlib.AsyncExitStack() as stack:
        target = await stack.enter_async_context(serving_mom(mom))
        with capture_logs() as logs:
            worker = await stack.enter_async_context(running_worker(deaf, mom=target, max_direct_calls=1))
            # Only then it knows the method's time: that the middleware was asked is not enough.
            await until(lambda: any(line["event"] == "registered" for line in logs), what="its registration")
        await stack.enter_async_context(released(deaf.release))
        queued = worker.consumers[0].hand(claimed("Look", line("deaf")))
        await until(lambda: mom.completions, what="its report")
        with contextlib.suppress(Exception):
            await worker.call(path, line("deaf"), timeout=0.2)

        async def answered() -> bool:
            with contextlib.suppress(Exception):
                await worker.call(path, line("not deaf"), timeout=1)
                return True
            return False

        await until(answered, what="room for another direct call")
        assert not queued.done()
        deaf.release.set()
        await asyncio.wait([queued])

    assert [one.error.code for one in mom.completions] == [Code.DEADLINE_EXCEEDED]


async def ended_by_signal(worker: Part, pid: int, seconds: float) -> None:
    assert worker.process is not None
    assert worker.process.pid == pid
    assert await worker.stop() < seconds
    assert worker.process.returncode == 0, worker.log


async def start(one: Deployment, spec: str, **settings: Any) -> tuple[Part, int]:
    worker = one.service(spec, **settings)
    worker.start()
    await one.up(LEDGER)
    assert worker.process is not None
    return worker, worker.process.pid


async def test_a_process_exits_and_says_what_it_left_behind(tmp_path: Path) -> None:
    """SIGTERM would never end it: it ran for 75 s and more, until a second signal came."""
    async with deployed(tmp_path) as one:
        worker, pid = await start(one, "support.stubborn:Both", grace_seconds=0.5)
        await one.up(SUM)
        again = await one.ask("POST", f"/{LEDGER}/Store", {"line": "again"}, Prefer="respond-async")
        once = await one.ask("POST", f"/{LEDGER}/Record", {"line": "once"}, Prefer="respond-async")
        hung = await one.ask("POST", f"/{LEDGER}/Legacy", {"line": "hung", "sleepSeconds": 1}, Prefer="respond-async")
        neighbour = await one.queue(SUM, a=7, b=3)
        direct = asyncio.create_task(one.ask("POST", f"/{LEDGER}/Record", {"line": "direct"}, Prefer="no-queue"))
        by_methods = {"Store": "again", "Record": "once", "Legacy": "hung", "Add": "7"}
        for method, name in by_methods.items():
            await until(lambda method=method, name=name: one.runs([name], method) == [1], what=method)
        await until(lambda: one.runs(["direct"], "Record") == [1])
        await ended_by_signal(worker, pid, BESIDES)
        states = [(await one.task(reply.headers["Location"]))["state"] for reply in (again, once, hung)]

        assert states == ["QUEUED", "DEAD", "QUEUED"]
        assert (await one.task(neighbour))["state"] == "QUEUED"
        assert (await direct).status in (502, 503)
        assert "left behind" in worker.log
        for name in ("Stubborn.Store (stubborn.py", "Stubborn.Record (stubborn.py", '"Stubborn.Legacy"'):
            assert name in worker.log, worker.log


async def test_a_process_exits_though_its_loops_own_pool_hangs(tmp_path: Path) -> None:
    """Asyncio and the interpreter wait for those threads, without a bound."""
    async with deployed(tmp_path) as one:
        worker, pid = await start(one, "support.stubborn:Stubborn", grace_seconds=0.5)
        await one.ask("POST", f"/{LEDGER}/Look", {"line": "pool", "blockSeconds": 1}, Prefer="respond-async")
        await until(lambda: one.runs(["pool"], "Look") == [1])
        await ended_by_signal(worker, pid, BESIDES)

        assert "left behind" in worker.log
