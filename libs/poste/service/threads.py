"""Threads for handlers that are plain functions.

Not the standard pool: that one joins its threads when the interpreter ends, so one handler that hangs would keep a
process from ever stopping.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    """A function to call, and the future that waits in its loop for (value, error)."""

    function: Callable[[], Any]
    context: contextvars.Context
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[tuple[Any, BaseException | None]]


class Threads:
    """At most `size` daemon threads, started when they are needed. Used from one event loop only."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._open = 0

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in a thread.

        If this is cancelled, a call that has begun goes on, for a thread can't be stopped, and its answer is dropped;
        one that has not begun never does.
        """
        loop = asyncio.get_running_loop()
        job = _Job(function, contextvars.copy_context(), loop, loop.create_future())
        self._open += 1
        self._jobs.put(job)
        if self._open > self._threads and self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        # The error travels as a value: a future refuses StopIteration, and would wait for ever.
        value, error = await job.answer
        if error is not None:
            raise error
        answer: T = value
        return answer

    def close(self) -> None:
        """Let the threads end once they are idle."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            value, error = None, None
            if not job.answer.cancelled():
                try:
                    value = job.context.run(job.function)
                except BaseException as raised:  # noqa: BLE001 - it is raised again where it is awaited
                    error = raised
            try:
                job.loop.call_soon_threadsafe(self._settle, job, value, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more
            del job, value, error

    def _settle(self, job: _Job, value: object, error: BaseException | None) -> None:
        self._open -= 1
        if not job.answer.done():
            job.answer.set_result((value, error))
