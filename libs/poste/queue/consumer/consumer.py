"""Joins a queue, lives as one session after the other, and leaves.

One session is one lease. When the lease is refused (the process was stopped or cut off for longer than it lasts),
others have what it held; it joins again under a new name.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.queue.consumer.pops import Pops
from poste.queue.consumer.session import ConsumerSession
from poste.queue.consumer.shared_store import SharedStore
from poste.queue.consumer.state import ConsumerState, TaskHost
from poste.queue.keys import Keys
from poste.queue.steps import consumer as steps
from poste.runtime import logs, metrics
from poste.runtime.backoff import Backoff
from poste.runtime.waits import done_within

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from poste.domain.policy import MethodPolicy
    from poste.queue.consumer.task import Handle
    from poste.runtime.settings import ConsumerSettings

_log = logs.get("consumer")
#: Waits between tries while Redis is away, in seconds.
_FIRST_BACKOFF: Final = 0.1
_LAST_BACKOFF: Final = 1.0
#: A consumer that has not tried to pop for this long, in seconds, is deaf.
_DEAF_SECONDS: Final = 15.0


class Consumer:
    """Runs one queue's tasks in this process."""

    def __init__(
        self,
        *,
        queue: str,
        settings: ConsumerSettings,
        handle: Handle,
        live: Callable[[], bool] = lambda: False,
        concurrency: Callable[[], int | None] = lambda: None,
        limits: Callable[[], Mapping[str, MethodPolicy]] = dict,
        store: SharedStore | None = None,
    ) -> None:
        """Prepare; `run` begins.

        Args:
            queue: The queue's name.
            settings: Where Redis is, how much to take, how to keep the lease.
            handle: Runs a task's handler and reports its outcome. It is cancelled when the client asked for it
                (`cancel_requested`: report that), when the lease is lost, or when a stop's grace is over (report
                nothing). It may raise `NotRun`: the task goes back.
            live: Returns whether direct calls come in: tasks are then taken a few at a time.
            concurrency: Returns how many tasks may run at once, if that is fewer than the settings say.
            limits: Returns those methods whose tasks have a limit of their own.
            store: Redis, open while this runs: one for all consumers of a process; its own unless given.
        """
        self.queue = queue
        self._settings = settings
        self._store = store
        self._host = TaskHost(handle, live, concurrency, limits)
        self._keys = Keys(settings.key_prefix).of(queue)
        self._pops: Pops | None = None
        self._stopping = asyncio.Event()
        self._session: ConsumerSession | None = None
        self._begin = time.monotonic()

    def stop(self) -> None:
        """Take no more; `run` returns when what runs is done, or is given back because the grace is over."""
        self._stopping.set()
        if self._session is not None:
            self._session.end()

    def ready(self) -> str | None:
        """Return None if this consumer tried to pop lately, else why it is not ready."""
        if self._stopping.is_set():
            return f"{self.queue}: stopping"
        if self._pops is None or self._pops.answer_at is None:
            return f"{self.queue}: has not reached its queue yet"
        silent = self.silent_seconds()
        return None if silent < _DEAF_SECONDS else f"{self.queue}: has not tried to pop for {silent:.0f} s"

    def silent_seconds(self) -> float:
        """Return for how long this consumer has not tried to pop; 0 while it has no room for more."""
        if self._session is not None and self._session.full:
            return 0.0
        answer_at = None if self._pops is None else self._pops.answer_at
        return time.monotonic() - (self._begin if answer_at is None else answer_at)

    async def run(self) -> None:
        """Take and run tasks until `stop`; wait for Redis as long as it takes."""
        given = self._store
        async with contextlib.nullcontext(given) if given else SharedStore(self._settings).open() as store:
            self._pops = Pops(store.waits)
            store.waits.consumers += 1
            store.held.queues += 1
            metrics.consumer_silent_seconds.labels(self.queue).set_function(self.silent_seconds)
            try:
                await self._join_again(store, self._pops)
            finally:
                # A consumer that has stopped is not silent.
                metrics.consumer_silent_seconds.remove(self.queue)
                store.waits.consumers -= 1
                store.held.queues -= 1

    async def _join_again(self, store: SharedStore, pops: Pops) -> None:
        """Live as one session after the other, until `stop`."""
        pauses = Backoff(_FIRST_BACKOFF, _LAST_BACKOFF)
        while not self._stopping.is_set():
            name = secrets.token_hex(8)
            try:
                await steps.join(store.scripts, self._keys, name, lease_seconds=self._settings.lease_seconds)
            except StoreError as error:
                _log.warning("waiting for Redis", queue=self.queue, error=str(error))
                await self._pause(pauses.pause_seconds())
                continue
            pauses.reset()
            _log.info("joined", queue=self.queue, incarnation=name)
            state = ConsumerState(name, self._keys, self._settings, store.scripts, host=self._host, held=store.held)
            self._session = ConsumerSession(state, pops, store)
            if self._stopping.is_set():
                self._session.end()
            await self._session.run()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until the stop."""
        await done_within(seconds, self._stopping.wait())
