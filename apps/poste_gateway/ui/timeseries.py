"""The queues' figures of the last minutes: what the charts begin with, and how fast a queue fills and drains."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: How many snapshots' figures are kept.
_SNAPSHOTS: Final = 180
#: The time over which rates are measured, in seconds: at most, and at least.
_WINDOW_SECONDS: Final = 10.0
_LEAST_SECONDS: Final = 0.9


@dataclass(frozen=True, slots=True)
class _Point:
    """One queue at one time."""

    waiting: int
    open: int
    entered: int
    ended: int
    age: float | None


class TimeSeries:
    """The figures of the last snapshots."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, dict[str, _Point]]] = deque(maxlen=_SNAPSHOTS)

    def add(self, time: float, services: list[dict[str, Any]]) -> None:
        """Keep a snapshot's figures, and add to it how fast each queue fills and drains.

        Args:
            time: When it was taken, in seconds since the epoch.
            services: Its services; their figures get `inRate`, `outRate` and `etaSeconds`.
        """
        points = {one["name"]: _point(one["figures"]) for one in services if one["figures"] is not None}
        begin = next((one for one in self._points if time - one[0] <= _WINDOW_SECONDS), None)
        for service in services:
            point = points.get(service["name"])
            if point is not None:
                before = None if begin is None else begin[1].get(service["name"])
                seconds = 0.0 if begin is None else time - begin[0]
                service["figures"].update(_rates(before, point, seconds))
        self._points.append((time, points))

    def series(self) -> Mapping[str, Any]:
        """Return the charts' data: the times, and for each service the waiting tasks and the oldest one's age."""
        names = {name for _, points in self._points for name in points}
        return {
            "times": [time for time, _ in self._points],
            "services": {
                name: {
                    "waiting": [points[name].waiting if name in points else None for _, points in self._points],
                    "age": [points[name].age if name in points else None for _, points in self._points],
                }
                for name in sorted(names)
            },
        }


def _point(figures: Mapping[str, Any]) -> _Point:
    waiting = figures["queued"] + figures["delayed"]
    return _Point(
        waiting=waiting,
        open=waiting + figures["running"],
        # A replayed task enters once more, as it ends once more.
        entered=figures["enqueued"] + figures["replayed"],
        ended=figures["ended"],
        age=figures["oldestAgeSeconds"],
    )


def _rates(before: _Point | None, now: _Point, seconds: float) -> dict[str, float | None]:
    """Return how many tasks a second come in and end, and in how many seconds none would be left.

    All three are None while there is too little to reckon with; the last one also if the queue does not get emptier.
    """
    if before is None or seconds < _LEAST_SECONDS or now.entered < before.entered or now.ended < before.ended:
        return {"inRate": None, "outRate": None, "etaSeconds": None}
    less = (before.open - now.open) / seconds
    return {
        "inRate": round((now.entered - before.entered) / seconds, 2),
        "outRate": round((now.ended - before.ended) / seconds, 2),
        "etaSeconds": round(now.open / less, 1) if less > 0 and now.open else None,
    }
