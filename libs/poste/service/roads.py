"""Both roads of a service's process: what listens, what takes tasks, and what registers the services.

It stops in this order: take no more, finish what runs (up to the grace), give the rest back, the lease last.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import grpc.aio

from poste.domain.errors import PosteError
from poste.domain.policy import MethodPolicy
from poste.queue.consumer import ClaimedTask, SharedStore
from poste.rpc.credentials import Credentials, duties
from poste.rpc.replicated import Replicated
from poste.runtime import leaving, lifecycle
from poste.runtime.settings import WorkerSettings
from poste.service.direct_road import DirectRoad
from poste.service.handlers import Runner
from poste.service.interception import Interception
from poste.service.isolation import Isolation
from poste.service.losses import ThreadWatch
from poste.service.queued_road import QueuedHandlers, QueuedRoad
from poste.service.recycling import Recycling
from poste.service.register import Registration
from poste.service.report import Reporter
from poste.service.schemas import Schemas
from poste.service.servicer import ServedService
from poste.service.terms import Terms


class QueueConsumer(Protocol):
    """What takes tasks from a queue: `poste.queue.consumer.Consumer`, or a test's own."""

    def ready(self) -> str | None: ...  # noqa: D102 - as in Consumer
    async def run(self) -> None: ...  # noqa: D102 - as in Consumer
    def stop(self) -> None: ...  # noqa: D102 - as in Consumer


class MakeConsumer(Protocol):
    """Makes the consumer of one queue."""

    def __call__(  # noqa: D102 - as in Consumer
        self,
        *,
        queue: str,
        settings: WorkerSettings,
        handle: Callable[[ClaimedTask], Awaitable[None]],
        live: Callable[[], bool],
        concurrency: Callable[[], int | None],
        limits: Callable[[], Mapping[str, MethodPolicy]],
        store: SharedStore,
    ) -> QueueConsumer: ...


class Roads:
    """Both roads of a process, and what it says to the middleware.

    Attributes:
        threads: Watches whether a service has lost all its threads.
        recycling: Watches whether the process has done as much as it may.
    """

    def __init__(
        self,
        services: Sequence[ServedService],
        settings: WorkerSettings,
        consumer: MakeConsumer,
        isolation: Isolation | None,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
    ) -> None:
        """Connect the parts; see `poste.service.process.run`."""
        self._services, self._settings, self._isolation = services, settings, isolation
        interception = Interception(interceptors) if interceptors else None
        self._runner = Runner("direct", threads=settings.concurrency, isolation=isolation, interception=interception)
        self._credentials = Credentials.of(settings)
        self._direct = DirectRoad(
            services,
            self._runner,
            max_calls=settings.max_direct_calls,
            interceptors=interceptors,
            credentials=self._credentials,
        )
        self._channel = Replicated(settings.mom, self._credentials)
        self.recycling = Recycling(max_tasks=settings.max_tasks, max_memory_bytes=settings.max_memory_bytes)
        self._queued = _Queued(
            services, settings, Reporter(self._channel), Schemas(self._channel), consumer,
            live=self._direct.live, isolation=isolation, interception=interception, count=self.recycling.count,
        )  # fmt: skip
        runners = (self._runner, self._queued.runner)
        for runner in runners:
            leaving.watch(runner.calling)
        self.threads = ThreadWatch(runners, settings.threads_lost_seconds)

    def ready(self) -> str | None:
        """Return None if it runs calls of both roads, else why not."""
        return self.threads.reason or self._queued.ready()

    async def listen(self) -> int:
        """Listen for gRPC, at the port or the socket that is set; returns the port, 0 if it is a socket."""
        port = self._settings.port or 0
        if self._settings.socket is None:
            return await self._direct.listen(self._settings.host, port)
        await self._direct.listen_at(self._settings.socket)
        return port

    async def work(self, stop: asyncio.Event, port: int) -> None:
        """Register, and run calls of both roads until `stop`; then finish what runs, and give the rest back."""
        direct, queued, settings = self._direct, self._queued, self._settings
        registrations = [
            Registration(self._channel, service, settings, port, queued.terms[service.name])
            for service in self._services
        ]
        async with (
            lifecycle.side_tasks(self._channel.run(), queued.reporter.run(), *duties(self._credentials)),
            queued.store.open(),
            asyncio.TaskGroup() as consuming,
        ):
            for one in queued.consumers:
                consuming.create_task(_consume(one, stop))
            watches = (self.threads.run(stop), self.recycling.run(stop))
            async with lifecycle.side_tasks(*watches, *(one.run() for one in registrations)):
                await stop.wait()
            # The group waits for the consumers: each has finished, or given back, all that it held.
            for one in queued.consumers:
                one.stop()
            await asyncio.gather(
                direct.drain(settings.grace_seconds), *(one.withdraw() for one in registrations if one.known)
            )

    async def close(self) -> None:
        """Close what listens and what is connected; end the threads and processes that are idle."""
        await self._direct.close()
        self._runner.close()
        self._queued.runner.close()
        if self._isolation is not None:
            self._isolation.close()
        await self._channel.close()


class _Queued:
    """The queued road of every service: a consumer each, one reporter and one way to Redis for all."""

    def __init__(
        self,
        services: Sequence[ServedService],
        settings: WorkerSettings,
        reporter: Reporter,
        schemas: Schemas,
        consumer: MakeConsumer,
        *,
        live: Callable[[], bool],
        isolation: Isolation | None,
        interception: Interception | None,
        count: Callable[[], object],
    ) -> None:
        self.reporter = reporter
        self.store = SharedStore(settings)
        self.runner = Runner("queued", threads=settings.concurrency, isolation=isolation, interception=interception)
        self.terms = {service.name: Terms(service) for service in services}
        self.consumers = [
            consumer(
                queue=service.name,
                settings=settings,
                handle=self._road(service, reporter, schemas, count).handle,
                live=live,
                concurrency=functools.partial(self._concurrency, service.name, settings.concurrency),
                limits=self.terms[service.name].limits,
                store=self.store,
            )
            for service in services
        ]

    def _road(
        self, service: ServedService, reporter: Reporter, schemas: Schemas, count: Callable[[], object]
    ) -> QueuedRoad:
        handlers = QueuedHandlers(service, self.runner, self.terms[service.name])
        return QueuedRoad(handlers.run, reporter, schemas, handlers.schemas_of, count)

    def _concurrency(self, service: str, most: int) -> int:
        """How many of a service's tasks may run at once: a handler that goes on in its thread has the place it had."""
        said = self.terms[service].concurrency()
        # Whichever the next one is, there is a thread for it.
        free = most - self.runner.lost(service)
        return free if said is None else min(said, free)

    def ready(self) -> str | None:
        """Return None if every consumer takes from its queue, else why one does not."""
        return next((reason for one in self.consumers if (reason := one.ready()) is not None), None)


async def _consume(consumer: QueueConsumer, stop: asyncio.Event) -> None:
    await consumer.run()
    if not stop.is_set():
        raise PosteError("a consumer ended by itself")
