"""Counters and histograms for what happens on every call, exposed as prometheus_client's are.

Its own take a lock and a few checks for each number, a fifth of what a call costs a service altogether. These are for
one thread, the loop's, which also reads them. What happens is noted, and counted once there is much of it: in the midst
of a call's other code the counting itself takes several times as long as in a loop of its own.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

#: The values of the labels, in their order.
Labels = tuple[str, ...]
#: So much is noted before it is counted.
_NOTED: Final = 256


class Folding(NamedTuple):
    """How a histogram is kept from having more rows than Prometheus, or this process, should hold.

    Attributes:
        most: Once it has so many rows, new labels are folded.
        fold: Makes, of labels, those that many have in common; labels that are folded are left as they are.
    """

    most: int
    fold: Callable[[Labels], Labels]


class _Noted(dict[Labels, list[float]]):
    """What was noted and is not counted yet, by row. Labels that have no row of their own find that of their folded."""

    def __init__(self, folding: Folding | None) -> None:
        super().__init__()
        self._folding = folding

    def row_of(self, labels: Labels) -> Labels:
        """Return the labels of the row that these are counted in."""
        if self._folding is None or labels in self or len(self) < self._folding.most:
            return labels
        return self._folding.fold(labels)

    def __missing__(self, labels: Labels) -> list[float]:
        """Give new labels their row."""
        row = self.row_of(labels)
        # Folded ones are not kept under their own labels: those would be as many as the rows that are spared.
        return self.setdefault(row, [])


class _FastMetric(Collector):
    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        registry.register(self)


class FastCounter(_FastMetric):
    """A counter."""

    def __init__(self, name: str, text: str, labels: Sequence[str], *, registry: CollectorRegistry = REGISTRY) -> None:
        """Begin at nothing; `name` is without `_total`."""
        self._values: Counter[Labels] = Counter()
        self._noted: list[Labels] = []
        super().__init__(name, text, labels, registry)

    def add(self, labels: Labels) -> None:
        """Count one more."""
        self._noted.append(labels)
        if len(self._noted) >= _NOTED:
            self._count()

    def _count(self) -> None:
        self._values.update(self._noted)
        self._noted.clear()

    def collect(self) -> Iterable[Metric]:
        """Return the metric as it is."""
        self._count()
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return [family]

    def values(self) -> Mapping[Labels, int]:
        """Return what was counted, by labels."""
        self._count()
        return self._values


class FastGauge(_FastMetric):
    """A gauge of what goes up and down."""

    def __init__(self, name: str, text: str, labels: Sequence[str], *, registry: CollectorRegistry = REGISTRY) -> None:
        """Begin at nothing."""
        self._values: defaultdict[Labels, int] = defaultdict(int)
        super().__init__(name, text, labels, registry)

    def add(self, labels: Labels, change: int) -> None:
        """Go up, or down."""
        self._values[labels] += change

    def collect(self) -> Iterable[Metric]:
        """Return the metric as it is."""
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return [family]


class FastHistogram(_FastMetric):
    """A histogram."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        *,
        buckets: Sequence[float],
        folding: Folding | None = None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """Begin at nothing; `buckets` are their upper bounds, ascending, without the infinite one."""
        #: The buckets' upper bounds, without the infinite one.
        self.bounds = bounds = tuple(map(float, buckets))
        self._names = [*map(str, bounds), "+Inf"]
        self._bucket = functools.partial(bisect_left, bounds)
        #: How many in each bucket, and the sum of all.
        self._rows: dict[Labels, tuple[list[int], list[float]]] = {}
        self._noted = _Noted(folding)
        super().__init__(name, text, labels, registry)

    def observe(self, labels: Labels, value: float) -> None:
        """Count a value."""
        noted = self._noted[labels]
        noted.append(value)
        if len(noted) >= _NOTED:
            self._count(self._noted.row_of(labels), noted)

    def _count(self, labels: Labels, noted: list[float]) -> None:
        counts, total = self.expect(labels)
        for bucket, count in Counter(map(self._bucket, noted)).items():
            counts[bucket] += count
        total[0] += sum(noted)
        noted.clear()

    def expect(self, labels: Labels) -> tuple[list[int], list[float]]:
        """Have it there before the first value, with nothing in it; returns its buckets and its sum."""
        return self._rows.setdefault(labels, ([0] * len(self._names), [0.0]))

    def collect(self) -> Iterable[Metric]:
        """Return the metric as it is."""
        self._count_all()
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, (counts, (total,)) in self._rows.items():
            family.add_metric(labels, list(zip(self._names, accumulate(counts), strict=True)), total)
        return [family]

    def rows(self) -> Iterator[tuple[Labels, Sequence[int]]]:
        """Return how many values are in each bucket, the infinite one last, by labels."""
        self._count_all()
        for labels, (counts, _) in self._rows.items():
            yield labels, counts

    def _count_all(self) -> None:
        for labels, noted in self._noted.items():
            self._count(labels, noted)
