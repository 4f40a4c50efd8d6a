"""Runs JSON conversion of large messages in two threads, in fair turns among clients.

It takes up to seconds, in which the event loop would answer no other request. One thread is for short conversions, one
for long ones. With more threads the loop would get too little of the interpreter's lock.
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

#: Bodies longer than this, in bytes, are parsed by a thread: ten of them in one turn of the loop delay all other calls.
LARGE_BODY: Final = 16 * 1024
#: Messages longer than this, in bytes, are written as JSON by a thread. Default values are always written, so two bytes
#: may become hundreds.
LARGE_MESSAGE: Final = 8 * 1024
#: What is longer than this, in bytes, goes to the thread for long ones: a megabyte may take half a second.
_LONG: Final = 128 * 1024

#: The interpreter's switch interval while a thread computes here, in seconds: how long the event loop waits for its
#: turn. The default is 5 ms. It is set only meanwhile: gRPC's threads switch by it too, and at all times it would make
#: each call a tenth dearer.
_SWITCH_SECONDS: Final = 0.001

T = TypeVar("T")


class _Considerate:
    """Shortens the interpreter's switch interval while a thread computes. Used from any thread."""

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
    """A thread, and the line that waits for it."""

    def __init__(self, name: str, max_waiting_bytes: int) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=f"offload {name}")
        self.turns = FairQueue(max_waiting_bytes)


class Offload:
    """Runs work in two threads beside the event loop."""

    def __init__(self, max_waiting_bytes: int) -> None:
        """Start no thread yet; so many bytes may wait in the line of each."""
        self._short = _Lane("short", max_waiting_bytes)
        self._long = _Lane("long", max_waiting_bytes)
        self._considerate = _Considerate()

    async def run(self, work: Callable[[], T], *, peer: str, size: int, accepted: bool = False) -> T:
        """Run `work` in a thread when it is its turn; return or raise what it does.

        Args:
            work: Runs in the thread, in a copy of this context.
            peer: The client; each has its share of the turns.
            size: The message's size in bytes.
            accepted: Wait even if too much waits: the call was accepted, and can't be refused any more.

        Raises:
            Problem: Too much waits already.
        """
        lane = self._long if size > _LONG else self._short
        # A copy of this context, so that the thread's log lines name the request.
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
        """Stop the threads; what waits is cancelled."""
        for lane in (self._short, self._long):
            lane.thread.shutdown(wait=False, cancel_futures=True)

    def _refused(self, peer: str, size: int) -> Problem:
        return busy(
            "reading",
            "More waits to be read or written here than there is room for: nothing was accepted.",
            peer=peer,
            bytes=size,
        )
