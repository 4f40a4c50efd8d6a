"""Ends a process that has done enough, in order, to be started anew: its code, or a library of it, may leak.

What runs is finished up to the grace and the rest given back, as at any stop. The exit code (`lifecycle.RESTART`) says
that it is to be started again; `poste worker` starts itself anew, in its place.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Final

from poste.domain.errors import StartError
from poste.runtime import logs
from poste.runtime.waits import done_within

_log = logs.get("recycling")
#: How often it is looked whether there was enough, in seconds.
_CHECK_SECONDS: Final = 0.25
#: How many tasks more a process may run, at random, as a share: replicas that began together must not end together.
_SPREAD: Final = 0.1
#: Memory that is in use: its second field, in pages (proc(5)).
_STATM: Final = Path("/proc/self/statm")


class Recycling:
    """Watches how much one process has done, and how large it is.

    Attributes:
        reason: Why it is to be started anew; None if it is not.
    """

    def __init__(self, *, max_tasks: int | None, max_memory_bytes: int | None) -> None:
        """Prepare; `run` begins.

        Args:
            max_tasks: After how many queued tasks it is enough; up to a tenth more, at random. None for no bound.
            max_memory_bytes: How much resident memory it may have; None for no bound.

        Raises:
            StartError: It has more than that before it has done anything: it would be started anew for ever.
        """
        if max_memory_bytes is not None and (size := resident_bytes()) > max_memory_bytes:
            raise StartError(
                f"POSTE_MAX_MEMORY_BYTES={max_memory_bytes} is less than the process takes at its start, {size} bytes"
            )
        self.reason: str | None = None
        self._why = ""
        self._max_tasks = max_tasks
        if max_tasks is not None:
            self._max_tasks = max_tasks + int(max_tasks * random.uniform(0, _SPREAD))  # noqa: S311 - no secret
        self._max_memory_bytes = max_memory_bytes
        self._tasks = 0
        self._enough = asyncio.Event()

    def count(self) -> None:
        """Count a task whose handler has ended."""
        self._tasks += 1
        if self._tasks == self._max_tasks:
            self._stop(f"it has run {self._tasks} tasks (POSTE_MAX_TASKS)")

    async def run(self, stop: asyncio.Event) -> None:
        """Wait until there was enough, or until cancelled; sets `stop` then."""
        if self._max_memory_bytes is None:
            await self._enough.wait()
        while not self._enough.is_set():
            await done_within(_CHECK_SECONDS, self._enough.wait())
            if self._max_memory_bytes is not None and (size := resident_bytes()) > self._max_memory_bytes:
                self._stop(f"it takes {size} bytes of memory (POSTE_MAX_MEMORY_BYTES)")
        if not stop.is_set():
            self.reason = self._why
            _log.info("recycling", reason=self.reason, tasks=self._tasks)
            stop.set()

    def _stop(self, why: str) -> None:
        self._why = why
        self._enough.set()


def resident_bytes() -> int:
    """Return how much memory this process has; 0 where the system does not say it."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
