"""What faults cost (docs/performance.md): services killed, hung, blocked, deployed, poisoned. A test for each row.

Times are the contract's, with as much again for a busy machine: what they guard against takes far longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

import pytest
from support.deployment import DEFAULTS, HASTY, LEDGER, PRODUCT, SUM, deployed
from support.load import calling
from support.waiting import until


async def lines_running(one, count: int, prefix: str, **fields) -> tuple[list[str], list[str]]:
    """Queue calls and wait until each of their handlers runs; returns their lines and their tasks' places."""
    lines = [f"{prefix}{number}" for number in range(count)]
    places = [await one.queue(LEDGER, line=line, **fields) for line in lines]
    await until(lambda: sum(one.runs(lines)) == count, what="all of them run")
    return lines, places


@pytest.mark.parametrize("who", ["another replica", "itself once back"])
async def test_a_killed_services_tasks_are_done_within_15_seconds(tmp_path, who):
    """Row 1: lost on a crash by default, or so late that it looks lost, is what users of other queues shout about."""
    # The time is promised with the settings of a deployment; to wait for it once is enough.
    pace = DEFAULTS if who == "another replica" else HASTY
    async with deployed(tmp_path, LEDGER, pace=pace) as one:
        killed = one.parts[-1]
        # The first runs would outlast the test.
        lines, places = await lines_running(one, 20, "killed", sleepSeconds=60, times=1)
        if who == "another replica":
            one.worker(LEDGER).start()
            await one.up(LEDGER, 2)
        states = {(await one.task(place))["state"] for place in places}
        killed.kill()
        if who == "itself once back":
            killed.start()
        tasks = await one.ended(places, seconds=15)

    assert states == {"RUNNING"}
    assert [(task["state"], task["response"]["line"]) for task in tasks] == [("SUCCEEDED", line) for line in lines]
    assert one.runs(lines) == [2] * len(lines)


async def test_what_a_killed_service_may_have_run_is_not_run_twice(tmp_path):
    """Row 1, not declared idempotent: running it again, on either road, may charge a customer twice."""
    async with deployed(tmp_path, LEDGER) as one:
        worker = one.parts[-1]
        lines = [f"once{number}" for number in range(5)]
        path = f"/{LEDGER}/Record"
        kept = [
            await one.ask("POST", path, {"line": line, "sleepSeconds": 30}, Prefer="respond-async") for line in lines
        ]
        await until(lambda: sum(one.runs(lines, "Record")) == len(lines), what="all of them run")
        direct = await one.ask("POST", path, {"line": "direct", "crash": True})
        await until(lambda: not worker.alive)
        worker.start()
        tasks = await one.ended([reply.headers["Location"] for reply in kept], seconds=15)

    assert (direct.status, direct.body["type"]) == (502, "/problems/outcome-unknown")
    assert {(task["state"], task["reason"]) for task in tasks} == {("DEAD", "outcome-unknown")}
    assert one.runs([*lines, "direct"], "Record") == [1] * 6


async def test_a_hung_service_is_left_within_1_5_seconds_and_hurts_no_other(tmp_path):
    """Row 2: one process that hangs would hang its callers for a whole deadline, and the gateway with them."""
    async with deployed(tmp_path, SUM, SUM, PRODUCT) as one:
        hung, left = one.parts[-3], one.parts[-2]
        async with (
            calling(lambda: one.call(SUM, a=2, b=3)) as to_it,
            calling(lambda: one.call(PRODUCT, a=2, b=3)) as to_another,
        ):
            await until(lambda: len(to_it.shots) > 100)
            hung.send(signal.SIGSTOP)
            await one.up(SUM, 1)
            seen = len(to_it.shots)
            await until(lambda: len(to_it.shots) > seen + 100)
        left.send(signal.SIGSTOP)
        kept = await one.call(SUM, prefer="", a=2, b=3)
        hung.send(signal.SIGCONT)
        left.send(signal.SIGCONT)
        await one.ended([kept.headers["Location"]] if kept.status == 202 else [])

    assert (to_it.bad, to_another.bad) == ([], [])
    assert to_it.slowest() < 2 * 1.5
    assert to_another.slowest() < 1.5
    assert kept.status in (200, 202)


async def test_a_blocked_loop_keeps_its_tasks(tmp_path):
    """Row 3: a handler that blocks its process for several leases would have all its tasks run again elsewhere.

    Or in the very same place, for it blocks for longer than they may take.
    """
    async with deployed(tmp_path, LEDGER, settings={LEDGER: {"queued_timeout_seconds": 3}}) as one:
        lines, places = await lines_running(one, 5, "beside", sleepSeconds=1)
        places.append(await one.queue(LEDGER, line="blocks", blockSeconds=4))
        lines.append("blocks")
        one.worker(LEDGER).start()
        tasks = await one.ended(places)

    assert {task["state"] for task in tasks} == {"SUCCEEDED"}
    assert {task["attempt"] for task in tasks} == {1}
    assert one.runs(lines) == [1] * len(lines)


async def test_a_rolling_deploy_fails_no_call_and_counts_no_attempt(tmp_path):
    """Row 6, two replicas: every deployment would cost calls, or bring tasks nearer to their end as DEAD."""
    async with deployed(tmp_path, LEDGER, LEDGER, grace_seconds=1) as one:
        replicas = one.parts[-2:]
        # The last of them is longer than the grace: it is given back, and no attempt.
        queued = [await one.queue(LEDGER, line=f"deploy{n}", sleepSeconds=0.5) for n in range(20)]
        queued.append(await one.queue(LEDGER, line="long", sleepSeconds=2.5))
        async with calling(lambda: one.call(LEDGER, line="live", sleepSeconds=0.05), clients=8) as load:
            await until(lambda: sum(one.runs(["long"])) == 1)
            for replica in replicas:
                await replica.stop()
                replica.start()
                await one.up(LEDGER, 2)
        tasks = await one.ended(queued)

    assert load.bad == []
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}
    assert {task["attempt"] for task in tasks} == {1}
    assert one.runs([f"deploy{n}" for n in range(20)]) == [1] * 20
    # Its first run was not waited for.
    assert one.runs(["long"])[0] > 1


async def test_a_deploy_of_the_only_replica_fails_no_call(tmp_path):
    """Row 6, one replica: what came while it was away would be lost, and what was sent to it be cut off."""
    async with deployed(tmp_path, SUM, grace_seconds=2) as one:
        only = one.parts[-1]
        async with calling(lambda: one.call(SUM, prefer="", a=2, b=3)) as load:
            await until(lambda: len(load.shots) > 50)
            await only.stop()
            seen = len(load.shots)
            await until(lambda: len(load.shots) > seen + 20)
            only.start()
            await one.up(SUM, 1)
        places = [shot.reply.headers["Location"] for shot in load.shots if shot.reply.status == 202]
        tasks = await one.ended(places)

    assert load.bad == []
    assert len(places) >= 20
    assert {(task["state"], task["attempt"], task["response"]["result"]) for task in tasks} == {("SUCCEEDED", 1, 5)}


async def test_poison_is_dead_after_its_crashes_and_the_queue_moves_on(tmp_path):
    """Row 7: one request would kill every process that ever takes it, and all that waits behind it would wait on."""
    async with deployed(tmp_path, LEDGER, settings={LEDGER: {"max_crashes": 2}}, concurrency=4) as one:
        worker = one.parts[-1]

        async def bring_back() -> None:
            while True:
                await until(lambda: not worker.alive, seconds=60)
                worker.start()

        keeper = asyncio.create_task(bring_back())
        try:
            lines = [f"behind{number}" for number in range(12)]
            poison = await one.queue(LEDGER, line="poison", crash=True)
            places = [await one.queue(LEDGER, line=line, sleepSeconds=0.2) for line in lines]
            (dead,) = await one.ended([poison], seconds=40)
            tasks = await one.ended(places)
        finally:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper

    assert (dead["state"], dead["reason"]) == ("DEAD", "crashes")
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}
    # Twice in company at most, then twice alone.
    assert 2 <= one.runs(["poison"])[0] <= 4
