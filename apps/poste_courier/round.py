"""One service's round: the replicas that its tasks are delivered to, and while there are some a consumer of its queue.

Without them it takes nothing, and holds no lease: a queue without a consumer is seen as one.
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc.aio

from poste.domain.errors import CatalogueError
from poste.queue.consumer import ClaimedTask, Consumer, SharedStore
from poste.rpc.catalogue import Service, describe
from poste.rpc.reflection import NoReflection, ReflectionError, read_services
from poste.rpc.target_trust import TargetTrust
from poste.runtime import lifecycle, logs, metrics
from poste.runtime.settings import CourierSettings
from poste.runtime.waits import done_within
from poste.service.queued_road import QueuedRoad
from poste.service.report import Reporter
from poste.service.schemas import Schemas
from poste.upstream.answer_turns import AnswerTurns
from poste.upstream.replica import Served
from poste.upstream.replica_pool import ReplicaPool, Spawn
from poste.v1 import catalogue_pb2
from poste_courier.concurrency_limit import ConcurrencyLimit
from poste_courier.delivery import Delivery

#: How often it is looked whether the service is there, in seconds: after a change, and without one.
_SOON_SECONDS: Final = 0.05
_LOOK_SECONDS: Final = 1.0
#: How long a replica may take to be read, in seconds.
_READ_SECONDS: Final = 5.0
#: How long the service is away before its queue is left, in seconds: connections end by their age, too.
_LEAVE_SECONDS: Final = 3.0

_log: Final = logs.get("round")


class Round:
    """Delivers one service's tasks while the service is there."""

    def __init__(
        self,
        service: Service,
        settings: CourierSettings,
        *,
        store: SharedStore,
        reporter: Reporter,
        schemas: Schemas,
        spawn: Spawn,
        turns: AnswerTurns,
        trust: TargetTrust,
    ) -> None:
        """Prepare; `run` begins.

        Args:
            service: The service as the catalogue has it.
            settings: How much to take, how to keep the lease.
            store: Redis, one for all rounds.
            reporter: Reports what calls ended with.
            schemas: Judges what was accepted under another schema.
            spawn: Starts the tasks that watch over the replicas.
            turns: Gives large answers their turns to be read: one for all rounds.
            trust: Whom services are believed to be that are called over TLS: one for all rounds.
        """
        self.name = service.name
        self._settings = settings
        self._store = store
        self._pool = ReplicaPool(service.name, spawn, turns, read=self._read, trust=trust)
        self._limit = ConcurrencyLimit(settings.concurrency)
        self._delivery = Delivery(service, self._pool, self._limit, held=store.held, schemas=schemas)
        self._road = QueuedRoad(self._delivery.run, reporter, schemas, self._delivery.schemas_of)
        #: How many tasks are under way: to be delivered, or delivered and not reported yet.
        self._under_way = 0
        self._consumer: Consumer | None = None
        self._leaving = False
        self._stopping = False
        #: The service is there, and was a moment ago; or this is to end.
        self._go = asyncio.Event()
        self._up = False
        self._told = 0
        metrics.task_wait_seconds.expect((service.name,))
        metrics.task_attempts.expect((service.name,))
        metrics.delivery_seconds.expect((service.name,))
        self.update(service)

    async def _read(self, channel: grpc.aio.Channel) -> Served | None:
        """Read what a replica serves: what comes back may be of another version, and the catalogue learn of it later.

        Raises:
            ReflectionError: It does not say so now.
        """
        if not self._delivery.service.entry.reflect:
            return None
        try:
            found = await read_services(channel, timeout_seconds=_READ_SECONDS)
        except NoReflection:
            return None
        entry = catalogue_pb2.CatalogueService(name=self.name, file_descriptor_set=found.get(self.name, b""))
        if not entry.file_descriptor_set:
            return {}
        try:
            return {name: method.schema for name, method in describe(entry).methods.items()}
        except CatalogueError as error:
            raise ReflectionError(str(error)) from error

    def update(self, service: Service) -> None:
        """Take over what the catalogue says now."""
        self._delivery.service = service
        self._pool.update(
            service.targets,
            library=False,
            max_in_flight=service.policy.max_in_flight,
            lacking=service.lacking,
            unlike=service.unlike,
            target_tls=service.entry.target_tls,
        )

    def ready(self) -> str | None:
        """Return None if the queue is taken from, or the service is away, else why it is not."""
        if not self._up:
            return None
        return f"{self.name}: has not reached its queue yet" if self._consumer is None else self._consumer.ready()

    def leave(self) -> None:
        """Take no more; `run` returns when what runs is done, however long that takes."""
        self._leaving = True
        self._pool.look_again()

    def stop(self) -> None:
        """Take no more; `run` returns when what runs is done, or is given back because the grace is over."""
        self._stopping = True
        self._go.set()
        if self._consumer is not None:
            self._consumer.stop()

    async def run(self) -> None:
        """Deliver until `stop`."""
        try:
            async with lifecycle.side_tasks(self._look()):
                while not self._stopping:
                    await self._go.wait()
                    if not self._stopping:
                        await self._consume()
        finally:
            metrics.delivery_limit.add((self.name,), -self._told)
            await self._pool.close()

    async def _consume(self) -> None:
        """Take from the queue until the service is away, or this is to end."""
        self._consumer = Consumer(
            queue=self.name,
            settings=self._settings,
            handle=self._handle,
            concurrency=self._concurrency,
            limits=lambda: self._delivery.service.policy.limited,
            store=self._store,
        )
        try:
            await self._consumer.run()
        finally:
            self._consumer = None

    async def _handle(self, task: ClaimedTask) -> None:
        self._under_way += 1
        try:
            await self._road.handle(task)
        finally:
            self._delivery.over(task)
            self._under_way -= 1

    async def _look(self) -> None:
        """Notice when the service comes and goes, for ever."""
        loop = asyncio.get_running_loop()
        seen_at = loop.time()
        while True:
            up = self._pool.availability != "away"
            if up:
                seen_at = loop.time()
                if not self._up:
                    self._limit.restart()
                    _log.info("service there", service=self.name)
                self._go.set()
            elif self._up:
                _log.info("service away", service=self.name)
            self._up = up
            # What is under way goes on at a service that takes no more, and so does what is not reported yet, for the
            # middleware is away: cut off, its outcome would be unknown.
            gone = self._leaving or loop.time() - seen_at > _LEAVE_SECONDS
            if gone and not self._under_way and not self._stopping:
                self._go.clear()
                if self._consumer is not None:
                    self._consumer.stop()
                if self._leaving:
                    self.stop()
            told = self._concurrency()
            metrics.delivery_limit.add((self.name,), told - self._told)
            self._told = told
            # Few wake-ups, for there may be a thousand services; and not one for each call's end. Of what time alone
            # changes there is nothing while all is well, nor once the queue was left and no connection is there.
            settled = (up and not self._leaving) or not (up or self._go.is_set() or self._pool.shunned)
            await done_within(None if settled else _LOOK_SECONDS, self._pool.changed())
            await asyncio.sleep(_SOON_SECONDS)

    def _concurrency(self) -> int:
        """How many of the service's tasks may run at once: none while it is away."""
        if self._leaving or not self._up or self._pool.availability == "away":
            return 0
        policy = self._delivery.service.policy
        # What finds no place at a replica would be claimed and put off, again and again.
        ready, _ = self._pool.counts
        most = min(self._limit.now, ready * policy.max_in_flight)
        return most if policy.concurrency is None else min(most, policy.concurrency)
