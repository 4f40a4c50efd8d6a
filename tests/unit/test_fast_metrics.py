"""Our counters beside prometheus_client's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# The module of all metrics has the library leave out when each was made.
from poste.runtime import metrics
from poste.runtime.fast_metrics import FastCounter, FastGauge, FastHistogram, Folding

_BUCKETS = (0.001, 0.25, 1, 60)
_WHO = st.sampled_from([("one", "a"), ("one", "b"), ('quoted "two"', "")])
_SECONDS = st.one_of(st.sampled_from([0.0, *map(float, _BUCKETS), 61.0]), st.integers(0, 200).map(float))


def exposed(registry: CollectorRegistry) -> list[bytes]:
    return sorted(generate_latest(registry).splitlines())


@given(st.lists(st.tuples(_WHO, _SECONDS), max_size=20))
def test_they_are_exposed_as_the_library_exposes_its_own(events):
    """Else Prometheus reads something else than what happened, or refuses the whole page."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts = FastCounter("calls", "Calls.", ["who", "what"], registry=ours)
    levels = FastGauge("running", "Running.", ["who", "what"], registry=ours)
    times = FastHistogram("call_seconds", "Times.", ["who", "what"], buckets=_BUCKETS, registry=ours)
    counter = Counter("calls", "Calls.", ["who", "what"], registry=theirs)
    gauge = Gauge("running", "Running.", ["who", "what"], registry=theirs)
    histogram = Histogram("call_seconds", "Times.", ["who", "what"], buckets=_BUCKETS, registry=theirs)

    for labels, seconds in events:
        counts.add(labels)
        levels.add(labels, 2)
        levels.add(labels, -1)
        times.observe(labels, seconds)
        counter.labels(*labels).inc()
        gauge.labels(*labels).inc()
        histogram.labels(*labels).observe(seconds)

    assert exposed(ours) == exposed(theirs)


def test_a_large_catalogue_has_no_more_rows_than_may_be():
    """Ten thousand methods would be 180,000 series in each gateway; or calls of some would be in no figure."""
    registry = CollectorRegistry()
    times = FastHistogram(
        "call_seconds",
        "Times.",
        ["who", "what"],
        buckets=_BUCKETS,
        folding=Folding(2, lambda labels: (labels[0], metrics.OTHER_METHODS)),
        registry=registry,
    )
    for _ in range(300):
        for labels in (("one", "a"), ("one", "b"), ("one", "c"), ("one", "d"), ("two", "a")):
            times.observe(labels, 0.1)

    counted = {labels: sum(buckets) for labels, buckets in times.rows()}
    assert counted == {("one", "a"): 300, ("one", "b"): 300, ("one", "(other)"): 600, ("two", "(other)"): 300}
    assert registry.get_sample_value("call_seconds_count", {"who": "one", "what": "(other)"}) == 600
