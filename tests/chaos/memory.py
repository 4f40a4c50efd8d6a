"""How much memory each part takes, sampled from /proc, and how fast it grows."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from chaos.process import Clock, Process

_PERIOD_SECONDS: Final = 2.0
_MEGABYTE: Final = 1024 * 1024
_HOUR: Final = 3600.0


@dataclass(slots=True)
class Life:
    """The memory of one process: `(seconds since the run began, megabytes)`, in order."""

    part: str
    pid: int
    samples: list[tuple[float, float]] = field(default_factory=list)


class Memory:
    """Samples the memory of every part."""

    def __init__(self, processes: Mapping[str, Process], now: Clock) -> None:
        self.lives: dict[tuple[str, int], Life] = {}
        self._processes = processes
        self._now = now

    async def watch(self) -> None:
        """Sample until cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(_PERIOD_SECONDS)

    def sample(self) -> None:
        """Take one sample of each part that runs."""
        for name, process in self._processes.items():
            if process.pid is not None and (megabytes := resident(process.pid)):
                life = self.lives.setdefault((name, process.pid), Life(name, process.pid))
                life.samples.append((self._now(), megabytes))

    def of(self, name: str) -> list[Life]:
        """Return the lives of a part, in order."""
        return [life for life in self.lives.values() if life.part == name]

    def now(self) -> dict[str, float]:
        """Return what each part takes now, in megabytes."""
        self.sample()
        return {name: lives[-1].samples[-1][1] for name in self._processes if (lives := self.of(name))}

    def compare(self, earlier: dict[str, float]) -> dict[str, str]:
        """Spell what each part took earlier, takes now, and took at most."""
        return {
            name: f"{earlier.get(name, 0):.0f} {megabytes:.0f} {self._most(name):.0f}"
            for name, megabytes in self.now().items()
        }

    def above(self, megabytes: float) -> list[str]:
        """Return who ever took more than so much; in words."""
        found = {name: self._most(name) for name in self._processes}
        return [f"{name} took {most:.0f} MB" for name, most in found.items() if most > megabytes]

    def _most(self, name: str) -> float:
        return max((megabytes for life in self.of(name) for _, megabytes in life.samples), default=0.0)


def resident(pid: int) -> float:
    """Return the resident memory of a process in megabytes; 0 if there is no such process."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0
    return pages * 4096 / _MEGABYTE


def slope(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """Fit a line by least squares; returns its slope in megabytes an hour, and the slope's standard error.

    Samples that follow each other are alike, so the error is widened by what their residuals' correlation at one step
    says (an AR(1) process): without that a slow wave would look like proof.
    """
    count = len(samples)
    if count < 8:
        return math.nan, math.nan
    mean_x = sum(x for x, _ in samples) / count
    mean_y = sum(y for _, y in samples) / count
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    steep = sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread
    residuals = [y - mean_y - steep * (x - mean_x) for x, y in samples]
    squares = sum(one * one for one in residuals)
    error = math.sqrt(squares / (count - 2) / spread)
    if squares > 0:
        correlation = sum(one * next_one for one, next_one in itertools.pairwise(residuals)) / squares
        correlation = min(max(correlation, 0.0), 0.99)
        error *= math.sqrt((1 + correlation) / (1 - correlation))
    return steep * _HOUR, error * _HOUR
