"""Only a signal ends a service's process: not what its handlers raise, nor what the tasks do that they start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.deployment import LEDGER, deployed
from support.waiting import until


@pytest.mark.parametrize("name", ["KeyboardInterrupt", "SystemExit"])
async def test_a_task_of_a_handlers_own_does_not_end_the_process(tmp_path: Path, name: str) -> None:
    """Asyncio lets these two out of any task, through the loop: the process ended, crashed, or ignored SIGTERM."""
    async with deployed(tmp_path) as one:
        worker = one.service("support.stubborn:Stubborn")
        worker.start()
        await one.up(LEDGER)
        pid = worker.process.pid

        async def look(**fields: object) -> int:
            reply = await one.ask("POST", f"/{LEDGER}/Look", {"line": "x", "raiseText": name, **fields})
            return reply.status

        unawaited = await asyncio.gather(*(look() for _ in range(20)))
        awaited = await asyncio.gather(*(look(failCode=1) for _ in range(20)))
        queued = await one.ask("POST", f"/{LEDGER}/Look", {"line": "q", "raiseText": name}, Prefer="respond-async")
        (task,) = await one.ended([queued.headers["Location"]])

        assert set(unawaited) == {200}
        # Waited for, it is the handler's own answer: an unexpected one.
        assert set(awaited) == {500}
        assert task["state"] == "SUCCEEDED"
        assert (worker.alive, worker.process.pid) == (True, pid)
        assert "only a signal ends this process" in worker.log
        assert await worker.stop() < 10
        assert worker.process.returncode == 0


async def test_a_client_may_cancel_what_runs(tmp_path: Path) -> None:
    """Its wish must not be taken for something that the handler did to itself: the call FAILED, as if by a defect."""
    async with deployed(tmp_path, LEDGER) as one:
        await one.up(LEDGER)
        places = []
        for method in ("Record", "Store"):
            body = {"line": method, "sleepSeconds": 60}
            reply = await one.ask("POST", f"/{LEDGER}/{method}", body, Prefer="respond-async")
            places.append(reply.headers["Location"])
            await until(lambda method=method: one.runs([method], method) == [1])
        for place in places:
            assert (await one.ask("DELETE", place)).status == 200
        ended = await one.ended(places)

    assert [task["state"] for task in ended] == ["CANCELLED", "CANCELLED"]
