"""What one more call costs while a long backlog waits, against a short one: two Postes side by side, services away."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import redis.asyncio
from support.deployment import SUM, Deployment
from support.waiting import until

from bench import filling, procfs, stage
from bench.figures import Round, Row, Sample, Target, ratio
from bench.sizes import Sizes

ROWS = (
    Row(
        "backlog",
        "CPU of middleware + Redis per enqueued call: a long backlog against one of 1,000",
        Target(at_most=1.2),
        limit="Redis' commands take 13 % longer with a million records than with 20,000 (redis-py alone: 15"
        " %), the middleware as long as before. The rest Redis spends outside its commands, and why"
        " more of it was not found out",
    ),
)
_SHORT = 1_000


async def backlog(sizes: Sizes) -> AsyncIterator[Round]:
    async with (
        stage.poste() as short,
        stage.poste() as long,
        stage.client(short.redis) as short_client,
        stage.client(long.redis) as long_client,
    ):
        await filling.fill(long.moms[0].port, SUM, "Add", sizes.backlog)
        for _ in range(sizes.rounds):
            await filling.empty(short_client, f"poste:{{{SUM}}}:*")
            await filling.fill(short.moms[0].port, SUM, "Add", _SHORT)
            b = await _cost(short, short_client, sizes.enqueued)
            a = await _cost(long, long_client, sizes.enqueued)
            costs = {
                f"{which} {name} µs": cost for which, one in (("long", a), ("short", b)) for name, cost in one.items()
            }
            figure = ratio(a["mom"] + a["redis"], to=b["mom"] + b["redis"])
            yield {"backlog": Sample([figure], {"long": sizes.backlog, **costs})}


async def _cost(one: Deployment, client: redis.asyncio.Redis, count: int) -> dict[str, float]:
    """Return the CPU that one enqueued call takes, by parts, and the time (`wall`), in microseconds."""

    async def quiet() -> bool:
        return not (await client.info("persistence"))["aof_rewrite_in_progress"]

    # A rewrite of the AOF, which the growing brought on, is not what is measured.
    await until(quiet, seconds=120, what="the end of the AOF's rewriting")
    pids = {"mom": stage.pid(one.moms[0]), "redis": stage.pid(one.redis)}
    before = {name: procfs.cpu_seconds(pid) for name, pid in pids.items()}
    begin = time.perf_counter()
    await filling.fill(one.moms[0].port, SUM, "Add", count)
    spent = {name: procfs.cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    return {name: 1e6 * seconds / count for name, seconds in {**spent, "wall": time.perf_counter() - begin}.items()}
