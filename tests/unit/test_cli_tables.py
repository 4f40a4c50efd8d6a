"""The tables that the client's verbs print."""

from __future__ import annotations

import pytest

from poste.client import Problem, Service, Task, Undelivered
from poste_cli import printing, sentences
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


@pytest.mark.parametrize(("count", "said"), [(0, "0 ends"), (1, "1 end"), (300, "300 ends")])
def test_one_is_not_several(count, said):
    """A terminal would tell of `1 ends`."""
    assert printing.number(count, "end") == said


def test_a_fault_is_told_once(capsys):
    """The same words twice look like two faults."""
    fault = {"field": "a", "reason": "must be a number"}
    other = {"field": "b", "reason": "is required"}
    document = {"title": "The request is not valid", "detail": "a: must be a number", "errors": [fault, other]}
    printing.problem(Problem(document, status=400))

    assert capsys.readouterr().err == "poste: The request is not valid: a: must be a number\n  b: is required\n"


def test_what_is_to_be_typed_next_stands_on_a_line_of_its_own():
    """A command that a narrow terminal breaks can't be copied."""
    document = {
        "id": "x" * 90,
        "service": "x.Y",
        "method": "A",
        "state": "DEAD",
        "reason": "attempts",
        "attempt": 1,
        "createTime": "2026-11-30T01:00:00Z",
    }

    assert (sentences.ended_badly(Task.read(document)) or [])[-1] == f"  poste replay {'x' * 90}"


def test_an_end_whose_id_is_lost_has_none():
    """It would be listed as the task `None`."""
    document = {
        **dict.fromkeys(("service", "method", "url", "failure"), "x"),
        "id": None,
        "state": "FAILED",
        "endTime": "2026-11-30T01:00:00Z",
        "tries": 1,
    }

    assert Undelivered.read(document).id is None
