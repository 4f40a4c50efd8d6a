"""How late the event loop is: a timer measures by how much it was missed. What blocks the loop is seen here first."""

from __future__ import annotations

import asyncio
from typing import Final

from poste.runtime import metrics

#: How often it is measured, in seconds.
_PERIOD_SECONDS: Final = 0.25


def watch() -> None:
    """Measure from now on, for as long as the running loop runs."""
    loop = asyncio.get_running_loop()

    def beat(due: float) -> None:
        now = loop.time()
        metrics.loop_lag_seconds.observe(max(0.0, now - due))
        wait(now + _PERIOD_SECONDS)

    def wait(due: float) -> None:
        loop.call_at(due, beat, due)

    wait(loop.time() + _PERIOD_SECONDS)
