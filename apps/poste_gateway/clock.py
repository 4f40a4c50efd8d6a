"""Compares this gateway's clock with the store's: task ids have the gateway's time, and the store checks it.

Up to 30 s, either way, do no harm. Beyond that the store refuses this gateway's calls as too old or from the future.
The readiness, the log and a metric show that, until the clock is right again.
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
    """The last comparison of the clocks."""

    def __init__(self, mom: Mom) -> None:
        """Begin without a comparison.

        Args:
            mom: The middleware, which reads the store's time.
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
        # The store read its clock at some time during the call: in the middle, give or take half of the call's time.
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
