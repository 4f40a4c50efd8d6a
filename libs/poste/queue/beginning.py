"""Has what must not run twice begin: once its claim is on disk, and each when the one before has begun.

A process that dies must not take along what it never started. So of all that it has claimed one more than had begun is
unknown, at most.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.queue.steps import consumer as steps
from poste.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from poste.queue.hand import ClaimedTask, Hand

_log = logs.get("consumer")
#: The wait between two tries while Redis is away, in seconds.
_PAUSE_SECONDS: Final = 0.2


class Beginner:
    """Has what one incarnation holds begin."""

    def __init__(
        self,
        hand: Hand,
        *,
        start: Callable[[ClaimedTask], None],
        leave: Callable[[str], None],
        lost: Callable[[], None],
    ) -> None:
        """Prepare; `run` begins.

        Args:
            hand: What is claimed.
            start: Has a task's handler start.
            leave: Told by its key of a task that does not start.
            lost: Called if the lease is gone.
        """
        self._hand = hand
        self._start = start
        self._leave = leave
        self._lost = lost
        self._unsettled: list[ClaimedTask] = []
        self._some_unsettled = asyncio.Event()
        self._next: deque[ClaimedTask] = deque()
        #: The key of the task that was told to begin, until its handler has.
        self._beginning: str | None = None
        self._may_go_on = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def add(self, claimed: Sequence[ClaimedTask], *, on_disk: bool) -> None:
        """Take over what was claimed; if its claim is not known to be on disk, see to that first."""
        # In their order: not before what is waited for.
        if on_disk and not self._unsettled:
            self._next.extend(claimed)
            self._may_go_on.set()
        elif claimed:
            self._unsettled.extend(claimed)
            self._some_unsettled.set()

    def begun(self, key: str) -> None:
        """Note, from whichever thread, that a handler begins."""
        if threading.get_ident() == self._thread:
            self.not_beginning(key)
        else:
            self._loop.call_soon_threadsafe(self.not_beginning, key)

    def not_beginning(self, key: str) -> None:
        """Note that a handler has begun by now, or that it will not."""
        if self._beginning == key:
            self._beginning = None
            self._may_go_on.set()

    async def settle(self) -> None:
        """Wait for the disk where an answer is not from there, for all that is claimed at once, until cancelled."""
        hand = self._hand
        while True:
            await self._some_unsettled.wait()
            self._some_unsettled.clear()
            count = len(self._unsettled)
            while True:
                try:
                    if await hand.scripts.must_wait(hand.keys.queue):
                        await hand.scripts.sync(hand.keys.barrier)
                    break
                except StoreError as error:
                    _log.warning("claims not known to be on disk", queue=hand.keys.queue, error=str(error))
                    await asyncio.sleep(_PAUSE_SECONDS)
            self._next.extend(self._unsettled[:count])
            del self._unsettled[:count]
            self._may_go_on.set()

    async def run(self) -> None:
        """Have one begin after the other, until cancelled."""
        hand = self._hand
        while True:
            while self._beginning is not None or not self._next or hand.ending.is_set():
                self._may_go_on.clear()
                await self._may_go_on.wait()
            claimed = self._next.popleft()
            if hand.to_begin.get(claimed.key) is claimed:
                await self._begin(claimed)

    async def _begin(self, claimed: ClaimedTask) -> None:
        hand, keys, key = self._hand, self._hand.keys, claimed.key
        try:
            said = await steps.begin(hand.scripts, keys, hand.name, key, claimed.token)
        except StoreError as error:
            # It may be noted as begun, and is not: the audit has it claimed anew, which notes that.
            _log.warning("task not begun", queue=keys.queue, key=key, error=str(error))
            self._drop(key)
            await asyncio.sleep(_PAUSE_SECONDS)
            hand.audit_due.set()
            return
        # From here to its start nothing is waited for: what has begun runs.
        if said == "begun":
            del hand.to_begin[key]
            self._beginning = key
            self._start(claimed)
            if not hand.to_begin:
                hand.changed.set()
        elif said == "paused":
            await self._put_back()
        elif said == "fenced":
            self._lost()
        else:
            self._drop(key)

    async def _put_back(self) -> None:
        """Give back all that has not begun: the queue stands still."""
        hand, keys = self._hand, self._hand.keys
        # The oldest is put back last, so that it is taken first again.
        waiting = [*reversed(hand.to_begin.values())]
        returned = [steps.Returned(one.key, one.token, started=False) for one in waiting]
        try:
            await steps.give_back(hand.scripts, keys, hand.name, returned)
        except StoreError as error:
            _log.warning("giving back failed", queue=keys.queue, error=str(error))
            await asyncio.sleep(_PAUSE_SECONDS)
        # What was not put back stands in the list, and the audit adopts it.
        for one in waiting:
            self._drop(one.key)
        hand.audit_due.set()

    def _drop(self, key: str) -> None:
        del self._hand.to_begin[key]
        self._leave(key)
