"""Idempotency keys in a whole Poste of processes: whatever dies, a call runs once, or that it is unknown is said."""

from __future__ import annotations

import asyncio

from support.deployment import LEDGER, Deployment, deployed
from support.waiting import until

RECORD = f"/{LEDGER}/Record"


async def record(one: Deployment, key: str, line: str, **fields):
    return await one.ask("POST", RECORD, {"line": line, **fields}, Idempotency_Key=key)


async def test_calls_with_keys_run_once_whatever_dies(tmp_path):
    """Its process killed in the middle, its gateway before it answers: who repeats a call would be charged twice."""
    async with deployed(tmp_path, LEDGER) as one:
        worker = one.parts[-1]
        first = await record(one, "plain", "plain")
        again = await record(one, "plain", "plain")
        mixed_up = await record(one, "plain", "another line")

        crashed = asyncio.create_task(record(one, "crash", "crash", sleepSeconds=20))
        await until(lambda: one.runs(["crash"], "Record") == [1])
        running = await record(one, "crash", "crash", sleepSeconds=20)
        worker.kill()
        dead = await crashed
        worker.start()
        await one.up(LEDGER)
        told = await record(one, "crash", "crash", sleepSeconds=20)

        lost = asyncio.create_task(record(one, "gateway", "gateway", sleepSeconds=1))
        await until(lambda: one.runs(["gateway"], "Record") == [1])
        one.gateway.kill()
        await asyncio.gather(lost, return_exceptions=True)
        one.gateway.start()
        await one.ready()
        await one.up(LEDGER)

        async def found() -> bool:
            return (await record(one, "gateway", "gateway", sleepSeconds=1)).status == 200

        await until(found, what="the answer of the first call")

        worker.kill()
        away = await record(one, "away", "away")
        worker.start()
        await one.ended([away.headers["Location"]])
        kept = await record(one, "away", "away")

        assert one.runs(["plain", "another line", "crash", "gateway", "away"], "Record") == [1, 0, 1, 1, 1]
        assert (first.status, first.body) == (again.status, again.body) == (200, {"line": "plain", "run": 1})
        assert ("Idempotent-Replayed" in first.headers, again.headers["Idempotent-Replayed"]) == (False, "true")
        assert mixed_up.status == 422
        assert (running.status, running.body["type"]) == (409, "/problems/idempotency-key-in-use")
        assert [(reply.status, reply.body["reason"]) for reply in (dead, told)] == [(202, "outcome-unknown")] * 2
        assert running.headers["Location"] == dead.headers["Location"] == told.headers["Location"]
        assert (away.status, kept.status, kept.body["run"]) == (202, 200, 1)


async def test_a_service_without_the_library_has_keys_by_its_courier(tmp_path):
    """Else keys hold for services in Python alone."""
    async with deployed(tmp_path, foreigners=1, couriers=1) as one:
        await one.up(LEDGER)
        replies = [await record(one, "foreign", "foreign") for _ in range(2)]

        assert [(reply.status, reply.body["run"]) for reply in replies] == [(200, 1)] * 2
        assert replies[1].headers["Idempotent-Replayed"] == "true"
        assert one.runs(["foreign"], "Record") == [1]
