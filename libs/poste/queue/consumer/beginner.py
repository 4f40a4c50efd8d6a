"""Starts claimed tasks that must not run twice: each once its claim is on disk, and one after the other.

When a process dies, those of its tasks that may have started end as DEAD, `outcome-unknown`. Starting them one by one
keeps that to the tasks that ran and one more, whatever else the process had claimed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.queue.consumer.task import request_ids
from poste.queue.steps import consumer as steps
from poste.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poste.queue.consumer.state import ConsumerState
    from poste.queue.consumer.task import ClaimedTask
    from poste.queue.consumer.task_runner import TaskRunner

_log = logs.get("consumer")
#: The wait between two tries while Redis is away, in seconds.
_PAUSE_SECONDS: Final = 0.2


class Beginner:
    """Has what one session holds begin."""

    def __init__(self, state: ConsumerState, runner: TaskRunner) -> None:
        self._state = state
        self._runner = runner
        self._unsettled: list[ClaimedTask] = []
        self._some_unsettled = asyncio.Event()
        self._next: deque[ClaimedTask] = deque()

    def add(self, claimed: Sequence[ClaimedTask], *, on_disk: bool) -> None:
        """Take over what was claimed; if its claim is not known to be on disk, see to that first."""
        # In their order: not before what is waited for.
        if on_disk and not self._unsettled:
            self._next.extend(claimed)
            self._state.may_begin.set()
        elif claimed:
            self._unsettled.extend(claimed)
            self._some_unsettled.set()

    async def settle(self) -> None:
        """Wait for the disk where an answer is not from there, for all that is claimed at once, until cancelled."""
        state = self._state
        while True:
            await self._some_unsettled.wait()
            self._some_unsettled.clear()
            count = len(self._unsettled)
            while True:
                try:
                    if await state.scripts.must_wait(state.keys.queue):
                        await state.scripts.sync(state.keys.barrier)
                    break
                except StoreError as error:
                    _log.warning("claims not known to be on disk", queue=state.keys.queue, error=str(error))
                    await asyncio.sleep(_PAUSE_SECONDS)
            self._next.extend(self._unsettled[:count])
            del self._unsettled[:count]
            state.may_begin.set()

    async def run(self) -> None:
        """Have one begin after the other, until cancelled."""
        state = self._state
        while True:
            while state.beginning is not None or not self._next or state.ending.is_set():
                state.may_begin.clear()
                await state.may_begin.wait()
            claimed = self._next.popleft()
            if state.to_begin.get(claimed.key) is claimed:
                await self._begin(claimed)

    async def _begin(self, claimed: ClaimedTask) -> None:
        state, keys, key = self._state, self._state.keys, claimed.key
        try:
            said = await steps.begin(state.scripts, keys, state.name, key, claimed.token)
        except StoreError as error:
            # It may be noted as begun, and is not: it is adopted and claimed anew, which notes that.
            _log.warning("task not begun", queue=keys.queue, **claimed.names(), error=str(error))
            self._drop(key)
            await asyncio.sleep(_PAUSE_SECONDS)
            state.reconcile_due.set()
            return
        # From here to its start nothing is waited for: what has begun runs.
        if said == "begun":
            del state.to_begin[key]
            state.beginning = key
            self._runner.start(claimed)
            if not state.to_begin:
                state.changed.set()
        elif said == "paused":
            await self._put_back()
        elif said == "fenced":
            state.fence()
        else:
            self._drop(key)

    async def _put_back(self) -> None:
        """Give back all that has not begun: the queue stands still."""
        state, keys = self._state, self._state.keys
        # The oldest is put back last, so that it is taken first again.
        waiting = [*reversed(state.to_begin.values())]
        returned = [steps.Returned(one.key, one.token, started=False) for one in waiting]
        try:
            await steps.give_back(state.scripts, keys, state.name, returned)
        except StoreError as error:
            _log.warning("giving back failed", queue=keys.queue, error=str(error), request_ids=request_ids(waiting))
            await asyncio.sleep(_PAUSE_SECONDS)
        # What was not put back stands in the list, and is adopted.
        for one in waiting:
            self._drop(one.key)
        state.reconcile_due.set()

    def _drop(self, key: str) -> None:
        del self._state.to_begin[key]
        self._state.handled(key)
