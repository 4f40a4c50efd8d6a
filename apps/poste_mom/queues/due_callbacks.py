"""Finds what is due to be told to clients' URLs, in whichever queue, while a gateway asks for it.

The end of a task that is to be told is published, and its queue looked at then; all queues are looked at every few
seconds, for back-offs and leases that are over, and for ends that were not heard of.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.runtime import logs
from poste.runtime.waits import done_within

if TYPE_CHECKING:
    from poste.queue.callbacks import Callback, Callbacks
    from poste.queue.queues import Queues

#: How often all queues are looked at, in seconds.
_ALL_SECONDS: Final = 2.0
#: How long a look that found nothing is not repeated, in seconds, however many ends are published.
_PAUSE_SECONDS: Final = 0.05
_log: Final = logs.get("due_callbacks")


class DueCallbacks:
    """What is due in all queues."""

    def __init__(self, callbacks: Callbacks, queues: Queues) -> None:
        self._callbacks, self._queues = callbacks, queues
        #: The queues in which something may be due.
        self._hopeful: set[str] = set()
        self._news = asyncio.Event()

    def heard(self, queue: str) -> None:
        """Note that a task of a queue has ended."""
        self._hopeful.add(queue)
        self._news.set()

    async def lease(self, *, count: int, wait_seconds: float) -> list[tuple[str, Callback]]:
        """Lease what is due, `count` at most, waiting so many seconds for some; each with its queue.

        Raises:
            StoreError: Which queues there are is not known.
        """
        loop = asyncio.get_running_loop()
        end, all_due = loop.time() + wait_seconds, 0.0
        while True:
            if loop.time() >= all_due:
                all_due = loop.time() + _ALL_SECONDS
                self._hopeful.update(await self._queues.names())
            self._news.clear()
            found = await self._lease_some(count)
            left = end - loop.time()
            if found or left <= 0:
                return found
            await asyncio.sleep(_PAUSE_SECONDS)
            await done_within(min(left, max(0.0, all_due - loop.time())), self._news.wait())

    async def _lease_some(self, count: int) -> list[tuple[str, Callback]]:
        found: list[tuple[str, Callback]] = []
        while self._hopeful and len(found) < count:
            queue = self._hopeful.pop()
            wanted = count - len(found)
            try:
                some = await self._callbacks.lease(queue, count=wanted)
            except StoreError as error:
                _log.warning("waiting for Redis", queue=queue, error=str(error))
                continue
            if len(some) == wanted:
                # There may be more of them.
                self._hopeful.add(queue)
            found += [(queue, one) for one in some]
        return found
