"""The tables that the client's verbs print."""

from __future__ import annotations

import pytest

from poste.client import Service
from poste_cli.client_commands import service_rows


@pytest.mark.parametrize(
    ("queued", "shown", "queueable", "away"),
    [(7, 7, True, "queue"), (None, "?", True, "queue"), (0, 0, False, "reject")],
)
def test_what_waits_for_a_service_is_told_once(queued, shown, queueable, away):
    """The rows' sum would be a multiple of what really waits."""
    method = {
        "path": "/x.Y/A",
        "routes": ["POST /x.Y/A", "POST /v1/a"],
        "notServed": [],
        "idempotent": True,
        "away": "queue",
    }
    document = {"name": "x.Y", "availability": "away", "queueable": queueable, "queued": queued}
    service = Service.read(document | {"methods": [method | {"name": name} for name in ("A", "B")]})

    assert list(service_rows([service])) == [
        ("x.Y", "away", shown, "A", "POST /x.Y/A, POST /v1/a", "yes", away),
        ("x.Y", "away", "", "B", "POST /x.Y/A, POST /v1/a", "yes", away),
    ]


def test_methods_that_stream_are_marked():
    """Who calls one would wait for one answer, or not know why it can't be called."""
    method = {"path": "/x.Y/A", "routes": ["POST /x.Y/A"], "notServed": [], "idempotent": False, "away": "reject"}
    methods = [
        method | {"name": "A", "kind": "server-streaming", "callable": True},
        method | {"name": "B", "kind": "client-streaming", "callable": False},
    ]
    service = Service.read({"name": "x.Y", "availability": "up", "queueable": True, "queued": 0, "methods": methods})

    assert [row[3:5] for row in service_rows([service])] == [
        ("A (stream)", "POST /x.Y/A"),
        ("B", "by gRPC alone: client-streaming"),
    ]
