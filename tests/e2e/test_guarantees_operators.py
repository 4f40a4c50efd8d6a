"""Operators' verbs while everything else breaks: what they order holds, and what they replay is done once."""

from __future__ import annotations

from support.deployment import LEDGER, SUM, deployed
from support.load import calling
from support.waiting import until

UNAVAILABLE = 14


async def test_what_operators_order_holds_while_parts_come_and_go(tmp_path):
    """A queue that was paused for a reason would start by itself, or a replay be lost, just when things break."""
    async with deployed(tmp_path, SUM, LEDGER, moms=2, settings={LEDGER: {"max_attempts": 1}}) as one:
        sums, ledger = one.parts[-2:]
        lines = [f"dead{number}" for number in range(6)]
        dead = [await one.queue(LEDGER, line=line, failCode=UNAVAILABLE, times=1) for line in lines]
        assert {task["state"] for task in await one.ended(dead)} == {"DEAD"}
        async with calling(lambda: one.call(SUM, "respond-async", a=2, b=3), clients=2) as load:
            await done(one, f"/v1/queues/{SUM}/pause")
            one.moms[0].kill()
            sums.kill()
            sums.start()
            one.redis.kill()
            one.redis.start()
            one.moms[0].start()
            await one.up(SUM)
            held = await until(lambda: kept(one), what="Redis is back")
            paused = await one.figures(SUM)
            ledger.kill()
            await done(one, f"{dead[0]}/purge")
            await done(one, f"/v1/queues/{LEDGER}/replay")
            ledger.start()
            replayed = await one.ended(dead[1:])
            waits = await one.task(held)
            await done(one, f"/v1/queues/{SUM}/resume")
        places = [shot.reply.headers["Location"] for shot in load.shots if shot.reply.status == 202]
        tasks = await one.ended([*places, held])
        purged = await one.task(dead[0])

    assert paused["paused"] is True
    assert paused["queued"] >= 1
    assert waits["state"] == "QUEUED"
    assert {(task["state"], task["response"]["run"]) for task in replayed} == {("SUCCEEDED", 2)}
    assert purged["state"] == "DEAD"
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}
    assert one.runs(lines) == [1, 2, 2, 2, 2, 2]


async def kept(one) -> str | None:
    """Have a call kept; returns its path, None if it is not."""
    reply = await one.call(SUM, "respond-async", a=3, b=4)
    return reply.headers["Location"] if reply.status == 202 else None


async def done(one, path: str) -> None:
    """Give an order until it is heard: it may be given twice."""

    async def heard() -> bool:
        reply = await one.order(path)
        assert reply.status in (200, 503), reply
        return reply.status == 200

    await until(heard, what=path)
