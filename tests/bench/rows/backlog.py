"""What one more call costs while a long backlog waits, against a short one: two Postes side by side, services away."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Callable

import redis.asyncio
from support.deployment import SUM, Deployment
from support.waiting import until

from bench import filling, procfs, stage
from bench.figures import Round, Row, Sample, Target, ratio
from bench.programs import WrongRunError
from bench.sizes import Sizes

_TEXT = "CPU of middleware + Redis per enqueued call: a long backlog against one of 1,000"
ROWS = (
    Row(
        "backlog",
        f"{_TEXT}, Debian's Redis",
        Target(at_most=1.2),
        limit="a million keys fit no processor's caches: Redis' commands alone take 13 to 15 % longer, by redis-py"
        " too; and a round's figure is coarse, by the ticks in which CPU is counted",
    ),
)
EMBEDDED_ROWS = (
    Row(
        "backlog-embedded",
        f"{_TEXT}, the embedded Valkey",
        Target(at_most=1.2),
        limit="that server is built with glibc's malloc: with a million records a third of its time is _int_malloc's"
        " (perf record), where Redis as it is packaged for servers has jemalloc, and stays flat. Tried in vain:"
        " GLIBC_TUNABLES (tcache_count, arena_max, mxfast)",
    ),
)
_SHORT = 1_000


def growing(row: str, binary: str | None = None) -> Callable[[Sizes], AsyncIterator[Round]]:
    """Make the scene for one server: the embedded one, or a program on the path."""

    async def scene(sizes: Sizes) -> AsyncIterator[Round]:
        if binary is not None and shutil.which(binary) is None:
            raise WrongRunError(f"{binary} is not installed")
        server = {} if binary is None else {"binary": binary}
        async with (
            stage.poste(redis=server) as short,
            stage.poste(redis=server) as long,
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
                    f"{which} {name} µs": cost
                    for which, one in (("long", a), ("short", b))
                    for name, cost in one.items()
                }
                figure = ratio(a["mom"] + a["redis"], to=b["mom"] + b["redis"])
                yield {row: Sample([figure], {"long": sizes.backlog, **costs})}

    return scene


backlog = growing("backlog", "redis-server")
embedded = growing("backlog-embedded")


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
