"""What an idempotency key costs: the same calls with a key each, and without, to a service that is up."""

from __future__ import annotations

from collections.abc import AsyncIterator

from support.deployment import SUM

from bench import stage
from bench.figures import Round, Row, Sample, ratio
from bench.load import Plan
from bench.programs import load
from bench.sizes import Sizes

ROWS = (
    Row("keyed", "calls with an idempotency key each, service up, 32 connections: requests/s against calls without"),
    Row("keyed-p50", "the same, 1 connection, idle: p50 against calls without"),
)


async def keyed(sizes: Sizes) -> AsyncIterator[Round]:
    async with stage.poste(SUM) as one:
        port = [one.gateway.port]
        for _ in range(sizes.rounds):
            samples = {}
            for name, connections in (("keyed", 32), ("keyed-p50", 1)):
                plan = Plan(port, connections=connections, seconds=sizes.seconds)
                without = await load(plan)
                with_key = await load(Plan(port, connections=connections, seconds=sizes.seconds, keyed=True))
                pair = (with_key.rate, without.rate) if name == "keyed" else (with_key.p50_ms, without.p50_ms)
                samples[name] = Sample(
                    [ratio(pair[0], to=pair[1])],
                    {
                        "with a key /s": with_key.rate,
                        "without /s": without.rate,
                        "with a key ms": with_key.p50_ms,
                        "without ms": without.p50_ms,
                    },
                )
            yield samples
