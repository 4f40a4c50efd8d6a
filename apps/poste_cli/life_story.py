"""Prints a task's events as lines: the time, the time since the event before, the event, and details."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from poste.client import History, TaskEvent

_EARLIER: Final = "it was tried so often that earlier attempts are not kept any more"


def rows(history: History) -> Iterator[tuple[str, str, str, str]]:
    """Yield the lines, each a time on this host's clock, a span in seconds, an event, and words on it."""
    if history.truncated:
        yield "", "", "", _EARLIER
    before: datetime | None = None
    for event in history.events:
        after = "" if before is None else f"+{(event.time - before).total_seconds():.3f} s"
        time = f"{event.time.astimezone():%Y-%m-%d %H:%M:%S.%f}"[:-3]
        yield time, after, event.type.value, _words(event)
        before = event.time


def _words(event: TaskEvent) -> str:
    known = (
        f"attempt {event.attempt}" if event.attempt else "",
        event.state.name if event.state else "",
        event.reason or "",
        event.code or "",
        f"not to run before {event.not_before_time.astimezone():%Y-%m-%d %H:%M:%S}" if event.not_before_time else "",
    )
    return ", ".join(filter(None, known))
