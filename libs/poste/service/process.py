"""A service's process, from its start to its stop: `poste.serve`.

It serves at once, though the middleware or Redis may be late, and stops in this order: not ready, take no more, finish
what runs (up to the grace), give the rest back, the lease last, close.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import grpc.aio

from poste.domain import traceparents
from poste.domain.errors import PosteError, StartError
from poste.domain.shown import visible
from poste.queue.consumer import Consumer
from poste.runtime import admin, lifecycle, logs, metrics, tracing
from poste.runtime.addresses import path_of
from poste.runtime.environment import load
from poste.runtime.settings import WorkerSettings
from poste.service.isolation import Isolation
from poste.service.roads import MakeConsumer, Roads
from poste.service.servicer import ServedService, services_of

_log = logs.get("service")
#: The gRPC port if neither the servicer nor `POSTE_PORT` names one.
DEFAULT_PORT: Final = 50052


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
        SystemExit: It could not start (2), a part of it died (1), or it is to be started anew (`lifecycle.RESTART`).
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
        lifecycle.RestartWanted: It has done as much as it may (`POSTE_MAX_TASKS`, `POSTE_MAX_MEMORY_BYTES`).
    """
    # What the process does itself is in no trace, nor is a call that is not recorded: every call's task begins so.
    tracing.silence(traceparents.UNRECORDED)
    for service in services:
        metrics.expect(service.name)
    roads = Roads(services, settings, consumer, isolation, interceptors)
    try:
        port = await roads.listen()

        def ready() -> str | None:
            return "stopping" if stop.is_set() else roads.ready()

        async with admin.serving(settings.admin_host or settings.host, settings.probes_port(), ready) as admin_port:
            listening(Ports(port, admin_port))
            where = {"port": port} if settings.socket is None else {"socket": str(settings.socket)}
            _log.info("serving", **where, admin_port=admin_port, services=[service.name for service in services])
            await roads.work(stop, port)
    finally:
        await roads.close()
    _log.info("stopped")
    if roads.recycling.reason is not None:
        raise lifecycle.RestartWanted(roads.recycling.reason)
    if roads.threads.over:
        raise PosteError(f"ended by itself: {roads.threads.reason}")


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


def _part_name(service: ServedService) -> str:
    return service.name.rpartition(".")[2].removesuffix("Service").lower() or service.name
