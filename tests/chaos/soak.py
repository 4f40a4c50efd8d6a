"""`python -m chaos.soak --minutes N`: steady load without faults, and whether any part's memory grows.

A worker is restarted now and then, as deploys do; of its lives the longest counts. The slope of each part's resident
memory is fitted after a warm-up, with its standard error. Exit code: 0 if nothing was lost and no part is shown to
grow, 1 otherwise, 2 if the run could not be made. Below a quarter of an hour the slopes are shown, and not judged.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import random
import signal
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from chaos import quiet, report
from chaos.judge import judge
from chaos.load import Client, Load
from chaos.memory import Life, Memory, slope
from chaos.mix import Mix
from chaos.observations import Observations, Wish
from chaos.stage import Stage, begin, staged

_MINUTES: Final = 20.0
_RATE: Final = 40.0
#: The share of the run that is warm-up, at least so many seconds of it, and at most so many.
_WARM_UP: Final = (0.25, 20.0, 300.0)
#: Who is restarted, and how often, in seconds.
_RESTARTED: Final = "sum-2"
_RESTART_SECONDS: Final = 120.0
#: Results are kept so long, in seconds: what Redis holds is then as much at the end as after the warm-up.
_RESULT_TTL: Final = 60
#: A shorter time after the warm-up, in seconds, shows how allocators settle, and nothing else.
_LEAST_SECONDS: Final = 600.0
#: A part is shown to grow if its slope is above this, in megabytes an hour, by three standard errors.
_GROWTH: Final = 10.0
_ERRORS: Final = 3


class _ShortLived(Mix):
    """Calls whose results are kept for a short time."""

    def next(self) -> Wish:
        return dataclasses.replace(super().next(), result_ttl=_RESULT_TTL)


def main() -> int:
    """Make one run."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="how long there is load")
    parser.add_argument("--rate", type=float, default=_RATE, help="calls a second")
    parser.add_argument("--out", type=Path, default=None, help="where the report goes, as JSON")
    options = parser.parse_args()
    return begin(lambda folder: _run(options, folder), "soak")


async def _run(options: argparse.Namespace, folder: Path) -> int:
    console, seconds, rng = Console(highlight=False), options.minutes * 60, random.Random(1)
    seen = Observations()
    async with staged(folder) as stage:
        seen.troubles = stage.troubles
        async with Client(stage.layout.gateways, stage.now, stage.well, rng) as client:
            load = Load(client, _ShortLived(rng, misbehave=False), stage.now, rng, rate=options.rate)
            seen.calls = load.calls
            began = stage.now()
            async with asyncio.TaskGroup() as group:
                duties = [group.create_task(_restart(stage)), group.create_task(_tell(stage, load, console))]
                await load.run(seconds)
                for duty in duties:
                    duty.cancel()
            ended = stage.now()
            await quiet.settle(load, console.print, again=False)
            seen.deaf = await quiet.deaf(client, stage.processes)
            seen.stuck = await quiet.left_over(stage.layout)
    share, least, most = _WARM_UP
    warm = began + min(max(seconds * share, least), most, seconds / 2)
    slopes = {name: _grown(stage.memory, name, warm, ended) for name in stage.processes}
    seen.bloated = [f"{name} grows: {row}" for name, row in slopes.items() if row["grows"]]
    seen.runs = stage.layout.count_runs()
    verdict = judge(seen)
    summary = {
        "minutes of load": round((ended - began) / 60, 1),
        "minutes of it that count": round((ended - warm) / 60, 1),
        **verdict.figures,
        "restarts": stage.processes[_RESTARTED].deaths,
        "memory in MB: after the warm-up, at the end; slope in MB/h ± its standard error": {
            name: f"{row['first']:.1f} {row['last']:.1f}; {row['slope']:+.1f} ± {row['error']:.1f}"
            for name, row in slopes.items()
        },
        "verdict": verdict.counts,
    }
    out = options.out or folder / "report.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    samples = {name: [dataclasses.asdict(life) for life in stage.memory.of(name)] for name in slopes}
    out.write_text(json.dumps({**summary, "slopes": slopes, "samples": samples}, indent=1))
    report.tell(verdict, seen, folder, console)
    report.show("Poste under steady load", summary, console)
    console.print(f"report: {out}")
    return 1 if verdict.violations else 0


async def _restart(stage: Stage) -> None:
    while True:
        await asyncio.sleep(_RESTART_SECONDS)
        stage.processes[_RESTARTED].signal(signal.SIGTERM)


async def _tell(stage: Stage, load: Load, console: Console) -> None:
    while True:
        await asyncio.sleep(30)
        now = " ".join(f"{name} {megabytes:.0f}" for name, megabytes in stage.memory.now().items())
        console.print(f"{stage.now():5.0f} s: {len(load.calls)} calls; MB: {now}")


def _grown(memory: Memory, name: str, warm: float, ended: float) -> dict[str, Any]:
    """Return how a part's memory went, in its longest life after the warm-up."""

    def settled(life: Life) -> list[tuple[float, float]]:
        # Each life has a warm-up of its own.
        born = life.samples[0][0]
        own = warm if born < warm else born + _WARM_UP[1]
        return [(at, megabytes) for at, megabytes in life.samples if own <= at <= ended]

    samples = max((settled(life) for life in memory.of(name)), key=len)
    steep, error = slope(samples)
    return {
        "first": samples[0][1] if samples else 0.0,
        "last": samples[-1][1] if samples else 0.0,
        "slope": steep,
        "error": error,
        "samples": len(samples),
        "grows": ended - warm >= _LEAST_SECONDS and steep - _ERRORS * error > _GROWTH,
    }


if __name__ == "__main__":
    sys.exit(main())
