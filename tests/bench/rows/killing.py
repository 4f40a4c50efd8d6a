"""What a caller feels when the service was just killed.

Per kill: of each of 8 connections the call that was out when the signal was sent and the first one after it, if it was
answered by 202. What the kill added is the call's time less the median of the direct calls before it; so the enqueueing
itself, with its fsync, is in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from support.deployment import SUM

from bench import stage
from bench.figures import Round, Row, Sample, Target, quantile
from bench.load import Plan, Report
from bench.programs import WrongRunError, loading
from bench.sizes import Sizes

ROWS = (
    Row(
        "killed",
        "service killed -9 under 8 connections: what it adds to a call until its 202, p99",
        Target(at_most=50),
        "ms",
        0.99,
    ),
)
_CONNECTIONS = 8
_BEFORE_SECONDS = 0.8
_AFTER_SECONDS = 0.8


async def killing(sizes: Sizes) -> AsyncIterator[Round]:
    async with stage.poste(SUM) as one:
        worker = one.parts[-1]
        plan = Plan(
            [one.gateway.port],
            connections=_CONNECTIONS,
            statuses=[200, 202],
            warm_seconds=0,
            seconds=_BEFORE_SECONDS + _AFTER_SECONDS,
            keep_times=True,
        )
        for _ in range(sizes.rounds):
            added: list[float] = []
            settled: list[float] = []
            for _ in range(sizes.kills):
                async with loading(plan) as report:
                    await asyncio.sleep(_BEFORE_SECONDS)
                    kill_time = time.monotonic()
                    worker.kill()
                    more, after = added_by_kill(await report, kill_time)
                added += more
                settled += after
                worker.start()
                await one.up(SUM)
            yield {
                "killed": Sample(
                    added,
                    {
                        "calls": len(added),
                        "median ms": quantile(added, 0.5),
                        "202 once it is away, p50 ms": quantile(settled, 0.5),
                    },
                )
            }


def added_by_kill(report: Report, kill_time: float) -> tuple[list[float], list[float]]:
    """Return what a kill added to the calls that met it, and what later ones took; in milliseconds.

    Raises:
        WrongRunError: The kill did not fall into the load.
    """
    direct = [end - begin for _, begin, end, status in report.times if end < kill_time and status == 200]
    hit: list[float] = []
    later: list[float] = []
    for number in {number for number, *_ in report.times}:
        calls = [call for call in report.times if call[0] == number and call[2] >= kill_time]
        first = [call for call in calls if call[1] >= kill_time][:1]
        hit += [
            end - begin for _, begin, end, status in [*(c for c in calls if c[1] < kill_time), *first] if status == 202
        ]
        later += [
            end - begin for _, begin, end, status in calls if begin > kill_time + _AFTER_SECONDS / 4 and status == 202
        ]
    if not direct or not hit or not later:
        raise WrongRunError("the kill did not fall into the load")
    usual = quantile(direct, 0.5)
    return [1000 * (seconds - usual) for seconds in hit], [1000 * seconds for seconds in later]
