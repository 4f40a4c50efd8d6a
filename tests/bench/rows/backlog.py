"""What one more call costs while a long backlog waits, against a short one: two Postes side by side, services away."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable

import redis.asyncio
from support.deployment import SUM, Deployment, Part
from support.redis_server import RedisServer
from support.waiting import until

from bench import filling, procfs, stage
from bench.figures import Round, Row, Sample, Target, ratio
from bench.load import Plan
from bench.programs import WrongRunError, load
from bench.sizes import Sizes

_TEXT = "CPU per accepted call, by REST, of gateway + middleware + Redis: a long backlog against one of 1,000"
_BATCH_TEXT = "the same in batches, of middleware + Redis alone"
ROWS = (
    Row("backlog", f"{_TEXT}, Debian's Redis", Target(at_most=1.2)),
    # A million keys fit no processor's caches: Redis' commands alone take 13 to 15 % longer, by redis-py too.
    Row("backlog-batch", _BATCH_TEXT),
)
EMBEDDED_ROWS = (
    Row("backlog-embedded", f"{_TEXT}, the embedded Valkey", Target(at_most=1.2)),
    # That server is built with glibc's malloc: with a million records a third of its time is _int_malloc's (by perf);
    # Redis as it is packaged for servers has jemalloc. Tried in vain: GLIBC_TUNABLES (tcache_count, arena_max, mxfast).
    Row("backlog-embedded-batch", _BATCH_TEXT),
)
_SHORT = 1_000
#: CPU per call by parts, in microseconds.
Costs = dict[str, float]


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
            both = ((long, long_client), (short, short_client))
            await filling.fill(long.moms[0].port, SUM, "Add", sizes.backlog)
            for _ in range(sizes.rounds):
                await filling.empty(short_client, f"poste:{{{SUM}}}:*")
                await filling.fill(short.moms[0].port, SUM, "Add", _SHORT)
                in_batches = [await _in_batches(*each, sizes) for each in both]
                by_rest = [await _by_rest(*each, sizes) for each in both]
                yield {row: _sample(*by_rest), f"{row}-batch": _sample(*in_batches)}

    return scene


backlog = growing("backlog", "redis-server")
embedded = growing("backlog-embedded")


async def _by_rest(one: Deployment, client: redis.asyncio.Redis, sizes: Sizes) -> Costs:
    async def load_it() -> int:
        return (await load(Plan([one.gateway.port], statuses=[202], seconds=sizes.seconds))).total

    return await _cost({"gateway": one.gateway, "mom": one.moms[0], "redis": one.redis}, client, load_it)


async def _in_batches(one: Deployment, client: redis.asyncio.Redis, sizes: Sizes) -> Costs:
    async def fill() -> int:
        return len(await filling.fill(one.moms[0].port, SUM, "Add", sizes.enqueued))

    return await _cost({"mom": one.moms[0], "redis": one.redis}, client, fill)


async def _cost(
    parts: dict[str, Part | RedisServer], client: redis.asyncio.Redis, enqueue: Callable[[], Awaitable[int]]
) -> Costs:
    """Return the CPU that one enqueued call takes, by parts, in microseconds."""

    async def quiet() -> bool:
        return not (await client.info("persistence"))["aof_rewrite_in_progress"]

    # A rewrite of the AOF, which the growing brought on, is not what is measured.
    await until(quiet, seconds=120, what="the end of the AOF's rewriting")
    pids = {name: stage.pid(part) for name, part in parts.items()}
    before = {name: procfs.cpu_seconds(pid) for name, pid in pids.items()}
    count = await enqueue()
    return {name: 1e6 * (procfs.cpu_seconds(pid) - before[name]) / count for name, pid in pids.items()}


def _sample(long: Costs, short: Costs) -> Sample:
    both = (("long", long), ("short", short))
    costs = {f"{which} {name} µs": cost for which, one in both for name, cost in one.items()}
    return Sample([ratio(sum(long.values()), to=sum(short.values()))], costs)
