"""A service's process, from its start to its stop: `poste.serve`.

It serves at once, though the middleware or Redis may be late, and stops in this order: not ready, take no more, finish
what runs (up to the grace), give the rest back, the lease last, close.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import grpc.aio

from poste.domain import traceparents
from poste.domain.errors import PosteError, StartError
from poste.domain.shown import visible
from poste.queue.consumer import ClaimedTask, Consumer
from poste.rpc.replicated import Replicated
from poste.runtime import admin, leaving, lifecycle, logs, metrics, tracing
from poste.runtime.addresses import path_of
from poste.runtime.environment import load
from poste.runtime.settings import WorkerSettings
from poste.service.direct import DirectRoad
from poste.service.handlers import Runner
from poste.service.interception import Interception
from poste.service.isolation import Isolation
from poste.service.losses import ThreadWatch
from poste.service.queued import QueuedHandlers, QueuedRoad
from poste.service.register import Registration
from poste.service.report import Reporter
from poste.service.servicer import ServedService, services_of
from poste.service.terms import Terms

_log = logs.get("service")
#: The gRPC port if neither the servicer nor `POSTE_PORT` names one.
DEFAULT_PORT: Final = 50052


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
    ) -> QueueConsumer: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a process listens: for gRPC, and for probes and metrics."""

    grpc: int
    admin: int


def serve(
    *servicers: object,
    port: int | None = None,
    name: str | None = None,
    isolated: Collection[str] = (),
    hard_timeout_seconds: float | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> None:
    """Serve gRPC servicers on both roads until SIGTERM or SIGINT; blocks, and ends the process if that goes wrong.

    Configured by `POSTE_*` variables (`poste.runtime.settings.WorkerSettings`).

    Args:
        servicers: Instances of classes that extend generated `…Servicer` classes.
        port: The gRPC port if `POSTE_PORT` is not set; else the servicer's `default_port`, or 50052.
        name: What the logs call this process; the first service's name unless given.
        isolated: `def` methods (`Method`, or `package.Service/Method`) that run in processes of their own, which are
            ended when a call's time is over: for what may hang or crash in native code. Their servicers are copied
            (pickled), and the program's own start must stand behind `if __name__ == "__main__":`. Needs the extra
            `poste[isolated]`.
        hard_timeout_seconds: How long an isolated handler may run at most, whatever its caller allows.
        interceptors: What every call goes through, whichever road it came by, the first one outermost. Not together
            with `isolated`.

    Raises:
        SystemExit: It could not start (2), or a part of it died (1).
    """
    try:
        services = services_of(servicers)
        settings = load(WorkerSettings)
        part = name or _part_name(services[0])
        tracing.configure(part)
        isolation = None
        if isolated:
            _refuse_both(interceptors)
            isolation = Isolation(servicers, services, isolated, hard_timeout_seconds=hard_timeout_seconds)
    except StartError as error:
        print(f"poste: {visible(str(error))}", file=sys.stderr)  # noqa: T201 - for the person who started it
        raise SystemExit(2) from error
    settings = _beside_its_middleware(settings)
    if settings.port is None:
        defaults = [port, *(getattr(servicer, "default_port", None) for servicer in servicers), DEFAULT_PORT]
        settings = settings.model_copy(update={"port": next(one for one in defaults if one is not None)})
    logs.configure(settings, part)
    code = lifecycle.run(lambda stop: run(services, settings, stop, isolation=isolation, interceptors=interceptors))
    if code:
        raise SystemExit(code)


async def run(
    services: Sequence[ServedService],
    settings: WorkerSettings,
    stop: asyncio.Event,
    *,
    listening: Callable[[Ports], object] = lambda _: None,
    consumer: MakeConsumer = Consumer,
    isolation: Isolation | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> None:
    """Serve until `stop`.

    Args:
        services: What is served (`services_of`).
        settings: How.
        stop: Ends it in order, once set.
        listening: Called with the port, as soon as it listens.
        consumer: Makes what takes the tasks of a queue.
        isolation: Has processes for some handlers; None if all are run here.
        interceptors: What every call goes through.

    Raises:
        StartError: A port is taken.
        PosteError: All threads of a service were lost for too long, and it stopped for that.
    """
    # What the process does itself is in no trace, nor is a call that is not recorded: every call's task begins so.
    tracing.silence(traceparents.UNRECORDED)
    for service in services:
        metrics.expect(service.name)
    worker = _Worker(services, settings, consumer, isolation, interceptors)
    try:
        port = await worker.listen()

        def ready() -> str | None:
            return "stopping" if stop.is_set() else worker.ready()

        async with admin.serving(settings.admin_host or settings.host, settings.probes_port(), ready) as admin_port:
            listening(Ports(port, admin_port))
            where = {"port": port} if settings.socket is None else {"socket": str(settings.socket)}
            _log.info("serving", **where, admin_port=admin_port, services=[service.name for service in services])
            await worker.work(stop, port)
    finally:
        await worker.close()
    _log.info("stopped")
    if worker.threads.over:
        raise PosteError(f"ended by itself: {worker.threads.reason}")


class _Worker:
    """Both roads of a process, and what it says to the middleware.

    Attributes:
        threads: Watches whether a service has lost all its threads.
    """

    def __init__(
        self,
        services: Sequence[ServedService],
        settings: WorkerSettings,
        consumer: MakeConsumer,
        isolation: Isolation | None,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
    ) -> None:
        self._services, self._settings, self._isolation = services, settings, isolation
        interception = Interception(interceptors) if interceptors else None
        self._runner = Runner("direct", threads=settings.concurrency, isolation=isolation, interception=interception)
        self._direct = DirectRoad(
            services, self._runner, max_calls=settings.max_direct_calls, interceptors=interceptors
        )
        self._channel = Replicated(settings.mom)
        self._queued = _Queued(
            services, settings, Reporter(self._channel), consumer, self._direct.live,
            isolation=isolation, interception=interception,
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
        async with lifecycle.side_tasks(self._channel.run(), queued.reporter.run()), asyncio.TaskGroup() as consuming:
            for one in queued.consumers:
                consuming.create_task(_consume(one, stop))
            async with lifecycle.side_tasks(self.threads.run(stop), *(one.run() for one in registrations)):
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


def _refuse_both(interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
    """Refuse interceptors where there are isolated handlers: they would be passed by."""
    if interceptors:
        raise StartError("isolated and interceptors can't be had together: no interceptor is in another process")


def _beside_its_middleware(settings: WorkerSettings) -> WorkerSettings:
    """Have a service whose middleware is reached by a socket listen by one too, in the same folder, unless it is set.

    A socket's permissions keep other users out: they must not be able to call the services behind it either.
    """
    middleware = path_of(settings.mom)
    if middleware is None or settings.socket is not None or settings.port is not None:
        return settings
    return settings.model_copy(
        update={"socket": middleware.with_name(f"worker-{secrets.token_hex(4)}.sock"), "port": 0}
    )


class _Queued:
    """The queued road of every service: a consumer each, one reporter for all."""

    def __init__(
        self,
        services: Sequence[ServedService],
        settings: WorkerSettings,
        reporter: Reporter,
        consumer: MakeConsumer,
        live: Callable[[], bool],
        *,
        isolation: Isolation | None,
        interception: Interception | None,
    ) -> None:
        self.reporter = reporter
        self.runner = Runner("queued", threads=settings.concurrency, isolation=isolation, interception=interception)
        self.terms = {service.name: Terms(service) for service in services}
        self.consumers = [
            consumer(
                queue=service.name,
                settings=settings,
                handle=QueuedRoad(QueuedHandlers(service, self.runner, self.terms[service.name]).run, reporter).handle,
                live=live,
                concurrency=functools.partial(self._concurrency, service.name, settings.concurrency),
            )
            for service in services
        ]

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


def _part_name(service: ServedService) -> str:
    return service.name.rpartition(".")[2].removesuffix("Service").lower() or service.name
