"""Memory budget per queue: over it no new calls are accepted, then no more are started.

Clients decide how many calls they make, how large these are and for how long results are kept. Without a budget one
client could fill Redis, and no call of any service could be queued any more. A queue's waiting tasks, dead letters and
kept results all count. Over its budget it accepts no new calls; accepted ones still run, and results are kept as
promised. But a small call may have a large result: so while ended tasks alone take the whole budget, no task of the
queue is started, until results' times to live are over or an operator purges.

If no `max_held_bytes` is set, a queue's budget is what Redis has free, which shrinks as the queue grows: one queue
alone stops at half of Redis' memory, two at a third each, and so on. So a queue that holds less than the others still
has room.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.domain.policy import DEFAULT_MAX_HELD_BYTES
from poste.queue.record import RECORD_BYTES
from poste.queue.steps.maintenance import Budget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poste.queue.store_health import StoreHealth
    from poste_mom.catalogue.catalogue import Catalogue

#: A queue's ended tasks may always take this share of its Redis' memory. Otherwise a Redis that is full of waiting
#: tasks would never be emptied: a task that ends takes a little more.
_ENDED_SHARE: Final = 1 / 16


class Budgets:
    """Reads the queues' budgets."""

    def __init__(self, catalogue: Catalogue, health: StoreHealth) -> None:
        self._catalogue = catalogue
        self._health = health

    async def of(self, queue: str) -> int:
        """Return how many bytes a queue may hold now.

        Raises:
            StoreUnreached, StoreNotRead: Which Redis holds the queue is not known.
        """
        service = self._catalogue.get(queue)
        if service is not None and service.policy.queue.max_held_bytes is not None:
            return service.policy.queue.max_held_bytes
        free = await self._health.free_bytes(queue)
        return DEFAULT_MAX_HELD_BYTES if free is None else free

    async def of_ended(self, queue: str) -> Budget:
        """Return how many bytes a queue's ended tasks may take before no more of its tasks are started.

        Raises:
            StoreUnreached, StoreNotRead: Which Redis holds the queue is not known.
        """
        service = self._catalogue.get(queue)
        if service is not None and service.policy.queue.max_held_bytes is not None:
            return Budget(service.policy.queue.max_held_bytes)
        limit = await self._health.limit_bytes(queue)
        return Budget(DEFAULT_MAX_HELD_BYTES) if limit is None else Budget(int(limit * _ENDED_SHARE), limit)

    async def spend(self, queue: str, sizes: Iterable[int]) -> None:
        """Subtract what was just written to a queue, requests or results, from the memory known as free.

        The figure is read from Redis only from time to time; the calls in between could fill a small Redis.

        Args:
            queue: The queue.
            sizes: The payloads' sizes, in bytes.
        """
        with contextlib.suppress(StoreError):
            await self._health.give(queue, sum(RECORD_BYTES + size for size in sizes))
