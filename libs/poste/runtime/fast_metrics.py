"""Counters and histograms for what happens on every call, exposed as prometheus_client's are.

Its own take a lock and a few checks for each number, a fifth of what a call costs a service altogether. These are for
one thread, the loop's, which also reads them. What happens is noted, and counted once there is much of it: in the midst
of a call's other code the counting itself takes several times as long as in a loop of its own.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

#: The values of the labels, in their order.
Labels = tuple[str, ...]
#: So much is noted before it is counted.
_NOTED: Final = 256


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
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """Begin at nothing; `buckets` are their upper bounds, ascending, without the infinite one."""
        bounds = tuple(buckets)
        self._names = [*(str(float(bound)) for bound in bounds), "+Inf"]
        self._bucket = functools.partial(bisect_left, bounds)
        #: How many in each bucket, and the sum of all.
        self._rows: dict[Labels, tuple[list[int], list[float]]] = {}
        self._noted: defaultdict[Labels, list[float]] = defaultdict(list)
        super().__init__(name, text, labels, registry)

    def observe(self, labels: Labels, value: float) -> None:
        """Count a value."""
        noted = self._noted[labels]
        noted.append(value)
        if len(noted) >= _NOTED:
            self._count(labels, noted)

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
        for noted_labels, noted in self._noted.items():
            self._count(noted_labels, noted)
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, (counts, (total,)) in self._rows.items():
            family.add_metric(labels, list(zip(self._names, accumulate(counts), strict=True)), total)
        return [family]
