"""Threads for handlers that are plain functions.

Not the standard pool: that one joins its threads when the interpreter ends, so one handler that hangs would keep a
process from ever stopping. And a call that waits for a thread has not run: that is proved here, by who takes it first.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class NoThread(Exception):  # noqa: N818 - it states a fact
    """No thread was free in time: the function was not called, and never will be."""


class _Job:
    """A function to call, and the future that waits in its loop for (value, error).

    The holder of `taken` has it: a thread, to call it; or its caller, so that it is never called.
    """

    __slots__ = ("answer", "begin", "context", "function", "lost", "taken")

    def __init__(
        self,
        function: Callable[[], Any],
        begin: Callable[[], object] | None,
        answer: asyncio.Future[tuple[Any, BaseException | None]],
    ) -> None:
        self.function = function
        self.begin = begin
        self.context = contextvars.copy_context()
        self.answer = answer
        self.taken = threading.Lock()
        self.lost = False


class Threads:
    """At most `size` daemon threads, started when they are needed. Used from one event loop only.

    A thread whose caller does not wait any more is lost for as long as its function goes on.

    Attributes:
        lost: How many are.
    """

    def __init__(self, size: int, name: str, lost: Callable[[int], object] = lambda _: None) -> None:
        """Start none yet.

        Args:
            size: How many there may be.
            name: What they are called.
            lost: Called with 1 for each that is lost, and with -1 for each that has come back.
        """
        self.lost = 0
        self._tell_lost = lost
        self._size = size
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._open = 0
        self._calling: set[_Job] = set()
        self._all_lost_since: float | None = None

    @property
    def lost_seconds(self) -> float:
        """For how long all of them have been lost; 0 while one is not."""
        return 0.0 if self._all_lost_since is None else time.monotonic() - self._all_lost_since

    @property
    def all_lost(self) -> bool:
        """Whether all of them are lost."""
        return self._all_lost_since is not None

    def calling(self) -> list[str]:
        """Return the names of the functions that go on."""
        return [_name_of(job.function) for job in [*self._calling]]

    async def run(
        self,
        function: Callable[[], T],
        *,
        patience_seconds: float | None = None,
        begin: Callable[[], object] | None = None,
    ) -> T:
        """Call a function in a thread.

        If this is cancelled, a call that has begun goes on, for a thread can't be stopped, and its answer is dropped;
        one that has not begun never does.

        Args:
            function: What is called.
            patience_seconds: How long it may wait for a thread; None is as long as it takes.
            begin: Called in the thread right before; None if it is not needed.

        Raises:
            NoThread: None was free in time.
        """
        waits = self._open >= self._size
        if waits and (self.all_lost or patience_seconds == 0):
            raise NoThread(f"all {self._size} threads are taken")
        job = _Job(function, begin, self._loop.create_future())
        if not waits and self._open >= self._threads:
            self._start_thread()
        self._open += 1
        self._jobs.put(job)
        timer = None
        if waits and patience_seconds is not None:
            timer = self._loop.call_later(patience_seconds, self._give_up, job)
        try:
            # The error travels as a value: a future refuses StopIteration, and would wait for ever.
            value, error = await job.answer
        except asyncio.CancelledError:
            if not self._take_back(job):
                self._lose(job)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if error is not None:
            raise error
        answer: T = value
        return answer

    def close(self) -> None:
        """Let the threads end once they are idle."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _start_thread(self) -> None:
        number = self._threads + 1
        try:
            threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True).start()
        except RuntimeError as error:
            # The system has none to give. One that is there already will come to it.
            if self._threads == 0:
                raise NoThread(str(error)) from error
        else:
            self._threads = number

    def _give_up(self, job: _Job) -> None:
        if self._take_back(job) and not job.answer.done():
            job.answer.set_exception(NoThread(f"none of {self._size} threads was free in time"))

    def _take_back(self, job: _Job) -> bool:
        """Keep a job from being called; returns whether it was in time for that."""
        if not job.taken.acquire(blocking=False):
            return False
        self._open -= 1
        return True

    def _lose(self, job: _Job) -> None:
        job.lost = True
        self.lost += 1
        self._tell_lost(1)
        if self.lost == self._size:
            self._all_lost_since = time.monotonic()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.taken.acquire(blocking=False):
                continue
            self._calling.add(job)
            value, error = None, None
            try:
                if job.begin is not None:
                    job.begin()
                value = job.context.run(job.function)
            except BaseException as raised:  # noqa: BLE001 - it is raised again where it is awaited
                error = raised
            self._calling.discard(job)
            try:
                self._loop.call_soon_threadsafe(self._settle, job, value, error)
            except RuntimeError:
                return  # the loop is closed: no caller waits any more
            del job, value, error

    def _settle(self, job: _Job, value: object, error: BaseException | None) -> None:
        self._open -= 1
        if job.lost:
            self.lost -= 1
            self._tell_lost(-1)
            self._all_lost_since = None
        if not job.answer.done():
            job.answer.set_result((value, error))


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__qualname__", function))
