"""How long a call waits for its turn is measured, and not told where it is not known."""

from __future__ import annotations

from typing import Any

import pytest

from poste.queue.queues import QueueFigures
from poste_mom.queues.turns import Turns

QUEUE = "a.B"


def figures(started: int, *, queued: int = 100, put_off: int = 0, came: int = 0, **changes: Any) -> QueueFigures:
    fields = dict.fromkeys(
        (
            "running",
            "delayed",
            "scheduled",
            "dead",
            "held",
            "callbacks",
            "undelivered",
            "kept",
            "waiting_bytes",
            "kept_bytes",
        ),
        0,
    )
    shown = {
        **fields, "name": QUEUE, "queued": queued, "dead_bytes": 0, "consumers": 1, "oldest_age_seconds": 40.0,
        "paused": False, "stands_still": False, "lanes": {},
        "totals": {"started": started, "put_off": put_off, "enqueued": came}, **changes,
    }  # fmt: skip
    return QueueFigures(**shown)


class Clock:
    """The turns of a queue, measured at times that the test says."""

    def __init__(self) -> None:
        self.now, nothing = 0.0, None
        self.turns = Turns(nothing, now=lambda: self.now)  # type: ignore[arg-type]
        assert self.turns.of_new(QUEUE) is None

    def measure(self, at: float, shown: QueueFigures) -> float | None:
        self.now = at
        self.turns.note(QUEUE, shown)
        return self.turns.of_new(QUEUE)


def test_what_waits_is_divided_by_what_is_started() -> None:
    """A client would ask again and again, or far too late."""
    clock = Clock()
    assert clock.measure(0, figures(1000)) is None
    assert clock.measure(1, figures(1010)) is None
    assert clock.measure(10, figures(1100)) == pytest.approx(10)
    # What is older than half a minute says nothing of today.
    assert clock.measure(39, figures(1100 + 29, queued=58)) == pytest.approx(58)
    # What was put off has not had its turn.
    assert clock.measure(40, figures(1150, put_off=20, queued=30)) == pytest.approx(30)


def test_who_has_waited_longer_has_its_turn_sooner() -> None:
    """The first of a long queue would be told as much as the last."""
    clock = Clock()
    clock.measure(0, figures(0))
    clock.measure(10, figures(100, came=25))

    assert clock.turns.of_waiting(QUEUE, 0) == pytest.approx(10)
    # 75 came after it.
    assert clock.turns.of_waiting(QUEUE, 30) == pytest.approx(2.5)
    assert clock.turns.of_waiting(QUEUE, 41) == 0
    assert clock.turns.of_waiting("not.Asked", 41) is None


def test_who_came_last_of_many_has_them_all_before_it() -> None:
    """It is nearly as old as the first, and would be told that its turn is now."""
    clock = Clock()
    clock.measure(0, figures(0, came=100))
    clock.measure(10, figures(100, came=100))

    assert clock.turns.of_waiting(QUEUE, 39) == pytest.approx(10)


@pytest.mark.parametrize(
    "changes", [{"paused": True}, {"stands_still": True}, {"consumers": 0}, {"lanes": {"Slow": 3}}, {"started": 0}]
)
def test_nothing_is_told_where_it_is_not_known(changes: dict[str, Any]) -> None:
    """A client would be told a time that has nothing to do with when its call is run."""
    clock = Clock()
    clock.measure(0, figures(0))

    assert clock.measure(10, figures(**{"started": 100, **changes})) is None
    assert clock.turns.of_waiting(QUEUE, 1) is None
