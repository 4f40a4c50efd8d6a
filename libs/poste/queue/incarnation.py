"""One incarnation of a consumer, from its join to its end: what happens under one lease.

Whatever it holds stands in its list `taken:<incarnation>`. The order of its end: take no more, finish what runs, give
the rest back, the lease last.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from poste.queue.auditing import audit
from poste.queue.connection import known_servers
from poste.queue.giving_back import end_running, finish_running, give_back
from poste.queue.hand import Hand, Handle
from poste.queue.lease import Lease
from poste.queue.putting_off import put_off
from poste.queue.taking import Taker
from poste.runtime import lifecycle, logs

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis.asyncio as redis

    from poste.queue.durability import Proof
    from poste.queue.keys import QueueKeys
    from poste.runtime.settings import WorkerSettings

_log = logs.get("consumer")


class Incarnation:
    """What one lease holds."""

    def __init__(
        self,
        *,
        name: str,
        keys: QueueKeys,
        settings: WorkerSettings,
        handle: Handle,
        control: redis.Redis,
        blocking: redis.Redis,
        blocking_client_id: Callable[[], int | None],
        tried_to_pop: Callable[[], None],
        live: Callable[[], bool],
        concurrency: Callable[[], int | None],
        proof: Proof,
    ) -> None:
        """Prepare; `run` begins. It has joined already.

        Args:
            name: The incarnation.
            keys: Its queue's keys.
            settings: How much to take, how long a stop may last.
            handle: Runs and reports one task.
            control: For everything that answers at once.
            blocking: For BLMOVE alone.
            blocking_client_id: Redis' id of the connection that BLMOVE blocks on.
            tried_to_pop: Called after each pop that Redis answered, and each look at a queue that stands still.
            live: Tells whether direct calls come in: those go first.
            concurrency: Tells how many tasks may run at once, if that is fewer than the settings say.
            proof: Tells what a reply of the queue's server proves.
        """
        self._hand = Hand(name, keys, settings, control, concurrency=concurrency, proof=proof)
        self._taker = Taker(
            self._hand,
            handle=handle,
            blocking=blocking,
            blocking_client_id=blocking_client_id,
            tried_to_pop=tried_to_pop,
            live=live,
            lost=self._lose,
        )
        self._refused = False

    @property
    def full(self) -> bool:
        """Whether nothing is taken now because there is no room for it."""
        return self._taker.full

    def end(self) -> None:
        """Take no more; `run` returns once nothing is in hand."""
        self._hand.ending.set()
        self._hand.changed.set()

    async def run(self) -> None:
        """Live until `end`, or until the lease is refused."""
        hand = self._hand
        lease = Lease(
            settings=hand.settings,
            keys=hand.keys,
            incarnation=hand.name,
            servers=known_servers(hand.control, hand.settings),
            refused=self._lose,
        )
        lease.start()
        try:
            async with asyncio.TaskGroup() as group:
                taking = group.create_task(self._taker.run())
                auditing = group.create_task(audit(hand))
                beginner = self._taker.beginner
                beginning = [group.create_task(beginner.settle()), group.create_task(beginner.run())]
                putting_off = group.create_task(put_off(hand))
                try:
                    await hand.ending.wait()
                    await self._taker.stop(taking)
                    await lifecycle.end([auditing, *beginning])
                    if not self._refused:
                        await finish_running(hand, lambda: self._refused)
                finally:
                    # Also when one of them failed: the group cancels the others once, which is not always enough.
                    await lifecycle.end([taking, auditing, *beginning, putting_off])
                    await end_running(hand)
        finally:
            try:
                if not self._refused:
                    await give_back(hand)
            finally:
                # Last of all: until here somebody must not take what is in hand.
                await lease.close()

    def _lose(self) -> None:
        """Drop everything: the lease is gone, and with it the right to what is in hand."""
        _log.warning("lease lost", queue=self._hand.keys.queue, incarnation=self._hand.name)
        self._refused = True
        self.end()
