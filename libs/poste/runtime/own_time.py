"""Timeouts that don't count time in which this process was suspended, or its event loop was blocked.

A process that was stopped for two seconds finds every deadline over when it goes on, and its peers' answers unread
beside them. So time is counted in beats: a beat that comes late does not count, and what came meanwhile is read before
the next.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

from poste.runtime import loop_lag

#: How long a beat is, in seconds.
BEAT_SECONDS: Final = 0.1
#: A beat that comes later than this, in seconds, was kept from coming: by a handler that blocks, or by the host.
_LATE_SECONDS: Final = 0.05


def now() -> float:
    """Return the loop's clock, in seconds, less the time for which the loop was blocked or the process halted."""
    return asyncio.get_running_loop().time() - loop_lag.blocked_seconds()


async def wait(future: asyncio.Future[Any], seconds: float = math.inf) -> float:
    """Wait until a future is done, but no longer than so many seconds of this process' own time.

    Args:
        future: What is waited for. It is neither cancelled nor asked for its result.
        seconds: How long, at most.

    Returns:
        How long it was waited, in seconds of this process' own time.
    """
    loop = asyncio.get_running_loop()
    waited = 0.0
    while not future.done() and waited < seconds:
        beat = min(BEAT_SECONDS, seconds - waited)
        begin = loop.time()
        await asyncio.wait([future], timeout=beat)
        passed = loop.time() - begin
        if passed < beat + _LATE_SECONDS:
            waited += min(passed, beat)
    return waited
