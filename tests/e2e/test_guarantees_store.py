"""docs/performance.md, what faults cost: what becomes of the middleware and of Redis. One test for each row.

Times are the contract's, with as much again for a busy machine: what they guard against takes far longer.
"""

from __future__ import annotations

import asyncio
import contextlib

import redis.asyncio as redis
from support.cli import poste
from support.deployment import LEDGER, PRODUCT, SUM, deployed
from support.load import calling
from support.reaching import http_status
from support.redis_server import running
from support.waiting import until


@contextlib.asynccontextmanager
async def client_of(server):
    async with redis.Redis(port=server.port) as client:
        yield client


async def test_results_outlast_a_killed_middleware(tmp_path):
    """Row 4, one replica: what was done would be done again, and a gateway that restarts would serve no route."""
    async with deployed(tmp_path, SUM, LEDGER) as one:
        (mom,) = one.moms
        lines = [f"reported{number}" for number in range(30)]
        places = [await one.queue(LEDGER, line=line, sleepSeconds=0.05 * n) for n, line in enumerate(lines)]
        await until(lambda: sum(one.runs(lines)) == len(lines), what="all of them run")
        mom.kill()
        one.gateway.kill()
        one.gateway.start()
        await one.ready()
        await one.up(SUM)
        direct = await one.call(SUM, a=2, b=3)
        refused = await one.call(SUM, prefer="respond-async", a=2, b=3)
        mom.start()
        await until(lambda: _accepts(one), what="the middleware is back")
        tasks = await one.ended(places)

    assert (direct.status, direct.body) == (200, {"result": 5})
    assert (refused.status, refused.body["type"]) == (503, "/problems/not-accepted")
    assert "Retry-After" in refused.headers
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}
    assert one.runs(lines) == [1] * len(lines)


async def test_with_two_replicas_of_the_middleware_nobody_notices_the_end_of_one(tmp_path):
    """Row 4, two replicas: the second one would be there for nothing."""
    async with deployed(tmp_path, SUM, moms=2) as one:
        async with (
            calling(lambda: one.call(SUM, a=2, b=3), clients=2) as direct,
            calling(lambda: one.call(SUM, prefer="respond-async", a=2, b=3), pause_seconds=0.02) as queued,
            calling(lambda: one.call(SUM, prefer="respond-async, wait=10", a=2, b=3)) as waited,
        ):
            for mom in one.moms:
                seen = len(queued.shots)
                await until(lambda seen=seen: len(queued.shots) > seen + 100)
                mom.kill()
                seen = len(queued.shots)
                await until(lambda seen=seen: len(queued.shots) > seen + 100)
                mom.start()
                await until(lambda mom=mom: _ready(one, mom), what="it is back")
        tasks = await one.ended([shot.reply.headers["Location"] for shot in queued.shots])

    assert (direct.bad, queued.bad, waited.bad) == ([], [], [])
    assert direct.statuses.keys() == {200}
    assert waited.statuses.keys() == {200}
    assert {(task["state"], task["response"]["result"]) for task in tasks} == {("SUCCEEDED", 5)}


async def test_all_parts_resume_when_redis_is_back(tmp_path):
    """Row 5: workers that are alive but deaf after a blip of the store are what users find hours later."""
    async with deployed(tmp_path, SUM, LEDGER) as one:
        lines = iter(f"kept{number}" for number in range(1_000_000))
        async with (
            calling(lambda: one.call(SUM, a=2, b=3), clients=2) as direct,
            calling(lambda: one.call(LEDGER, prefer="respond-async", line=next(lines)), clients=4) as queued,
        ):
            await until(lambda: len(queued.shots) > 50)
            one.redis.kill()
            await until(lambda: _refuses(one), what="calls are refused")
            await asyncio.to_thread(one.redis.start)
            begin = asyncio.get_running_loop().time()
            await until(lambda: _accepts(one), what="calls are kept again")
            await one.ended([await one.queue(LEDGER, line="after")])
            resumed = asyncio.get_running_loop().time() - begin
        kept = [shot.reply for shot in queued.shots if shot.reply.status == 202]
        tasks = await one.ended([reply.headers["Location"] for reply in kept])

    assert direct.statuses.keys() == {200}
    # What was being written when Redis died is asked for again; if that takes too long, it is said to be unknown.
    assert {(reply.status, reply.body["type"]) for reply in queued.bad} <= {
        (503, "/problems/not-accepted"),
        (502, "/problems/acceptance-unknown"),
    }
    assert all("Retry-After" in reply.headers for reply in queued.bad if reply.status == 503)
    assert all("Location" in reply.headers for reply in queued.bad if reply.status == 502)
    # The gateway asks after a lost answer for 5 s: no client waits for longer.
    assert queued.slowest() < 2 * 5
    assert resumed < 2 * 5
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}


async def test_a_full_queue_refuses_and_keeps_what_it_has(tmp_path):
    """Row 8: an endless queue would fill the disk; one that drops would lose what was promised."""
    limits = {LEDGER: {"max_length": 3}, PRODUCT: {"max_bytes": 40}}
    async with deployed(tmp_path, settings=limits) as one:
        long = await _until_refused(one, LEDGER, line="x")
        wide = await _until_refused(one, PRODUCT, a=2, b=3)
        other = await one.queue(SUM, a=2, b=3)
        for service in (LEDGER, PRODUCT, SUM):
            one.worker(service).start()
        tasks = await one.ended([*long, *wide, other])
        again = await one.queue(LEDGER, line="y")
        await one.ended([again])

    assert len(long) == 3
    # Two doubles are 18 bytes on the wire.
    assert len(wide) == 2
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}


async def test_at_maxmemory_new_calls_are_refused_and_the_accepted_are_done(tmp_path):
    """Row 9: with no memory left nothing could be done, and so nothing ever be freed again."""
    async with deployed(tmp_path) as one, client_of(one.redis) as store:
        lines = [f"{number}" for number in range(100)]
        places = [await one.queue(LEDGER, line=line) for line in lines]
        used = (await store.info("memory"))["used_memory"]
        await store.config_set("maxmemory", int(used * 1.05))
        await until(lambda: _refuses(one), what="calls are refused before the memory is full")
        reason = (await _probe(one, one.moms[0]))[1]
        await store.config_set("maxmemory", used // 2)
        one.worker(LEDGER).start()
        tasks = await one.ended(places)
        errors = await store.info("errorstats")
        refused = await one.call(SUM, prefer="respond-async", a=2, b=3)
        await store.config_set("maxmemory", 0)
        await until(lambda: _accepts(one), what="calls are kept again")

    assert {task["state"] for task in tasks} == {"SUCCEEDED"}
    assert one.runs(lines) == [1] * len(lines)
    # The worker's BLMOVE was refused, and it took them all the same.
    assert errors["errorstat_OOM"]["count"] > 0
    assert (refused.status, refused.body["type"]) == (503, "/problems/not-accepted")
    assert "Retry-After" in refused.headers
    assert "bytes" in reason


async def test_a_redis_that_throws_away_is_refused_by_name(tmp_path):
    """Row 9: accepted calls would vanish for days, and no error be seen."""
    async with deployed(tmp_path, redis={"maxmemory-policy": "allkeys-lru"}) as one:
        status, reason = await _probe(one, one.moms[0])
        refused = await one.call(SUM, prefer="respond-async", a=2, b=3)
    with running(tmp_path / "other", **{"maxmemory-policy": "volatile-ttl"}) as server:
        up = await asyncio.to_thread(poste, "up", "--data", str(tmp_path / "up"), "--redis-url", server.url)

    assert (status, "maxmemory-policy is allkeys-lru" in reason) == (503, True)
    assert (refused.status, refused.body["type"]) == (503, "/problems/not-accepted")
    assert (up.returncode, up.stderr.count("\n")) == (2, 1)
    assert "maxmemory-policy is volatile-ttl, must be noeviction" in up.stderr


async def test_live_calls_stay_direct_while_a_backlog_drains(tmp_path):
    """Row 10: a service that comes back would be away for its callers until it had caught up."""
    async with deployed(tmp_path) as one:
        async with calling(lambda: one.queue(SUM, a=2, b=3), clients=64, pause_seconds=0) as backlog:
            await until(lambda: len(backlog.shots) > 3000, seconds=60)
        one.worker(SUM).start()
        await one.up(SUM)
        left = (await one.figures(SUM))["queued"]
        async with calling(lambda: one.call(SUM, a=2, b=3)) as live:
            await until(lambda: _drained(one), seconds=60, what="the backlog is done")
        tasks = await one.ended([shot.reply for shot in backlog.shots[::100]])

    assert left > 0
    assert live.statuses.keys() == {200}
    assert {task["state"] for task in tasks} == {"SUCCEEDED"}


async def _probe(one, part) -> tuple[int, str]:
    async with one.session.get(f"http://127.0.0.1:{part.admin_port}/readyz") as reply:
        return reply.status, await reply.text()


async def _ready(one, part) -> bool:
    return await http_status(one.session, f"http://127.0.0.1:{part.admin_port}/readyz") == 200


async def _accepts(one) -> bool:
    return (await one.call(SUM, prefer="respond-async", a=2, b=3)).status == 202


async def _refuses(one) -> bool:
    return (await one.call(SUM, prefer="respond-async", a=2, b=3)).status == 503


async def _drained(one) -> bool:
    figures = await one.figures(SUM)
    return figures["queued"] + figures["running"] == 0


async def _until_refused(one, service, **fields) -> list[str]:
    """Queue calls until one is refused because the queue is full; returns where the accepted ones are."""
    places = []
    while (reply := await one.call(service, prefer="respond-async", **fields)).status == 202:
        places.append(reply.headers["Location"])
    assert (reply.status, reply.body["type"]) == (503, "/problems/queue-full")
    assert "Retry-After" in reply.headers
    return places
