"""What `poste doctor` calls wrong."""

from __future__ import annotations

import pytest

from poste.client import Queue, Service
from poste_cli import checks

QUEUE = {
    "queue": "a.A",
    "service": "a.A",
    "queued": 0,
    "running": 1,
    "delayed": 0,
    "scheduled": 0,
    "dead": 0,
    "kept": 1,
    "keptBytes": 10,
    "heldBytes": 10,
    "maxHeldBytes": 1000,
    "oldestAgeSeconds": None,
    "paused": False,
    "standsStill": False,
    "consumers": 1,
}
METHOD = {
    "name": "B",
    "path": "/a.A/B",
    "routes": ["POST /a.A/B"],
    "notServed": [],
    "idempotent": True,
    "away": "queue",
}


def of_queue(**fields: object) -> list[str]:
    return [one.said for one in checks.of_queues([Queue.read({**QUEUE, **fields})]) if one.advice]


def test_a_queue_that_is_well_is_not_told_of():
    """A thousand queues would hide the one that matters."""
    assert of_queue() == []
    # Nothing waits, so nothing is amiss.
    assert of_queue(consumers=0) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"queued": 2, "delayed": 1, "consumers": 0}, "no process takes from it, and calls wait: 3"),
        ({"paused": True}, "it is paused"),
        ({"standsStill": True}, "kept results take all of its room"),
        ({"heldBytes": 950}, "it holds 950 B of 1.0 kB"),
        ({"dead": 7}, "calls that Poste gave up: 7"),
        ({"oldestAgeSeconds": 7200.0}, "a call has waited for 7200 s"),
    ],
)
def test_a_queue_that_is_not_well_says_why(fields, said):
    """What waits for ever, or will be refused soon, would be found by its clients."""
    assert of_queue(**fields) == [said]


def test_services_say_what_becomes_of_their_calls():
    """A service whose calls are lost to its clients would look like one whose calls wait."""

    def service(**fields: object) -> Service:
        known = {"name": "a.A", "availability": "up", "queueable": True, "queued": 0, "methods": [METHOD]}
        return Service.read({**known, **fields})

    route = {"route": "GET /x", "reason": "the route is b.B's"}
    services = [
        service(),
        service(availability="away"),
        service(availability="away", queueable=False),
        service(methods=[{**METHOD, "notServed": [route]}]),
        service(availability="away", awayReason="its certificate is refused"),
    ]
    found = [*checks.of_services(services)]

    assert [bool(one.advice) for one in found] == [False, True, True, False, True, True]
    assert found[5].said == "away: its certificate is refused; its calls wait until it is back"
    assert ["wait" in found[1].said, "refused" in found[2].said] == [True, True]
    assert found[4].said == "GET /x is not served: the route is b.B's"
