"""How many direct calls run in this process, on whichever wire they came, and whether more may begin."""

from __future__ import annotations

import asyncio
from typing import Final

from poste.domain.codes import Code
from poste.runtime.waits import done_within
from poste.service.outcome import Outcome

#: Calls count as coming in for so long after the last one, in seconds.
_LIVE_SECONDS: Final = 0.1


class AdmissionControl:
    """Counts direct calls in and out."""

    def __init__(self, max_calls: int) -> None:
        """Let at most `max_calls` run at once."""
        self._max_calls = max_calls
        #: Those that hold a place; and those that do, or whose answers are still on their way.
        self._running = 0
        self._unfinished = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop = asyncio.get_running_loop()
        self._last_begin = -_LIVE_SECONDS

    def refusal(self) -> Outcome | None:
        """Return why no call may begin now; None if one may."""
        if self._draining:
            return Outcome(Code.UNAVAILABLE, "the service is stopping", not_run=True)
        if self._running >= self._max_calls:
            return Outcome(Code.RESOURCE_EXHAUSTED, f"{self._max_calls} calls run already", not_run=True)
        return None

    def live(self) -> bool:
        """Return whether calls come in: one runs, or began a moment ago."""
        return self._running > 0 or self._loop.time() - self._last_begin < _LIVE_SECONDS

    def begin(self) -> None:
        """Count a call in."""
        self._running += 1
        self._unfinished += 1
        self._last_begin = self._loop.time()
        self._idle.clear()

    def release(self, calls: int) -> None:
        """Give the places of so many calls to others before their answers leave; `finish` once they have left.

        A caller that was answered may make its next call at once: it must not find the place of its last one taken.
        """
        self._running -= calls

    def finish(self, calls: int) -> None:
        """Count out calls whose places were released."""
        self._unfinished -= calls
        if self._unfinished == 0:
            self._idle.set()

    def end(self, calls: int = 1) -> None:
        """Count calls out, places and all."""
        self.release(calls)
        self.finish(calls)

    def close(self) -> None:
        """Let no more calls begin."""
        self._draining = True

    async def drained(self, seconds: float) -> None:
        """Wait until no call runs, and no answer is on its way, as long as `seconds` at most."""
        await done_within(seconds, self._idle.wait())
