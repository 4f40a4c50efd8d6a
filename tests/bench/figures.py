"""What a row of the table is, and how its rounds become one figure. Knows no clock and no process."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

#: How much worse than the published figure is too much.
_FALL: Final = 1 / 3


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure must reach; a bound that is None does not hold."""

    at_least: float | None = None
    at_most: float | None = None

    def met(self, value: float) -> bool:
        low = self.at_least is None or value >= self.at_least
        return low and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        bounds = [("≥", self.at_least), ("≤", self.at_most)]
        return ", ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        name: What `--only` calls it.
        text: What is measured, against what.
        target: What it must reach; None if it is only stated.
        unit: Of the figure; empty for a ratio.
        share: Which quantile of all values is the figure: 0.5, the median, unless a row is about the slowest.
        limit: What stands in the way of a target that is not met, and what was tried; told with the verdict.
    """

    name: str
    text: str
    target: Target | None = None
    unit: str = ""
    share: float = 0.5
    limit: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round says of one row.

    Attributes:
        values: One figure; several where the rounds' figures are pooled.
        absolutes: What it was made from, by names with units: true of this machine only.
    """

    values: Sequence[float]
    absolutes: Mapping[str, float] = field(default_factory=dict)


#: What one round of a scene yields: a sample for each of its rows, by their names.
Round = Mapping[str, Sample]


@dataclass(frozen=True, slots=True)
class Measured:
    """A row with its figure."""

    row: Row
    value: float
    low: float
    high: float
    rounds: int
    absolutes: Mapping[str, float]

    @property
    def missed(self) -> bool:
        return self.row.target is not None and not self.row.target.met(self.value)

    @property
    def verdict(self) -> str:
        if self.row.target is None:
            return "stated"
        return "NOT MET" if self.missed else "met"


def fallen(measured: Measured, published: float) -> bool:
    """Return whether a figure misses its target, and is worse than the published one by a third.

    That is more than a noisy machine does to most ratios; what still reaches its target may vary by more. One without a
    target can't fall: it does not say which way is better.
    """
    target = measured.row.target
    if target is None or target.met(measured.value):
        return False
    if target.at_least is not None:
        return measured.value < published * (1 - _FALL)
    return measured.value > published * (1 + _FALL)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share of the values does not exceed; for 0.5, the median."""
    if share == 0.5:
        return statistics.median(values)
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1))]


def ratio(figure: float, *, to: float) -> float:
    """Divide; a limit of nothing is a broken run.

    Raises:
        ValueError: The limit is not positive.
    """
    if to <= 0:
        raise ValueError(f"{figure} against {to}: the limit did nothing")
    return figure / to


def summarise(row: Row, samples: Sequence[Sample]) -> Measured:
    """Make one figure of a row's rounds, with its spread; absolutes are their medians.

    Raises:
        ValueError: There is no value.
    """
    values = [value for sample in samples for value in sample.values]
    if not values:
        raise ValueError(f"{row.name}: nothing was measured")
    names = list(dict.fromkeys(name for sample in samples for name in sample.absolutes))
    return Measured(
        row,
        quantile(values, row.share),
        min(values),
        max(values),
        len(samples),
        {
            name: statistics.median([sample.absolutes[name] for sample in samples if name in sample.absolutes])
            for name in names
        },
    )
