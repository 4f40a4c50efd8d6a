"""The direct calls that the page and `poste top` show: from the gateway's metrics, over the last seconds."""

from __future__ import annotations

import secrets

import pytest

from poste.runtime import metrics
from poste_gateway.ui.traffic import WINDOW_SECONDS, Traffic


def call(service: str, seconds: float, *, road: str = "direct", outcome: str = "OK", method: str = "Add") -> None:
    metrics.calls_total.add((service, method, road, outcome))
    metrics.call_seconds.observe((service, method, road), seconds)


def test_what_a_service_answered_lately_is_told():
    """A service with a hundred calls a second would look idle; or slow for ever, for it was so yesterday."""
    service = f"traffic.{secrets.token_hex(4)}.v1.Busy"
    traffic = Traffic()
    for _ in range(500):
        call(service, 40.0, outcome="INTERNAL")
    assert traffic.lately(100.0) is None
    for number in range(200):
        call(service, 0.004, method="Add" if number % 2 else "Sum")
    for outcome in ("UNAVAILABLE", "outcome-unknown", "NOT_FOUND", "invalid-request"):
        call(service, 0.004, outcome=outcome)
    call(service, 40.0, road="queued", outcome="QUEUED")
    lately = traffic.lately(102.0)[service]
    call(service, 70.0)
    later = traffic.lately(102.0 + WINDOW_SECONDS)[service]
    quiet = traffic.lately(102.0 + 2 * WINDOW_SECONDS)[service]

    assert (lately["rate"], lately["errorRate"]) == (102.0, 1.0)
    # Somewhere in the bucket that it is in.
    assert 0.0025 < lately["p99Seconds"] <= 0.005
    assert later == {"rate": 0.1, "errorRate": 0.0, "p99Seconds": 60}
    assert quiet == {"rate": 0.0, "errorRate": 0.0, "p99Seconds": None}


def test_a_service_without_direct_calls_is_not_reckoned():
    """Its calls that were kept would be shown as answered."""
    service = f"traffic.{secrets.token_hex(4)}.v1.Away"
    traffic = Traffic()
    traffic.lately(1.0)
    call(service, 0.01, road="queued", outcome="QUEUED")

    assert service not in traffic.lately(3.0)


@pytest.mark.parametrize(("seconds", "low", "high"), [(0.0005, 0, 0.001), (0.3, 0.25, 0.5), (59, 30, 60)])
def test_the_slowest_is_estimated_within_its_bucket(seconds, low, high):
    """An alert in Prometheus and the page would say two things of the same calls."""
    service = f"traffic.{secrets.token_hex(4)}.v1.Even"
    traffic = Traffic()
    traffic.lately(1.0)
    for _ in range(10):
        call(service, seconds)

    assert traffic.lately(2.0)[service]["p99Seconds"] == pytest.approx(low + 0.99 * (high - low))
