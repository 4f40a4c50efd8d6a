"""Wires the middleware together and runs it: `poste mom`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from poste.domain.errors import CatalogueFullError, StartError
from poste.queue.callbacks import Callbacks
from poste.queue.catalogue_store import CatalogueStore
from poste.queue.completion_waiter import CompletionWaiter
from poste.queue.connection import open_client
from poste.queue.dead_groups import DeadGroups
from poste.queue.history import Histories
from poste.queue.keys import Keys
from poste.queue.maintenance import Maintenance
from poste.queue.metrics_leader import MetricsLeader
from poste.queue.moves import Moves
from poste.queue.operators import Operators
from poste.queue.queues import Queues
from poste.queue.schema_store import SchemaStore
from poste.queue.store_health import StoreHealth
from poste.queue.task_lists import TaskLists
from poste.queue.tasks import Tasks
from poste.rpc.credentials import Credentials, duties
from poste.rpc.intake import Intake
from poste.rpc.servers import Health, bind, bind_socket, new_server
from poste.rpc.target_trust import TargetTrust
from poste.runtime import admin, lifecycle, logs, program
from poste.runtime.addresses import authority
from poste.runtime.settings import MomSettings
from poste_mom import passes
from poste_mom.catalogue import catalogue_file
from poste_mom.catalogue.catalogue import Catalogue
from poste_mom.catalogue.limits import CatalogueLimits
from poste_mom.catalogue.reflecting import Reflecting
from poste_mom.figures import Figures
from poste_mom.methods.callbacks import CallbackServicer
from poste_mom.methods.catalogue import CatalogueServicer
from poste_mom.methods.complete import CompleteServicer
from poste_mom.methods.enqueue import EnqueueServicer
from poste_mom.methods.moving import MoveServicer
from poste_mom.methods.operators import OperatorServicer
from poste_mom.methods.schemas import SchemaServicer
from poste_mom.methods.tasks import TaskServicer
from poste_mom.queues.budgets import Budgets
from poste_mom.queues.due_callbacks import DueCallbacks
from poste_mom.queues.schemas import Schemas
from poste_mom.queues.turns import Turns
from poste_mom.server import method_handlers

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine, Sequence

    import grpc.aio

    from poste.v1.catalogue_pb2 import CatalogueService

_log = logs.get("mom")


class _Middleware:
    """The middleware's parts, connected.

    Attributes:
        client: Reaches the store.
        completions: Those who wait for a task's end.
        figures: What Prometheus reads.
    """

    def __init__(self, settings: MomSettings, trust: TargetTrust) -> None:
        limits = CatalogueLimits(settings.max_catalogue_bytes, settings.max_replicas)
        shipped = _shipped(settings, limits)
        self._health = StoreHealth(settings)
        self.client = open_client(settings, connected=self._health.connected)
        self._keys = Keys(settings.key_prefix)
        self._tasks = Tasks(self.client, self._health.proof, self._keys)
        self._queues = Queues(self.client, self._keys)
        self._moves = Moves(self.client, self._health.proof, self._keys)
        self._store = CatalogueStore(self.client, self._keys)
        self._pass_seconds = settings.pass_seconds
        self._callbacks = Callbacks(self.client, self._health.proof, self._keys)
        self._turns = Turns(self._queues)
        self._due_callbacks = DueCallbacks(self._callbacks, self._queues)
        self.completions = CompletionWaiter(settings, self._tasks, heard=self._due_callbacks.heard)
        sockets = None if settings.socket is None else settings.socket.parent
        self._catalogue = Catalogue(self._store, shipped, limits, sockets=sockets, replaced=self._forget)
        self._schemas = Schemas(SchemaStore(self.client, self._health.proof, self._keys), self._catalogue)
        self._reflecting = Reflecting(self._catalogue, trust)
        self._budgets = Budgets(self._catalogue, self._health)
        self._metrics_leader = MetricsLeader(self.client, self._keys)
        self.figures = Figures(
            self.client, self._queues, self._catalogue, self._health, budgets=self._budgets,
            metrics_leader=self._metrics_leader, keeps_as_told=settings.redis_keeps is not None,
        )  # fmt: skip

    @property
    def trouble(self) -> str | None:
        """Why no call can be kept now; None if calls can be."""
        return self._health.trouble or self._catalogue.trouble

    def _forget(self) -> None:
        """Forget what was known of the store: it is another one."""
        self._tasks.forget_queues()
        self._schemas.forget()

    def servicers(self) -> Sequence[object]:
        """Return what answers the methods of `MomService`."""
        tasks, catalogue, budgets = self._tasks, self._catalogue, self._budgets
        histories, lists = Histories(self.client, tasks, self._keys), TaskLists(self.client, tasks, self._keys)
        operators = Operators(self.client, self._health.proof, self._keys)
        return (
            EnqueueServicer(tasks, catalogue, self._health, budgets, self._schemas, turns=self._turns),
            TaskServicer(tasks, histories, self.completions, self._turns),
            CallbackServicer(self._callbacks, self._due_callbacks),
            CompleteServicer(tasks, catalogue, self.completions, budgets),
            OperatorServicer(
                self._queues,
                lists,
                operators,
                DeadGroups(self.client, operators, self._keys),
                catalogue=catalogue,
                budgets=budgets,
            ),
            MoveServicer(self._moves, operators, self._schemas, catalogue, queues=self._queues, budgets=budgets),
            SchemaServicer(self._schemas),
            CatalogueServicer(catalogue, self._reflecting, self._store, self._queues),
        )

    def duties(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Return what runs beside the server, for as long as that does."""
        maintenance = Maintenance(self.client, pass_seconds=self._pass_seconds, keys=self._keys)
        return (
            self._health.watch(self.client),
            self._catalogue.keep(),
            self._reflecting.run(),
            self.completions.listen(),
            self.completions.poll(),
            self._metrics_leader.hold(),
            self._schemas.sweep(),
            self._turns.run(),
            passes.keep(
                self._queues, maintenance, self._moves, self._catalogue, self._budgets, pass_seconds=self._pass_seconds
            ),
        )


async def run(settings: MomSettings, stop: asyncio.Event) -> None:
    """Serve until `stop`.

    Raises:
        StartError: The port is taken, or the catalogue file is wrong.
    """
    credentials = Credentials.of(settings)
    trust = TargetTrust(settings.targets_ca_file, credentials)
    middleware = _Middleware(settings, trust)
    server, intake = new_server(), Intake()
    health_service = Health(server, "poste.v1.MomService", intake=intake)
    method_handlers.add_to_server(middleware.servicers(), server, intake, named=credentials is not None)
    address = _bind(server, settings, credentials)

    def ready() -> str | None:
        return "stopping" if stop.is_set() else middleware.trouble

    probes = admin.serving(
        settings.admin_host or settings.host, settings.probes_port(), ready, collect=middleware.figures.collect
    )
    try:
        async with probes, lifecycle.side_tasks(*middleware.duties(), *duties(credentials, trust)):
            await server.start()
            await health_service.serving()
            _log.info("serving", address=address)
            await stop.wait()
            await health_service.not_serving()
            middleware.completions.close()
            # Catalogue streams never end by themselves, so a stop waits for the other calls only.
            await server.stop(min(settings.grace_seconds, 2.0))
    finally:
        await server.stop(0)
        await middleware.client.aclose()
    _log.info("stopped")


def _shipped(settings: MomSettings, limits: CatalogueLimits) -> list[CatalogueService]:
    """Read the deployment's catalogue file."""
    shipped = catalogue_file.read(settings.catalogue) if settings.catalogue is not None else []
    try:
        limits.check_shipped(shipped)
    except CatalogueFullError as error:
        raise StartError(f"the catalogue {settings.catalogue}: {error} (POSTE_MAX_CATALOGUE_BYTES)") from error
    return shipped


def _bind(server: grpc.aio.Server, settings: MomSettings, credentials: Credentials | None) -> str:
    """Take the port or the socket; returns its address."""
    if settings.socket is not None:
        return bind_socket(server, settings.socket, credentials)
    return authority(settings.host, bind(server, settings.host, settings.port, credentials))


def main(**overrides: object) -> int:
    """Run the middleware; `overrides` win over the environment. Returns the exit code."""
    return program.main("mom", MomSettings, overrides, run)


if __name__ == "__main__":
    sys.exit(main())
