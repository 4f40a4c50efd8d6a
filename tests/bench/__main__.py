"""`python -m bench`: measures the table of speed. Every row is a ratio within one run, its two sides taken in turn.

Prints one table and writes it as JSON. The exit code is 1 if a run itself was wrong (an answer that was not as it must
be), or, with `--against`, if a figure is worse than there by a third, once the row was measured for more rounds. Else
it says nothing of the figures, for machines are noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import table
from bench.figures import Measured, Round, Row, Sample, fallen, summarise
from bench.programs import WrongRunError
from bench.rows import (
    accepting,
    backlog,
    catalogue,
    couriers,
    direct,
    draining,
    gateways,
    keyed,
    killing,
    memory,
    observing,
    securing,
    waiting,
)
from bench.sizes import FULL, QUICK, Sizes

Scene = Callable[[Sizes], AsyncIterator[Round]]
SCENES: tuple[tuple[Scene, Sequence[Row]], ...] = (
    (direct.direct, direct.ROWS),
    (direct.direct_p50, direct.UNARY_ROWS),
    (direct.direct_foreign, direct.FOREIGN_ROWS),
    (observing.observe, observing.ROWS),
    (securing.securing, securing.ROWS),
    (keyed.keyed, keyed.ROWS),
    (accepting.accept, accepting.ROWS),
    (accepting.accept_everysec, accepting.EVERYSEC_ROWS),
    (draining.drain, draining.ROWS),
    (draining.drain_once, draining.ONCE_ROWS),
    (draining.drain_courier, draining.COURIER_ROWS),
    (waiting.waiting, waiting.ROWS),
    (killing.killing, killing.ROWS),
    (backlog.backlog, backlog.ROWS),
    (backlog.embedded, backlog.EMBEDDED_ROWS),
    (gateways.gateways, gateways.ROWS),
    (memory.memory, memory.ROWS),
    (catalogue.catalogue, catalogue.ROWS),
    (couriers.couriers, couriers.ROWS),
)
#: How many rounds more a row is measured for that seems to have fallen.
_MORE_ROUNDS = 4
_OUT = Path(".bench/bench.json")


async def main(options: argparse.Namespace) -> int:
    sizes = QUICK if options.quick else FULL
    if options.rounds:
        sizes = dataclasses.replace(sizes, rounds=options.rounds)
    chosen = [
        (scene, rows) for scene, rows in SCENES if not options.only or {row.name for row in rows} & {*options.only}
    ]
    published = {} if options.against is None else json.loads(options.against.read_text())["rows"]
    begin, about = time.monotonic(), table.machine()
    measured: list[Measured] = []
    wrong = False
    for scene, rows in chosen:
        samples: defaultdict[str, list[Sample]] = defaultdict(list)
        try:
            await _measure(scene, sizes, samples, begin)
            found = [summarise(row, samples[row.name]) for row in rows]
            if any(_fell(one, published) for one in found):
                # One round says little on a machine that others use too: the median of more of them decides.
                await _measure(scene, dataclasses.replace(sizes, rounds=_MORE_ROUNDS), samples, begin)
                found = [summarise(row, samples[row.name]) for row in rows]
        except WrongRunError as error:
            sys.stderr.write(f"wrong run of {', '.join(row.name for row in rows)}: {error}\n")
            wrong = True
            continue
        measured += found
    about |= {"load average at the end": table.load_average()}
    about |= {"seconds": round(time.monotonic() - begin), "sizes": dataclasses.asdict(sizes)}
    sys.stdout.write(f"{table.text(measured)}\n{', '.join(f'{name} {value}' for name, value in about.items())}\n")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": about, "rows": table.to_json(measured)}, indent=2) + "\n")
    for one in measured:
        if _fell(one, published):
            figures = " and ".join(f"{figure:.3g}" for figure in _figures(one, published))
            sys.stderr.write(f"{one.row.name} fell: {one.value:.3g}, published {figures}\n")
            wrong = True
    return 1 if wrong else 0


async def _measure(scene: Scene, sizes: Sizes, samples: defaultdict[str, list[Sample]], begin: float) -> None:
    """Measure a scene for some rounds; raises WrongRunError."""
    async for figures in scene(sizes):
        for name, sample in figures.items():
            samples[name].append(sample)
        sys.stderr.write(f"{time.monotonic() - begin:5.0f} s  {', '.join(figures)}\n")


def _figures(one: Measured, published: Mapping[str, Any]) -> list[float]:
    """Return what is published of a row: limit and ours do not change alike from one kind of processor to another."""
    before = published.get(one.row.name)
    return [] if before is None else [before["figure"], *before.get("on faster processors", [])]


def _fell(one: Measured, published: Mapping[str, Any]) -> bool:
    """Return whether a figure is worse, by a third, than all that is published of its row."""
    figures = _figures(one, published)
    return bool(figures) and all(fallen(one, figure) for figure in figures)


def arguments() -> argparse.Namespace:
    names = [row.name for _, rows in SCENES for row in rows]
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help=f"how often each row is measured (default: {FULL.rounds})")
    parser.add_argument("--only", nargs="+", choices=names, metavar="ROW", help=f"of: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK.rounds} rounds and small figures, for CI")
    parser.add_argument("--out", type=Path, default=_OUT, metavar="FILE", help=f"where the JSON goes (default: {_OUT})")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="fail if a figure is worse than all there by a third"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(arguments())))
