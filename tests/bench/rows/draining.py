"""A backlog drained by one service process, against the best of the peers and against redis-py alone.

The clock runs from when the first call was taken off the queue until the last result is stored, for all alike; a row of
its own has it from the start of the process on. Which is which is seen from outside, by looking into Redis every 5 ms.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import redis.asyncio
from support.deployment import SUM, Deployment
from support.redis_server import RedisServer

from bench import filling, procfs, stage
from bench.contenders import PEERS, Peer
from bench.figures import Round, Row, Sample, Target, ratio
from bench.programs import WrongRunError, finish, limit
from bench.sizes import Sizes
from calculator.v1 import sum_pb2
from poste.queue.keys import QueueKeys

ROWS = (
    Row(
        "drain",
        "drain by one service process, first taken to last stored: against the best peer",
        Target(at_least=6),
        limit="two cores: service, middleware and Redis share them, and wait for the disk at each claim and report;"
        " redis-py alone, which claims and reports nothing, comes to less than 6 too (drain over drain-raw)."
        " Kept: one script that takes and claims, one write of a record's end, reports beside the next tasks, tasks"
        " without a task group. Four times as many in hand, claims of half as many, and another number of lanes gained"
        " nothing",
    ),
    Row("drain-start", "the same from the start of the process on: against the best peer"),
    Row("drain-raw", "the same: against redis-py alone in batches of 100", Target(at_least=0.55)),
)
ONCE_ROWS = (
    Row("drain-once", "drain of calls that must not run twice by one service process: against calls that may"),
)
COURIER_ROWS = (
    Row("drain-courier", "drain of a service without the library by one courier: against by the library's own process"),
)
_LOOK_SECONDS = 0.005
_DRAIN_SECONDS = 240.0
_CHECKED = 1000
_KEYS = QueueKeys(SUM)


@dataclass(frozen=True, slots=True)
class Drain:
    """How fast a backlog was drained, in calls per second: from the first taken on, and from the start on."""

    rate: float
    rate_from_start: float


async def drain(sizes: Sizes) -> AsyncIterator[Round]:
    async with (
        stage.poste() as one,
        stage.store() as server,
        stage.client(one.redis) as ours,
        stage.client(server) as other,
    ):
        one.worker(SUM)
        for _ in range(sizes.rounds):
            mine, absolutes = await _drained_by_poste(one, ours, sizes.drained)
            raw = sizes.drained / await finish(
                "-m", "bench.limits.raw_drain", server.url, "bench:raw", str(sizes.drained)
            )
            await other.flushall()
            peers = {}
            for peer in PEERS:
                peers[peer.name] = await _drained_by_peer(peer, server, other, sizes.drained)
                await other.flushall()
            best = max(peers.values(), key=lambda one: one.rate)
            rates = {f"{name} /s": one.rate for name, one in peers.items()}
            started = {f"{name} /s": one.rate_from_start for name, one in peers.items()}
            yield {
                "drain": Sample([ratio(mine.rate, to=best.rate)], {"ours /s": mine.rate, **rates, **absolutes}),
                "drain-start": Sample(
                    [ratio(mine.rate_from_start, to=max(one.rate_from_start for one in peers.values()))],
                    {"ours /s": mine.rate_from_start, **started},
                ),
                "drain-raw": Sample([ratio(mine.rate, to=raw)], {"ours /s": mine.rate, "raw /s": raw}),
            }


async def drain_once(sizes: Sizes) -> AsyncIterator[Round]:
    async with stage.poste() as one, stage.client(one.redis) as client:
        one.worker(SUM)
        for _ in range(sizes.rounds):
            often, _ = await _drained_by_poste(one, client, sizes.drained)
            once, absolutes = await _drained_by_poste(one, client, sizes.drained, once=True)
            rates = {"once /s": once.rate, "often /s": often.rate, **absolutes}
            yield {"drain-once": Sample([ratio(once.rate, to=often.rate)], rates)}


async def drain_courier(sizes: Sizes) -> AsyncIterator[Round]:
    async with (
        limit("unary_sum") as (_, port),
        stage.poste() as one,
        stage.poste(couriers=1, unregistered=[SUM], settings={SUM: {"target": f"127.0.0.1:{port}"}}) as other,
        stage.client(one.redis) as ours,
        stage.client(other.redis) as theirs,
    ):
        one.worker(SUM)
        courier = other.couriers[0]
        for _ in range(sizes.rounds):
            library, _ = await _drained_by_poste(one, ours, sizes.drained)
            if not courier.alive:
                courier.start()
            await other.queueable(SUM)
            # It is known for a minute from then on, so that calls are kept.
            courier.kill()
            delivered, absolutes = await _drained_by_poste(other, theirs, sizes.drained)
            rates = {"courier /s": delivered.rate, "library /s": library.rate, **absolutes}
            yield {"drain-courier": Sample([ratio(delivered.rate, to=library.rate)], rates)}


async def _drained_by_poste(
    one: Deployment, client: redis.asyncio.Redis, count: int, *, once: bool = False
) -> tuple[Drain, dict[str, float]]:
    keys = await filling.fill(one.moms[0].port, SUM, "Add", count)
    if once:
        await filling.mark_once(client, [_KEYS.record(key) for key in keys])
    worker = one.parts[-1]

    async def left() -> int:
        return sum(int(figure or 0) for figure in await client.hmget(_KEYS.counts, "waiting", "running"))

    parts = {"mom": one.moms[0], "redis": one.redis}
    before = {name: procfs.cpu_seconds(stage.pid(part)) for name, part in parts.items()}
    begin = time.monotonic()
    worker.start()
    drained = await _timed(begin, count, lambda: client.llen(_KEYS.ready), left)
    cpu = {
        f"{name} µs": 1e6 * (procfs.cpu_seconds(stage.pid(part)) - before[name]) / count for name, part in parts.items()
    }
    # With what it took to start, which is not per call.
    cpu["service µs"] = 1e6 * procfs.cpu_seconds(stage.pid(worker)) / count
    await worker.stop()
    await _check(client, keys)
    await filling.empty(client, f"poste:{{{SUM}}}:task:*")
    return drained, cpu


async def _check(client: redis.asyncio.Redis, keys: list[str]) -> None:
    """See that each call has its own result."""
    for begin in range(0, len(keys), _CHECKED):
        records = client.pipeline(transaction=False)
        for key in keys[begin : begin + _CHECKED]:
            records.hmget(_KEYS.record(key), "s", "o")
        for number, (state, result) in enumerate(await records.execute(), begin):
            if state != b"S" or sum_pb2.AddResponse.FromString(result).result != number + 0.5:
                raise WrongRunError(f"call {number} ended as {state!r} with {result!r}")


async def _drained_by_peer(peer: Peer, server: RedisServer, client: redis.asyncio.Redis, count: int) -> Drain:
    await peer.run(server, "fill", str(count))
    if await peer.queued(client) != count:
        raise WrongRunError(f"{peer.name} has not queued {count} calls")
    begin = time.monotonic()
    async with peer.working(server):
        return await _timed(begin, count, lambda: peer.queued(client), lambda: peer.left(client, count))


async def _timed(
    begin: float, count: int, queued: Callable[[], Awaitable[int]], left: Callable[[], Awaitable[int]]
) -> Drain:
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while await queued() >= count:
                await asyncio.sleep(_LOOK_SECONDS)
            first = time.monotonic()
            while await left() > 0:
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        raise WrongRunError(f"not drained within {_DRAIN_SECONDS} s") from None
    end = time.monotonic()
    return Drain(count / (end - first), count / (end - begin))
