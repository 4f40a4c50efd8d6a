"""What an idempotency key costs: the same calls with a key each, and without, to a service that is up."""

from __future__ import annotations

from collections.abc import AsyncIterator

from support.deployment import SUM

from bench import stage
from bench.figures import Round, Row, Sample, ratio
from bench.load import Plan
from bench.programs import load
from bench.rows.direct import costed
from bench.sizes import Sizes

ROWS = (
    Row(
        "keyed-cpu",
        "calls with an idempotency key each, service up, 32 connections: CPU of all parts against calls without",
    ),
    Row("keyed-p50", "the same, 1 connection: p50 against calls without"),
)


async def keyed(sizes: Sizes) -> AsyncIterator[Round]:
    async with stage.poste(SUM) as one:
        parts = {"gateway µs": one.gateway, "mom µs": one.moms[0], "redis µs": one.redis, "service µs": one.parts[-1]}
        pids = {name: stage.pid(part) for name, part in parts.items()}
        port = [one.gateway.port]
        for _ in range(sizes.rounds):
            many, costs = await costed(Plan(port, seconds=sizes.seconds, keyed=True), pids)
            many_without, costs_without = await costed(Plan(port, seconds=sizes.seconds), pids)
            lone = await load(Plan(port, connections=1, seconds=sizes.seconds, keyed=True))
            lone_without = await load(Plan(port, connections=1, seconds=sizes.seconds))
            rates = {"with a key /s": many.rate, "without /s": many_without.rate}
            times = {"with a key ms": lone.p50_ms, "without ms": lone_without.p50_ms}
            yield {
                "keyed-cpu": Sample([ratio(sum(costs.values()), to=sum(costs_without.values()))], rates | costs),
                "keyed-p50": Sample([ratio(lone.p50_ms, to=lone_without.p50_ms)], times),
            }
