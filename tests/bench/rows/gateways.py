"""Two gateway processes against one, at 128 connections: what a second one brings depends on the cores."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from support.deployment import SUM, Deployment, Part
from support.reaching import reached
from support.waiting import until

from bench import stage
from bench.figures import Round, Row, Sample, Target, ratio
from bench.load import Plan
from bench.programs import load
from bench.sizes import Sizes

#: A gateway, a service and the load are three busy processes: a second gateway needs a fourth core.
_CORES = 4
_TARGET = Target(at_least=1.2 if (os.cpu_count() or 1) >= _CORES else 0.95)
ROWS = (Row("gateways", "two gateways against one, 128 connections: requests/s", _TARGET),)


async def gateways(sizes: Sizes) -> AsyncIterator[Round]:
    async with stage.poste(SUM) as one:
        second = await _another(one)
        for _ in range(sizes.rounds):
            a = await load(Plan([one.gateway.port, second.port], connections=128, seconds=sizes.seconds))
            b = await load(Plan([one.gateway.port], connections=128, seconds=sizes.seconds))
            absolutes = {"two /s": a.rate, "one /s": b.rate, "two p99 ms": a.p99_ms, "one p99 ms": b.p99_ms}
            yield {"gateways": Sample([ratio(a.rate, to=b.rate)], absolutes)}


async def _another(one: Deployment) -> Part:
    """Start a second gateway, and wait until it knows the service's replica."""
    second = one.make_gateway("gateway2")
    second.start()

    async def look() -> bool:
        async with one.session.get(f"http://127.0.0.1:{second.port}/v1/services") as reply:
            services = (await reply.json()).get("services", [])
            return any(service["name"] == SUM and service["replicas"]["ready"] for service in services)

    await until(lambda: reached(look), what="the second gateway")
    return second
