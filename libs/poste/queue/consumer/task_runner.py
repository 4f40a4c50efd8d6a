"""Runs claimed tasks: starts their handlers, and takes note of how they end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from poste.domain.errors import PosteError
from poste.queue.consumer.state import Running
from poste.queue.consumer.task import NotRun
from poste.runtime import lifecycle, metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from poste.queue.consumer.state import ConsumerState
    from poste.queue.consumer.task import ClaimedTask


class TaskRunner:
    """Runs one session's tasks. They are its state's: it ends them."""

    def __init__(self, state: ConsumerState) -> None:
        self._state = state
        self._handle = state.host.handle
        self._defect: BaseException | None = None
        self._loop = asyncio.get_running_loop()

    def start(self, claimed: ClaimedTask) -> None:
        """Have a task's handler start."""
        if claimed.attempt == 1:
            # By two hosts' clocks: what they differ by must not make it less than nothing.
            metrics.task_wait_seconds.observe((claimed.queue,), max(0.0, time.time() - claimed.create_time))
        self._state.running[claimed.key] = Running(claimed, self._loop.create_task(self._run(claimed)))

    def go_on(self, key: str, rest: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something else run for a task, whose first asyncio task is of no account from now on."""
        running = self._state.running[key]
        running.claimed.left = True
        running.task = self._loop.create_task(self._run(running.claimed, rest))

    def raise_defect(self) -> None:
        """Raise the exception that escaped from handling a task, if any did: it is a bug, and ends the consumer.

        Raises:
            PosteError: What escaped is no `Exception` (a `SystemExit`, say); it is the cause.
        """
        if isinstance(self._defect, Exception):
            raise self._defect
        if self._defect is not None:
            raise PosteError(f"handling a task raised {self._defect!r}") from self._defect

    async def _run(self, claimed: ClaimedTask, rest: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        state = self._state
        claimed.unstarted = False
        try:
            await (self._handle(claimed) if rest is None else rest())
        except NotRun as refusal:
            # It stays held until it is known to be back.
            claimed.unstarted = True
            state.put_off.append((claimed, refusal.delay_seconds))
            state.some_put_off.set()
        except BaseException as error:  # noqa: BLE001 - the task's edge: its owner finds it, and dies of it
            # Tasks that their owner cancelled stay held: they are given back, or another consumer has them already.
            if not claimed.left and not lifecycle.was_cancelled(state.running[claimed.key].task):
                self._defect = error
        else:
            if rest is not None or not claimed.left:
                del state.running[claimed.key]
        if claimed.key in state.handling and (rest is not None or not claimed.left):
            state.handled(claimed.key)
        state.changed.set()
