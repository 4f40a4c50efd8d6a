"""Wires the middleware together and runs it: `poste mom`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from poste.domain.errors import CatalogueFullError, StartError
from poste.queue.catalogue_store import CatalogueStore
from poste.queue.completion_waiter import CompletionWaiter
from poste.queue.connection import open_client
from poste.queue.history import Histories
from poste.queue.keys import Keys
from poste.queue.maintenance import Maintenance
from poste.queue.metrics_leader import MetricsLeader
from poste.queue.operators import Operators
from poste.queue.recent import Recent
from poste.queue.store_health import StoreHealth
from poste.queue.tasks import Tasks
from poste.rpc.intake import Intake
from poste.rpc.servers import Health, bind, bind_socket, new_server
from poste.runtime import admin, lifecycle, logs, program
from poste.runtime.addresses import authority
from poste.runtime.settings import MomSettings
from poste_mom import passes
from poste_mom.catalogue import catalogue_file
from poste_mom.catalogue.catalogue import Catalogue
from poste_mom.catalogue.limits import CatalogueLimits
from poste_mom.figures import Figures
from poste_mom.methods.catalogue import CatalogueServicer
from poste_mom.methods.complete import CompleteServicer
from poste_mom.methods.enqueue import EnqueueServicer
from poste_mom.methods.operators import OperatorServicer
from poste_mom.methods.tasks import TaskServicer
from poste_mom.queues.budgets import Budgets
from poste_mom.server import method_handlers

if TYPE_CHECKING:
    import asyncio

    import grpc.aio

    from poste.v1.catalogue_pb2 import CatalogueService

_log = logs.get("mom")


async def run(settings: MomSettings, stop: asyncio.Event) -> None:
    """Serve until `stop`.

    Raises:
        StartError: The port is taken, or the catalogue file is wrong.
    """
    limits = CatalogueLimits(settings.max_catalogue_bytes, settings.max_replicas)
    shipped = _shipped(settings, limits)
    health = StoreHealth(settings)
    client = open_client(settings, connected=health.connected)
    keys = Keys(settings.key_prefix)
    tasks, store = Tasks(client, health.proof, keys), CatalogueStore(client, keys)
    maintenance = Maintenance(client, pass_seconds=settings.pass_seconds, keys=keys)
    completions = CompletionWaiter(settings, tasks)
    sockets = None if settings.socket is None else settings.socket.parent
    catalogue = Catalogue(store, shipped, limits, sockets=sockets, replaced=tasks.forget_queues)
    budgets = Budgets(catalogue, health)
    metrics_leader = MetricsLeader(client, keys)
    as_told = settings.redis_keeps is not None
    figures = Figures(
        client, tasks, catalogue, health, budgets=budgets, metrics_leader=metrics_leader, keeps_as_told=as_told
    )
    server, intake = new_server(), Intake()
    health_service = Health(server, "poste.v1.MomService", intake=intake)
    histories, recent = Histories(client, tasks, keys), Recent(client, tasks, keys)
    servicers = (
        EnqueueServicer(tasks, catalogue, health, budgets),
        TaskServicer(tasks, histories, completions),
        CompleteServicer(tasks, catalogue, completions, budgets),
        OperatorServicer(tasks, recent, Operators(client, health.proof, keys), catalogue, budgets),
        CatalogueServicer(catalogue, store, tasks),
    )
    method_handlers.add_to_server(servicers, server, intake)
    address = _bind(server, settings)

    def ready() -> str | None:
        return "stopping" if stop.is_set() else health.trouble or catalogue.trouble

    try:
        async with (
            admin.serving(settings.admin_host or settings.host, settings.probes_port(), ready, collect=figures.collect),
            lifecycle.side_tasks(
                health.watch(client),
                catalogue.keep(),
                completions.listen(),
                completions.poll(),
                metrics_leader.hold(),
                passes.keep(tasks, maintenance, catalogue, budgets, pass_seconds=settings.pass_seconds),
            ),
        ):
            await server.start()
            await health_service.serving()
            _log.info("serving", address=address)
            await stop.wait()
            await health_service.not_serving()
            completions.close()
            # Catalogue streams never end by themselves, so a stop waits for the other calls only.
            await server.stop(min(settings.grace_seconds, 2.0))
    finally:
        await server.stop(0)
        await client.aclose()
    _log.info("stopped")


def _shipped(settings: MomSettings, limits: CatalogueLimits) -> list[CatalogueService]:
    """Read the deployment's catalogue file."""
    shipped = catalogue_file.read(settings.catalogue) if settings.catalogue is not None else []
    try:
        limits.check_shipped(shipped)
    except CatalogueFullError as error:
        raise StartError(f"the catalogue {settings.catalogue}: {error} (POSTE_MAX_CATALOGUE_BYTES)") from error
    return shipped


def _bind(server: grpc.aio.Server, settings: MomSettings) -> str:
    """Take the port or the socket; returns its address."""
    if settings.socket is not None:
        return bind_socket(server, settings.socket)
    return authority(settings.host, bind(server, settings.host, settings.port))


def main(**overrides: object) -> int:
    """Run the middleware; `overrides` win over the environment. Returns the exit code."""
    return program.main("mom", MomSettings, overrides, run)


if __name__ == "__main__":
    sys.exit(main())
