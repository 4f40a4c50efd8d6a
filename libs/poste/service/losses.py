"""Watches for threads lost to hung `def` handlers; ends the process when a service has lost all of its threads.

A thread can't be ended. A process that has lost all of its threads can run no `def` handler any more: it logs that, is
not ready, and after `POSTE_THREADS_LOST_SECONDS` ends in order. Whatever keeps it running starts it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from poste.runtime import logs
from poste.service.handlers import Runner

_log = logs.get("threads")
#: How often the threads are checked, in seconds.
_CHECK_SECONDS: Final = 0.25
#: So many handlers are named.
_NAMED: Final = 5


class ThreadWatch:
    """Watches one process' threads.

    Attributes:
        reason: Which service has lost all its threads; None while there is none.
        over: The process is to end for that.
    """

    def __init__(self, runners: Sequence[Runner], patience_seconds: float) -> None:
        """Prepare; `run` begins.

        Args:
            runners: Whose threads.
            patience_seconds: How long all may be lost before the process is to end; 0 is for ever.
        """
        self.reason: str | None = None
        self.over = False
        self._runners = runners
        self._patience_seconds = patience_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Check, until cancelled; sets `stop` if the process is to end."""
        while not self.over:
            await asyncio.sleep(_CHECK_SECONDS)
            stuck = [one for runner in self._runners if (one := runner.stuck()) is not None]
            if not stuck:
                self.reason = None
                continue
            worst = max(stuck, key=lambda one: one.seconds)
            if self.reason is None:
                self.reason = f"all {worst.road} threads of {worst.service} are lost to handlers that do not end"
                _log.error("threads lost", service=worst.service, road=worst.road, handlers=worst.handlers[:_NAMED])
            self.over = 0 < self._patience_seconds <= worst.seconds
        stop.set()
