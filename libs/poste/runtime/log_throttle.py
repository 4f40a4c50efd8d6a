"""Rate limit for log lines that clients can trigger: one a second of each kind, with how many were left out."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any, Final

#: How often a kind of line is written, in seconds.
_PERIOD_SECONDS: Final = 1.0


class LogThrottle:
    """Writes a line of each kind, and then none for a while."""

    def __init__(self, log: Any, level: str, *, period_seconds: float = _PERIOD_SECONDS) -> None:
        """Write to a logger, at one of its levels; each kind once in so many seconds."""
        self._log, self._level = log, level
        self._period_seconds = period_seconds
        #: By the kind: when the next line is due, and how much was left out since the last one.
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def write(self, event: str, reason: str, **facts: object) -> None:
        """Write a line, unless one of its kind was written a moment ago.

        Args:
            event: What happened.
            reason: Which kind it is: of a bounded set.
            **facts: What the line is to say of this one.
        """
        if happened := self._due(reason, 1):
            if happened > 1:
                facts["left_out"] = happened - 1
            getattr(self._log, self._level)(event, reason=reason, **facts)

    def write_sum(self, event: str, *, counted: str, number: int, **kind: Hashable) -> None:
        """Write a line that says how many there were since the last of its kind, unless that was a moment ago.

        Args:
            event: What happened.
            counted: The name under which the line says how many there were.
            number: How many there are now.
            **kind: What the line says besides, and what makes its kind; of a bounded set.
        """
        if happened := self._due(tuple(kind.values()), number):
            getattr(self._log, self._level)(event, **kind, **{counted: happened})

    def _due(self, kind: Hashable, number: int) -> int:
        """Count so many of a kind; returns how many there were since its last line, 0 while no other is due."""
        now = time.monotonic()
        due, left_out = self._kinds.get(kind, (0.0, 0))
        if now < due:
            self._kinds[kind] = due, left_out + number
            return 0
        self._kinds[kind] = now + self._period_seconds, 0
        return left_out + number
