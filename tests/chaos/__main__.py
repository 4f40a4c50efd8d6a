"""`python -m chaos [--minutes N] [--seed S] [--rate R] [--out FILE]`: load, faults, quiet, verdict.

Exit code: 0 if no promise was broken, 1 if one was, 2 if the run could not be made.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from chaos import quiet, report
from chaos.faults import Faults
from chaos.judge import judge
from chaos.load import Client, Load
from chaos.mix import Mix
from chaos.observations import Observations
from chaos.plan import make
from chaos.stage import Stage, begin, staged

#: The short form: with start, quiet and verdict it takes about three minutes.
_MINUTES: Final = 2.0
_RATE: Final = 42.0
_POISON_SECONDS: Final = 45.0
_TELL_SECONDS: Final = 5.0
#: So many calls must be accepted for each second of load, or there was nothing to lose; and in so long a run so many.
_ACCEPTED_A_SECOND: Final = 10
_LONG_SECONDS, _LONG_ACCEPTED, _LONG_FAULTS = 900, 20_000, 200
#: Twice what any part takes, in megabytes, whatever is done to it.
_MAX_MEGABYTES: Final = 200.0


def main() -> int:
    """Make one run."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="how long there are load and faults")
    parser.add_argument("--seed", type=int, default=None, help="makes the same schedule and the same calls again")
    parser.add_argument("--rate", type=float, default=_RATE, help="calls a second")
    parser.add_argument("--out", type=Path, default=None, help="where the report goes, as JSON")
    parser.add_argument("--no-faults", action="store_true", help="load only: nothing may be broken then")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    return begin(lambda folder: _run(options, folder), f"seed-{options.seed}")


async def _run(options: argparse.Namespace, folder: Path) -> int:
    console, seconds = Console(highlight=False), options.minutes * 60
    plan = [] if options.no_faults else make(options.seed, seconds)
    console.print(f"seed {options.seed}: {len(plan)} faults in {seconds:.0f} s; {folder}")
    seen, rng = Observations(), random.Random(options.seed)
    async with staged(folder) as stage:
        seen.troubles = stage.troubles
        async with Client(stage.layout.gateways, stage.now, stage.well, _split(rng)) as client:
            poison = 0.0 if options.no_faults else _POISON_SECONDS
            load = Load(client, Mix(_split(rng)), stage.now, _split(rng), rate=options.rate, poison_seconds=poison)
            seen.calls = load.calls
            breaking = Faults(
                layout=stage.layout, processes=stage.processes, load=load, troubles=stage.troubles, now=stage.now,
                rng=_split(rng),
            )  # fmt: skip
            began = stage.now()
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(_tell(stage, load, breaking, console))
                async with asyncio.TaskGroup() as doing:
                    doing.create_task(load.run(seconds))
                    doing.create_task(breaking.run(plan))
                telling.cancel()
            loaded = stage.now() - began
            console.print(f"quiet after {loaded:.0f} s: {len(seen.calls)} calls, {breaking.done.total()} faults")
            late = await quiet.all_up(stage.processes)
            at_quiet = stage.memory.now()
            await quiet.settle(load, console.print)
            seen.deaf = late or await quiet.deaf(client, stage.processes)
            seen.stuck = await quiet.left_over(stage.layout)
        memory = stage.memory.compare(at_quiet)
        seen.bloated = stage.memory.above(_MAX_MEGABYTES)
    seen.runs = stage.layout.count_runs()
    if plan:
        accepted = sum(call.accepted for call in seen.calls)
        long = seconds >= _LONG_SECONDS
        least = _LONG_ACCEPTED if long else _ACCEPTED_A_SECOND * seconds
        seen.too_little = [*breaking.missing(plan), *_few("tasks were accepted", accepted, least)]
        if long:
            seen.too_little += _few("faults were done", breaking.done.total(), _LONG_FAULTS)
    verdict = judge(seen)
    deaths = {name: process.deaths for name, process in stage.processes.items() if process.deaths}
    summary = {
        "seed": options.seed,
        "minutes of load": round(loaded / 60, 2),
        "minutes in all": round(stage.now() / 60, 2),
        "faults done": breaking.done.total(),
        "faults skipped (their target was down)": breaking.skipped,
        "tasks looked at right after Redis was killed": breaking.looked_at,
        "calls held back": load.held_back,
        **verdict.figures,
        "deaths": {name: ", ".join(f"{count} {how}" for how, count in one.items()) for name, one in deaths.items()},
        "faults": dict(breaking.done.most_common()),
        "memory in MB: when it got quiet, at the end, at most": memory,
        "CPU of links and clients, s": round(time.process_time(), 1),
        "verdict": verdict.counts,
    }
    out = options.out or folder / "report.json"
    report.write(out, summary=summary, plan=plan, verdict=verdict, seen=seen, folder=folder)
    report.tell(verdict, seen, folder, console)
    report.show(f"Poste under faults, seed {options.seed}", summary, console)
    console.print(f"report: {out}")
    return 1 if verdict.violations else 0


def _few(what: str, count: int, least: float) -> list[str]:
    return [] if count >= least else [f"only {count} {what}, of {least:.0f} at least"]


def _split(rng: random.Random) -> random.Random:
    """Return a generator of its own for one room, so that none disturbs what another draws."""
    return random.Random(rng.random())


async def _tell(stage: Stage, load: Load, breaking: Faults, console: Console) -> None:
    """Say now and then how it goes."""
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        accepted = sum(call.accepted for call in load.calls)
        ended = sum(call.first_end is not None for call in load.calls)
        down = [name for name in stage.processes if not stage.well(name)]
        console.print(
            f"{stage.now():5.0f} s: {len(load.calls)} calls, {accepted} accepted, {ended} seen to end, "
            f"{breaking.done.total()} faults; not well: {', '.join(down) or 'none'}"
        )


if __name__ == "__main__":
    sys.exit(main())
