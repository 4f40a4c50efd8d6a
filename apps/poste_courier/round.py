"""One service's round: the consumer of its queue, and the replicas that its tasks are delivered to."""

from __future__ import annotations

import asyncio
from typing import Final

from poste.queue.consumer import Consumer
from poste.rpc.catalogue import Service
from poste.runtime import lifecycle, logs, metrics
from poste.runtime.settings import CourierSettings
from poste.service.queued import QueuedRoad
from poste.service.report import Reporter
from poste.upstream.replica_pool import ReplicaPool, Spawn
from poste_courier.concurrency_limit import ConcurrencyLimit
from poste_courier.delivery import Delivery

#: How often it is looked whether the service is there, in seconds.
_LOOK_SECONDS: Final = 0.1

_log: Final = logs.get("round")


class Round:
    """Delivers one service's tasks while the service is there; while it is not, takes none."""

    def __init__(self, service: Service, settings: CourierSettings, reporter: Reporter, spawn: Spawn) -> None:
        """Prepare; `run` begins.

        Args:
            service: The service as the catalogue has it.
            settings: How much to take, how to keep the lease.
            reporter: Reports what calls ended with.
            spawn: Starts the tasks that watch over the replicas.
        """
        self.name = service.name
        self._most = settings.concurrency
        self._pool = ReplicaPool(service.name, spawn)
        self._limit = ConcurrencyLimit(settings.concurrency)
        self._delivery = Delivery(service, self._pool, self._limit)
        self._consumer = Consumer(
            queue=service.name,
            settings=settings,
            handle=QueuedRoad(self._delivery.run, reporter).handle,
            concurrency=self._concurrency,
        )
        self._up = False
        self._told = 0
        metrics.task_wait_seconds.expect((service.name,))
        metrics.task_attempts.expect((service.name,))
        metrics.delivery_seconds.expect((service.name,))
        self.update(service)

    def update(self, service: Service) -> None:
        """Take over what the catalogue says now."""
        self._delivery.service = service
        self._pool.update(
            service.targets,
            library=False,
            max_in_flight=service.policy.max_in_flight,
            lacking=service.lacking,
        )

    def ready(self) -> str | None:
        """Return None if the queue is taken from, or the service is away, else why it is not."""
        return self._consumer.ready() if self._up else None

    def stop(self) -> None:
        """Take no more; `run` returns when what runs is done, or is given back because the grace is over."""
        self._consumer.stop()

    async def run(self) -> None:
        """Deliver until `stop`."""
        try:
            async with lifecycle.side_tasks(self._look()):
                await self._consumer.run()
        finally:
            metrics.delivery_limit.add((self.name,), -self._told)
            await self._pool.close()

    async def _look(self) -> None:
        """Notice when the service comes and goes, for ever."""
        while True:
            up = self._pool.availability != "away"
            if up and not self._up:
                self._limit.restart()
                _log.info("delivering", service=self.name)
            elif self._up and not up:
                _log.info("service away", service=self.name)
            self._up = up
            told = self._concurrency()
            metrics.delivery_limit.add((self.name,), told - self._told)
            self._told = told
            await asyncio.sleep(_LOOK_SECONDS)

    def _concurrency(self) -> int:
        """How many of the service's tasks may run at once: none before it is there."""
        if not self._up or self._pool.availability == "away":
            return 0
        said = self._delivery.service.policy.concurrency
        return min(self._limit.now, self._most if said is None else said)
