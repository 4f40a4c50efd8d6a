"""Processes that get a ninth of the time, as on a host that is short of it: each runs some 50 of some 450 ms.

By SIGSTOP, not by a cgroup's quota: that takes time from those only that have used theirs up, and not everybody may
make one.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence

#: How long each runs at a time and is stopped then, in seconds; a host gives it now less and now more, by as much.
RUN_SECONDS = 0.05
STOP_SECONDS = 0.4
SPREAD = 0.5


@contextlib.contextmanager
def starved(pids: Sequence[int]) -> Iterator[None]:
    """Starve processes while the body runs. Each has its own turns: what one sends mostly finds the other stopped."""
    over = threading.Event()
    slicer = threading.Thread(target=_slice, args=(pids, over))
    slicer.start()
    try:
        yield
    finally:
        over.set()
        slicer.join()
        for pid in pids:
            _send(pid, signal.SIGCONT)


def _slice(pids: Sequence[int], over: threading.Event) -> None:
    chance = random.Random(19)  # noqa: S311 - the same turns each time
    turns = [(time.monotonic() + chance.uniform(0, STOP_SECONDS), pid, signal.SIGSTOP) for pid in pids]
    heapq.heapify(turns)
    while True:
        due, pid, number = heapq.heappop(turns)
        if over.wait(max(0.0, due - time.monotonic())):
            return
        _send(pid, number)
        stopped = number is signal.SIGSTOP
        lasts = (STOP_SECONDS if stopped else RUN_SECONDS) * chance.uniform(1 - SPREAD, 1 + SPREAD)
        then = signal.SIGCONT if stopped else signal.SIGSTOP
        # From now on: if this very thread comes late, no turn is shorter for it.
        heapq.heappush(turns, (time.monotonic() + lasts, pid, then))


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
