"""Mutual TLS between the parts against none: on both roads, the same Poste twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

from support.deployment import SUM, Deployment

from bench import filling, stage
from bench.figures import Round, Row, Sample, Target, ratio
from bench.load import Plan, Report
from bench.rows.direct import costed
from bench.sizes import Sizes

ROWS = (
    Row("mtls", "direct road, 32 connections: requests/s with mutual TLS against without", Target(at_least=0.85)),
    Row("mtls-accept", "accepted/s, service away: with mutual TLS against without", Target(at_least=0.85)),
)


async def securing(sizes: Sizes) -> AsyncIterator[Round]:
    async with stage.poste(SUM, mtls=True) as secured, stage.poste(SUM) as plain:
        direct = [await _loaded(one, 200, sizes) for _ in range(sizes.rounds) for one in (secured, plain)]
        for one in (secured, plain):
            one.parts[-1].kill()
        for number in range(sizes.rounds):
            kept = [await _loaded(one, 202, sizes) for one in (secured, plain)]
            yield {
                "mtls": _sample(*direct[2 * number : 2 * number + 2]),
                "mtls-accept": _sample(*kept),
            }
            for one in (secured, plain):
                async with stage.client(one.redis) as client:
                    await filling.empty(client, "poste:{calculator*")


async def _loaded(one: Deployment, status: int, sizes: Sizes) -> tuple[Report, dict[str, float]]:
    plan = Plan([one.gateway.port], statuses=[status], seconds=sizes.seconds)
    return await costed(plan, {"gateway": stage.pid(one.gateway)})


def _sample(secured: tuple[Report, dict[str, float]], plain: tuple[Report, dict[str, float]]) -> Sample:
    (with_it, its_cpu), (without, cpu) = secured, plain
    rates = {"with /s": with_it.rate, "without /s": without.rate}
    costs = {"gateway with µs": its_cpu["gateway"], "gateway without µs": cpu["gateway"]}
    return Sample([ratio(with_it.rate, to=without.rate)], rates | costs)
