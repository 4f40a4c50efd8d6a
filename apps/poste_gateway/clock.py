"""How far this gateway's clock is from the store's, by which ids are judged.

Up to 30 s, either way, do no harm. Beyond that the store refuses this gateway's calls as too old or from the future:
the readiness, the log and a metric say so, and it is over by itself once the clock is right.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from poste.domain.policy import MAX_ENQUEUE_AGE_SECONDS
from poste.runtime import logs, metrics
from poste_gateway.mom import Mom, MomAway

#: How often the clocks are compared, in seconds.
_PERIOD_SECONDS: Final = 2.0

_log: Final = logs.get("clock")


class Clock:
    """What was last found out about this gateway's clock."""

    def __init__(self, mom: Mom) -> None:
        """Know nothing yet.

        Args:
            mom: Tells the store's time.
        """
        self._mom = mom
        self._unready: str | None = None

    @property
    def unready(self) -> str | None:
        """Why no call of this gateway can be kept, as far as its clock goes; None if it is right, or not known."""
        return self._unready

    async def keep(self) -> None:
        """Compare it with the store's for ever."""
        while True:
            await self._compare()
            await asyncio.sleep(_PERIOD_SECONDS)

    async def _compare(self) -> None:
        began, sent = time.monotonic(), time.time()
        try:
            store = await self._mom.read_clock()
        except MomAway:
            return
        # The answer is of some moment while it was asked for, hence of the middle, give or take half of that.
        doubt = (time.monotonic() - began) / 2
        ahead = sent + doubt - store
        metrics.clock_ahead_seconds.set(ahead)
        off = abs(ahead) - doubt > MAX_ENQUEUE_AGE_SECONDS
        if off != (self._unready is not None):
            (_log.error if off else _log.info)(
                "clock off" if off else "clock right again", ahead_seconds=round(ahead, 1)
            )
        self._unready = _reason(ahead) if off else None


def _reason(ahead: float) -> str:
    where = "ahead of" if ahead > 0 else "behind"
    return f"this gateway's clock is {abs(ahead):.0f} s {where} the store's: no call can be kept"
