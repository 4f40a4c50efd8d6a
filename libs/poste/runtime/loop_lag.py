"""How late the event loop is: measured by how late a timer fires. Whatever blocks the loop shows here."""

from __future__ import annotations

import asyncio
from typing import Final

from poste.runtime import metrics

#: How often it is measured, in seconds.
PERIOD_SECONDS: Final = 0.25
#: A timer that is later than this, in seconds, was kept waiting by what blocked the loop; less is a busy loop's own.
BLOCKED_SECONDS: Final = 1.0


class _Blocked:
    """For how long this process' loop was blocked in all, in seconds."""

    seconds = 0.0


def blocked_seconds() -> float:
    """Return for how long the loop was blocked so far, in seconds: by a period too much for each time that counts."""
    return _Blocked.seconds


def watch() -> None:
    """Measure from now on, for as long as the running loop runs."""
    loop = asyncio.get_running_loop()

    def beat(due: float) -> None:
        now = loop.time()
        late = max(0.0, now - due)
        metrics.loop_lag_seconds.observe(late)
        if late > BLOCKED_SECONDS:
            _Blocked.seconds += late + PERIOD_SECONDS
        wait(now + PERIOD_SECONDS)

    def wait(due: float) -> None:
        loop.call_at(due, beat, due)

    wait(loop.time() + PERIOD_SECONDS)
