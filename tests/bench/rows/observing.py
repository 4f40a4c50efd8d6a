"""What it costs to be watched: the direct road as it is against one that counts nothing, and with its spans sent."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

from support.deployment import SUM, Deployment

from bench import stage
from bench.figures import Round, Row, Sample, Target, ratio
from bench.load import Plan
from bench.programs import limit, load
from bench.rows.direct import costed
from bench.sizes import Sizes

ROWS = (
    Row("observed", "direct road: requests/s against the same without metrics", Target(at_least=0.95)),
    Row("observed-cpu", "the same: CPU of gateway + service per request", Target(at_most=1.05)),
    Row(
        "sampled",
        "the same: with the spans of one call in a hundred sent, against one without metrics and spans",
        Target(at_least=0.95),
        limit="half of what it costs is the hundredth call's spans (see the next row), the rest is to draw, and to have"
        " the service's side keep silent",
    ),
    Row(
        "traced",
        "the same: with the spans of every call sent, against one without metrics and spans",
        Target(at_least=0.95),
        limit="a call's span costs the gateway 110 µs: OpenTelemetry's SDK makes it in Python, and a thread beside the"
        " loop spells it for the collector. No span is made unless a collector is named",
    ),
)
_PROGRAM = (sys.executable, "-m", "bench.limits.observed")


async def observe(sizes: Sizes) -> AsyncIterator[Round]:
    async with (
        limit("canned") as (_, collector),
        stage.poste(SUM) as one,
        stage.poste(SUM, program=(*_PROGRAM, "unobserved")) as unobserved,
        stage.poste(SUM, program=(*_PROGRAM, f"0.01@http://127.0.0.1:{collector}")) as sampled,
        stage.poste(SUM, program=(*_PROGRAM, f"1@http://127.0.0.1:{collector}")) as traced,
    ):
        for _ in range(sizes.rounds):
            a, a_cpu = await costed(Plan([one.gateway.port], seconds=sizes.seconds), _pids(one))
            b, b_cpu = await costed(Plan([unobserved.gateway.port], seconds=sizes.seconds), _pids(unobserved))
            c = await load(Plan([sampled.gateway.port], seconds=sizes.seconds))
            d = await load(Plan([traced.gateway.port], seconds=sizes.seconds))
            yield {
                "observed": Sample([ratio(a.rate, to=b.rate)], {"as it is /s": a.rate, "unobserved /s": b.rate}),
                "observed-cpu": Sample(
                    [ratio(sum(a_cpu.values()), to=sum(b_cpu.values()))],
                    a_cpu | {f"unobserved {name}": value for name, value in b_cpu.items()},
                ),
                "sampled": Sample([ratio(c.rate, to=b.rate)], {"sampled /s": c.rate}),
                "traced": Sample([ratio(d.rate, to=b.rate)], {"traced /s": d.rate}),
            }


def _pids(one: Deployment) -> dict[str, int]:
    return {"gateway µs": stage.pid(one.gateway), "service µs": stage.pid(one.parts[-1])}
