"""Tells the log of calls that were refused because their queue is full: seldom, however many they are."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

from poste.runtime import logs

_log = logs.get("refusals")
#: How often a queue's refusals are told, in seconds: the first at once.
_TELL_SECONDS: Final = 10.0


class Refusals:
    """Counts what was refused until it is told."""

    def __init__(self) -> None:
        self._untold: Counter[tuple[str, str]] = Counter()
        self._told: dict[tuple[str, str], float] = {}

    def add(self, queue: str, reason: str, calls: int) -> None:
        """Note that a queue refused some calls."""
        which = queue, reason
        self._untold[which] += calls
        now = time.monotonic()
        if now - self._told.get(which, -_TELL_SECONDS) >= _TELL_SECONDS:
            self._told[which] = now
            _log.warning("calls refused", queue=queue, reason=reason, calls=self._untold.pop(which))
