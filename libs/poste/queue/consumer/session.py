"""One session of a consumer, from its join to its end: what happens under one lease.

The order of its end: take no more, finish what runs, give the rest back, the lease last.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from poste.queue.consumer.beginner import Beginner
from poste.queue.consumer.fetcher import Fetcher
from poste.queue.consumer.give_back import end_running, finish_running, give_back
from poste.queue.consumer.lanes import Lanes
from poste.queue.consumer.put_off import put_off
from poste.queue.consumer.reconcile import reconcile
from poste.queue.consumer.renewal import Lease
from poste.queue.consumer.task_runner import TaskRunner
from poste.runtime import lifecycle

if TYPE_CHECKING:
    from poste.queue.consumer.pops import Pops
    from poste.queue.consumer.shared_store import SharedStore
    from poste.queue.consumer.state import ConsumerState


class ConsumerSession:
    """What one lease holds. It has joined already; `run` begins."""

    def __init__(self, state: ConsumerState, pops: Pops, store: SharedStore) -> None:
        self._state = state
        self._store = store
        runner = TaskRunner(state)
        self._beginner = Beginner(state, runner)
        self._pops, self._lanes = pops, Lanes(state)
        self._fetcher = Fetcher(state, pops, runner, self._beginner, self._lanes)

    @property
    def full(self) -> bool:
        """Whether nothing is taken now because there is no room for it."""
        return self._fetcher.full

    def end(self) -> None:
        """Take no more; `run` returns once nothing is held."""
        self._state.end()

    async def run(self) -> None:
        """Live until `end`, or until the lease is refused."""
        state = self._state
        lease = Lease(state.keys, state.name, state.fence)
        self._store.leases.keep(lease)
        self._store.sessions.add(state)
        try:
            async with asyncio.TaskGroup() as group:
                fetching = group.create_task(self._fetcher.run())
                reconciling = group.create_task(reconcile(state, self._lanes, self._pops))
                beginning = [group.create_task(one) for one in (self._beginner.settle(), self._beginner.run())]
                putting_off = group.create_task(put_off(state))
                try:
                    await state.ending.wait()
                    await self._fetcher.stop(fetching)
                    await lifecycle.end(beginning)
                    await finish_running(state)
                finally:
                    # Also when one of them failed: the group cancels the others once, which is not always enough.
                    await lifecycle.end([fetching, reconciling, *beginning, putting_off])
                    await end_running(state)
        finally:
            self._store.sessions.remove(state)
            try:
                if not state.fenced:
                    await give_back(state)
            finally:
                # Last of all: until here no other process may take what is held.
                self._store.leases.drop(lease)
                state.let_go()
