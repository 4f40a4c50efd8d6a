"""The reaper: takes back the tasks of processes that died, which is known by their leases.

Each step is safe to repeat, and to be done by several replicas at once.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.queue.connection import servers_of
from poste.queue.keys import KEYS, Keys, QueueKeys
from poste.queue.scripts import Scripts
from poste.queue.steps import maintenance as steps

if TYPE_CHECKING:
    import redis.asyncio as redis

#: Keys handled by one script call, so that no call blocks Redis for long.
_BATCH: Final = 200
#: How long a reaped consumer's list is still swept, in seconds: far longer than a command can be under way.
_REAPED_SECONDS: Final = 3600.0


class Reaper:
    """Takes back what dead consumers of the queues of one Redis held."""

    def __init__(self, client: redis.Redis, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client)

    async def reap(self, at: QueueKeys, tick: steps.Tick, *, max_crashes: int) -> Counter[str]:
        """Take back what consumers of a queue hold whose lease is over, and what reached those already reaped.

        Args:
            at: The queue's keys.
            tick: What the pass began with.
            max_crashes: How often a task may crash its process, alone, before it is DEAD.

        Returns:
            What became of the tasks, by the script's words for it.

        Raises:
            StoreError: Redis did not answer; the next pass goes on.
        """
        reaped = Counter[str]()
        for incarnation in await steps.ended_leases(self._scripts, at, tick.lease_clock):
            await self._reap(at, incarnation, max_crashes, reaped)
        await steps.forget_reaped(self._scripts, at, tick.now - _REAPED_SECONDS)
        for incarnation in await steps.reaped_to_sweep(self._scripts, at):
            await self._reap(at, incarnation, max_crashes, reaped)
        return reaped

    async def reap_orphans(self) -> int:
        """Note as reaped each incarnation that has a `taken:` list, no lease, and was not reaped.

        Returns:
            How many there were.

        Raises:
            StoreError: A server did not answer; the others were searched all the same.
        """
        reaped, trouble = 0, None
        for server in await servers_of(self._client):
            try:
                reaped += await self._reap_orphans(server)
            except StoreError as error:
                trouble = error
        if trouble is not None:
            raise trouble
        return reaped

    async def _reap_orphans(self, server: redis.Redis) -> int:
        reaped = 0
        for name in await steps.taken_lists(server, self._keys):
            queue, incarnation = self._keys.split_taken(name)
            at = self._keys.of(queue)
            if await steps.is_orphaned(self._scripts, at, incarnation):
                # The list is swept by the next pass.
                await steps.reap(self._scripts, at, incarnation, [], max_crashes=1)
                reaped += 1
        return reaped

    async def _reap(self, at: QueueKeys, incarnation: str, max_crashes: int, reaped: Counter[str]) -> None:
        taken = at.taken(incarnation)
        while True:
            # Oldest first. The script moves only what it still finds there, so a list that changes does no harm.
            keys = await steps.listed(self._scripts, at, taken, -_BATCH, -1)
            results = await steps.reap(self._scripts, at, incarnation, keys, max_crashes=max_crashes)
            reaped.update(results)
            if not keys or not results:
                return
