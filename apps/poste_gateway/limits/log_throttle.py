"""Lines of the log that clients cause as often as they like: each kind once in a while, with how many were left out."""

from __future__ import annotations

import time
from typing import Any, Final

#: How often a kind of line is written, in seconds.
_PERIOD_SECONDS: Final = 1.0


class LogThrottle:
    """Writes a line of each kind, and then none for a while."""

    def __init__(self, log: Any, level: str) -> None:
        """Write to a logger, at one of its levels."""
        self._log, self._level = log, level
        #: By the kind: when the next line is due, and how many were left out since the last one.
        self._kinds: dict[str, tuple[float, int]] = {}

    def tell(self, event: str, reason: str, **facts: object) -> None:
        """Write a line, unless one of its kind was written a moment ago.

        Args:
            event: What happened.
            reason: Which kind it is: of a bounded set.
            **facts: What the line is to say of this one.
        """
        now = time.monotonic()
        due, left_out = self._kinds.get(reason, (0.0, 0))
        if now < due:
            self._kinds[reason] = due, left_out + 1
            return
        self._kinds[reason] = now + _PERIOD_SECONDS, 0
        if left_out:
            facts["left_out"] = left_out
        getattr(self._log, self._level)(event, reason=reason, **facts)
