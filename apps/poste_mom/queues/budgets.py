"""How much of Redis' memory each queue may take, by all that it holds: what waits, what is DEAD, results that are kept.

A client decides how many calls come, how large they are and for how long their results are kept; so one alone could
fill Redis, and the queued road be closed for everybody. Beyond its budget a queue takes no new calls; what it has
accepted is done and kept as promised. But a call of some bytes may have a result of many: so while what ended takes
all of its queue's budget, no more is started. What waits goes on waiting, until results' times are over or an operator
purges.

Where nobody says how much, it is as much as Redis has left. A queue that grows makes that less: alone it stops at half
of what there is, two at a third each, and so on. So there is always room for one that holds less than the others.
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

#: What ended in a queue may always take this share of what its Redis takes. Were it none, a Redis that is full of what
#: waits, with nothing left to share, would never be emptied: what ends must take a little.
_ENDED_SHARE: Final = 1 / 16


class Budgets:
    """What the queues may hold."""

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
        """Return how many bytes what ended in a queue may take before no more of it is started.

        Raises:
            StoreUnreached, StoreNotRead: Which Redis holds the queue is not known.
        """
        service = self._catalogue.get(queue)
        if service is not None and service.policy.queue.max_held_bytes is not None:
            return Budget(service.policy.queue.max_held_bytes)
        limit = await self._health.limit_bytes(queue)
        return Budget(DEFAULT_MAX_HELD_BYTES) if limit is None else Budget(int(limit * _ENDED_SHARE), limit)

    async def spend(self, queue: str, sizes: Iterable[int]) -> None:
        """Note what a queue was just given: the sizes of what was accepted for it, or of results.

        A second's calls would fill a small Redis before anybody looks again how much is free.
        """
        with contextlib.suppress(StoreError):
            await self._health.give(queue, sum(RECORD_BYTES + size for size in sizes))
