"""What it costs to be watched: the direct road as it is against one that counts nothing, and with its spans sent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from support.deployment import SUM, Deployment
from support.waiting import until

from bench import procfs, stage
from bench.figures import Round, Row, Sample, Target, ratio
from bench.load import Plan
from bench.programs import limit, load
from bench.rows.direct import costed
from bench.sizes import Sizes

ROWS = (
    Row(
        "observed",
        "direct road: requests/s against the same without metrics",
        Target(at_least=0.95),
        limit="what metrics cost is less than what two rounds differ by on a busy machine: see the CPU",
    ),
    Row(
        "observed-cpu",
        "the same: CPU of gateway + service per request",
        Target(at_most=1.05),
        limit="six numbers are noted for each call, and counted later, 256 at a time",
    ),
    Row(
        "sampled",
        "the same: with the spans of one call in a hundred sent, against one without metrics and spans",
        Target(at_least=0.95),
        limit="half of what it costs is the metrics (observed), the rest the hundredth call's spans (see the next row);"
        " to draw, and to tell a service that its call lost, costs next to nothing",
    ),
    Row(
        "traced",
        "the same: with the spans of every call sent, against one without metrics and spans",
        Target(at_least=0.95),
        limit="a call's span costs the gateway 110 µs: OpenTelemetry's SDK makes it in Python, and a thread beside the"
        " loop spells it for the collector. No span is made unless a collector is named",
    ),
)
#: So long a process is observed, in seconds, to see whether it does anything.
_LOOK_SECONDS = 0.4
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
            await _at_rest(traced)
            yield {
                "observed": Sample([ratio(a.rate, to=b.rate)], {"as it is /s": a.rate, "unobserved /s": b.rate}),
                "observed-cpu": Sample(
                    [ratio(sum(a_cpu.values()), to=sum(b_cpu.values()))],
                    a_cpu | {f"unobserved {name}": value for name, value in b_cpu.items()},
                ),
                "sampled": Sample([ratio(c.rate, to=b.rate)], {"sampled /s": c.rate}),
                "traced": Sample([ratio(d.rate, to=b.rate)], {"traced /s": d.rate}),
            }


async def _at_rest(one: Deployment) -> None:
    """Wait until the spans of a load are sent: the next one would pay for it."""

    def spent() -> float:
        return sum(map(procfs.cpu_seconds, _pids(one).values()))

    async def rests() -> bool:
        before = spent()
        await asyncio.sleep(_LOOK_SECONDS)
        return spent() - before < _LOOK_SECONDS / 20

    await until(rests, seconds=60, what="the end of sending spans")


def _pids(one: Deployment) -> dict[str, int]:
    return {"gateway µs": stage.pid(one.gateway), "service µs": stage.pid(one.parts[-1])}
