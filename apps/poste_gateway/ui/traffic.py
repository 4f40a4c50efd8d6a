"""What this gateway answered by the direct road lately: calls and errors a second, and how long the slowest took.

It is reckoned from the gateway's own metrics, when a snapshot is taken, so no call costs more for it. Other gateways'
calls are not in it: each tells its own, and says its name. Prometheus has them all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

from poste.runtime import metrics
from poste_gateway.http.problem_types import INTERNAL, PROBLEM_TYPES

#: The time over which is reckoned, in seconds: at most, and at least.
WINDOW_SECONDS: Final = 10.0
_LEAST_SECONDS: Final = 0.9
_ROAD: Final = "direct"
#: Outcomes that are answered with 5xx: a client's own mistake is no error of the service.
_ERRORS: Final = frozenset(kind.outcome for kind in PROBLEM_TYPES.values() if kind.status >= INTERNAL.status)
_SLOWEST: Final = 0.99


class _Totals(NamedTuple):
    """A service's direct calls since the gateway began; `buckets`: how many took how long, as the metric has it."""

    calls: int
    errors: int
    buckets: Sequence[int]


_NONE: Final = _Totals(0, 0, (0,) * (len(metrics.call_seconds.bounds) + 1))


class Traffic:
    """The direct calls of the last seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, dict[str, _Totals]]] = deque()

    def lately(self, now: float) -> Mapping[str, Mapping[str, Any]] | None:
        """Return by service `rate` and `errorRate` a second and `p99Seconds`; None while there is nothing to compare.

        A service that had no direct call is not in it. `p99Seconds` is estimated within its bucket; None without calls.

        Args:
            now: The loop's time, in seconds.
        """
        totals = _totals()
        while self._points and now - self._points[0][0] > WINDOW_SECONDS:
            self._points.popleft()
        begin = self._points[0] if self._points else None
        self._points.append((now, totals))
        if begin is None or now - begin[0] < _LEAST_SECONDS:
            return None
        seconds, before = now - begin[0], begin[1]
        return {name: _figures(before.get(name, _NONE), total, seconds) for name, total in totals.items()}


def _totals() -> dict[str, _Totals]:
    calls: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for (service, _, road, outcome), count in metrics.calls_total.values().items():
        if road == _ROAD:
            calls[service] += count
            errors[service] += count if outcome in _ERRORS else 0
    buckets: dict[str, Sequence[int]] = {}
    for (service, _, road), counts in metrics.call_seconds.rows():
        if road == _ROAD:
            buckets[service] = [a + b for a, b in zip(counts, buckets.get(service, _NONE.buckets), strict=True)]
    return {name: _Totals(count, errors[name], buckets.get(name, _NONE.buckets)) for name, count in calls.items()}


def _figures(before: _Totals, now: _Totals, seconds: float) -> dict[str, Any]:
    buckets = [late - early for early, late in zip(before.buckets, now.buckets, strict=True)]
    return {
        "rate": round((now.calls - before.calls) / seconds, 2),
        "errorRate": round((now.errors - before.errors) / seconds, 2),
        "p99Seconds": _quantile(buckets, metrics.call_seconds.bounds),
    }


def _quantile(buckets: Sequence[int], bounds: Sequence[float]) -> float | None:
    """Estimate how long all but one in a hundred took at most, as Prometheus does: evenly spread within a bucket."""
    rank = _SLOWEST * sum(buckets)
    if not rank:
        return None
    reached = list(accumulate(buckets))
    number = bisect_left(reached, rank)
    if number == len(bounds):
        # Beyond the last bound: how far is not known.
        return bounds[-1]
    low = bounds[number - 1] if number else 0.0
    within = (rank - (reached[number] - buckets[number])) / buckets[number]
    return round(low + (bounds[number] - low) * within, 6)
