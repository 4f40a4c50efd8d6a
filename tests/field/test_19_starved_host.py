"""A host that is short of processor time: what is late there is no hang, and what is under way is not lost."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from support.cli import Reply
from support.deployment import DEFAULTS, LEDGER, SUM, Deployment, deployed
from support.starving import starved
from support.waiting import until

#: How long the parts are short of time, and how soon all is well afterwards, in seconds.
STARVED_SECONDS = 8
RECOVERED_SECONDS = 5
#: How many calls begin in a second, however late the others are.
RATE = 50
#: Each method, whether it may run twice, and what it is called with.
CALLS: list[tuple[str, bool, dict[str, Any]]] = [
    (f"/{SUM}/Add", True, {"a": 2, "b": 3}),
    (f"/{LEDGER}/Store", True, {"line": "line"}),
    (f"/{LEDGER}/Record", False, {"line": "line"}),
]
#: Longer than anything was waited for on the way of a call, in seconds, and less than a client waits.
HALT_SECONDS = 3


async def called(one: Deployment, seconds: float, preferences: Iterable[str]) -> list[tuple[bool, Reply]]:
    """Call at the rate, each method by each road; returns the replies, and whether the call may run twice."""
    loop = asyncio.get_running_loop()
    begin = loop.time()

    async def call(path: str, body: dict[str, Any], prefer: str) -> Reply:
        return await one.ask("POST", path, body, **({"Prefer": prefer} if prefer else {}))

    async with asyncio.TaskGroup() as group:
        shots = []
        for number, (prefer, (path, twice, body)) in zip(
            range(int(seconds * RATE)), itertools.cycle(itertools.product(preferences, CALLS)), strict=False
        ):
            await asyncio.sleep(begin + number / RATE - loop.time())
            shots.append((twice, group.create_task(call(path, body, prefer))))
    return [(twice, shot.result()) for twice, shot in shots]


async def test_parts_that_get_a_ninth_of_the_time_answer_all_the_same(tmp_path):
    """Good connections would be ended for being late, each new one cost more, and a busy host fall apart."""
    async with deployed(tmp_path, SUM, SUM, LEDGER, pace=DEFAULTS) as one:
        with starved([part.process.pid for part in one.parts]):
            shots = await called(one, STARVED_SECONDS, ("", "respond-async"))
        async with asyncio.timeout(RECOVERED_SECONDS):
            while {reply.status for _, reply in await called(one, 1, [""])} != {200}:
                pass
        places = [reply.headers["Location"] for _, reply in shots if reply.status == 202]
        tasks = await one.ended(places)
        logs = one.logs()

    statuses = Counter((twice, reply.status) for twice, reply in shots)
    assert sum(count for (_, status), count in statuses.items() if status >= 300) < len(shots) / 100, (statuses, logs)
    assert statuses[True, 502] == 0, (statuses, logs)
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}


@pytest.mark.parametrize(
    ("who", "timeout_seconds"),
    # While the gateway is halted its calls' time does not run.
    [("the service", 30), ("the gateway", 2)],
)
async def test_a_halt_loses_no_call_that_may_run_only_once(tmp_path, who, timeout_seconds):
    """Its caller would get a 502, outcome unknown, of a call that is answered a moment later."""
    settings = {LEDGER: {"timeout_seconds": timeout_seconds}}
    async with deployed(tmp_path, LEDGER, settings=settings, gateway_settings={"log_level": "debug"}) as one:
        # Before, calls go one by one, with deadlines that gRPC keeps by the wall's clock.
        await until(lambda: "link open" in (tmp_path / "gateway.log").read_text(), what="a link")
        halted = one.gateway if who == "the gateway" else one.parts[-1]
        call = asyncio.create_task(one.ask("POST", f"/{LEDGER}/Record", {"line": "once", "sleepSeconds": 0.5}))
        await until(lambda: sum(one.runs(["once"], "Record")) == 1, what="its run")
        halted.send(signal.SIGSTOP)
        await asyncio.sleep(HALT_SECONDS)
        halted.send(signal.SIGCONT)
        reply = await call
        runs, logs = one.runs(["once"], "Record"), one.logs()

    assert (reply.status, runs) == (200, [1]), (reply.body, logs)


async def test_a_call_that_may_run_twice_leaves_a_service_that_hangs(tmp_path):
    """It would wait for its whole timeout, with a replica beside it that is free."""
    async with deployed(tmp_path, LEDGER, LEDGER) as one:
        hung = one.parts[-2]
        loop = asyncio.get_running_loop()
        calls = [
            asyncio.create_task(one.ask("POST", f"/{LEDGER}/Store", {"line": f"twice{n}", "sleepSeconds": 0.5}))
            for n in range(4)
        ]
        await until(lambda: sum(one.runs(f"twice{n}" for n in range(4))) == 4, what="their runs")
        begin = loop.time()
        hung.send(signal.SIGSTOP)
        replies = await asyncio.gather(*calls)
        took = loop.time() - begin
        hung.send(signal.SIGCONT)

    assert {reply.status for reply in replies} == {200}
    assert took < 2 * 1.5 + 0.5
