"""What would hold up every other request is done beside the loop: large messages' JSON, which takes up to seconds.

In two threads, one for what is quickly done, one for the rest, in fair turns among clients. With more threads the loop
would get too little of the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from poste_gateway.http.busy import busy
from poste_gateway.http.problems import Problem
from poste_gateway.limits.fair_queue import FairQueue, Full

#: Bodies longer than this, in bytes, are read by a thread: ten of them at once may take as long as a call may wait.
LARGE_BODY: Final = 16 * 1024
#: Messages longer than this, in bytes, are written by one. Default values are always printed, so of two bytes there may
#: become hundreds.
LARGE_MESSAGE: Final = 8 * 1024
#: What is longer than this, in bytes, is not quickly done: a megabyte may take half a second.
_LONG: Final = 128 * 1024

#: How long a thread that computes here keeps the loop from its turn, in seconds; the interpreter's own is 5 ms. That is
#: told it only meanwhile: at all times it costs each call a tenth, for gRPC's threads take their turns by it too.
_SWITCH_SECONDS: Final = 0.001

T = TypeVar("T")


class _Considerate:
    """Has whatever computes beside the loop let it have its turn soon; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._computing = 0
        self._usual = sys.getswitchinterval()

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        with self._lock:
            if not self._computing:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self._usual, _SWITCH_SECONDS))
            self._computing += 1
        try:
            yield
        finally:
            with self._lock:
                self._computing -= 1
                if not self._computing:
                    sys.setswitchinterval(self._usual)


class _Lane:
    """A thread, and who waits for it."""

    def __init__(self, name: str, max_waiting_bytes: int) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=f"offload {name}")
        self.turns = FairQueue(max_waiting_bytes)


class Offload:
    """Works beside the loop."""

    def __init__(self, max_waiting_bytes: int) -> None:
        """Start nothing yet; `max_waiting_bytes` may wait, in each thread's line."""
        self._short = _Lane("short", max_waiting_bytes)
        self._long = _Lane("long", max_waiting_bytes)
        self._considerate = _Considerate()

    async def run(self, work: Callable[[], T], *, peer: str, size: int, accepted: bool = False) -> T:
        """Do something beside the loop when it is its turn; returns or raises what it does.

        Args:
            work: What is done.
            peer: Whose it is: every client has its share.
            size: How many bytes it is about.
            accepted: It is too late to refuse it: it waits however much does.

        Raises:
            Problem: Too much waits.
        """
        lane = self._long if size > _LONG else self._short
        # As what asked for it: a line of the log says which part, and which trace, it is of.
        context = contextvars.copy_context()

        def compute() -> T:
            with self._considerate.computing():
                return context.run(work)

        try:
            async with lane.turns.turn(peer, size, patient=accepted):
                return await asyncio.get_running_loop().run_in_executor(lane.thread, compute)
        except Full:
            raise self._refused(peer, size) from None

    def close(self) -> None:
        """Begin nothing more."""
        for lane in (self._short, self._long):
            lane.thread.shutdown(wait=False, cancel_futures=True)

    def _refused(self, peer: str, size: int) -> Problem:
        return busy(
            "reading",
            "More waits to be read or written here than there is room for: nothing was accepted.",
            peer=peer,
            bytes=size,
        )
