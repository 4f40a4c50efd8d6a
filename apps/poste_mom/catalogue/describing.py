"""Makes the services of what the store knows: only those again of which it knows something else than before."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from poste.domain.errors import CatalogueError
from poste.rpc.catalogue import Service, redescribe
from poste.runtime import logs, metrics
from poste.runtime.slices import Slices
from poste_mom.catalogue import versions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poste.queue.catalogue_store import KnownService, Snapshot
    from poste.v1.catalogue_pb2 import CatalogueService
    from poste_mom.catalogue.limits import CatalogueLimits
    from poste_mom.catalogue.version_schemas import VersionSchemas

_log = logs.get("catalogue")


class _Made(NamedTuple):
    """What was made of a service.

    Attributes:
        known: What the store knew.
        entry: Its entry, with all retired versions; None if it can't be read.
        service: The service; None if it can't be read.
    """

    known: KnownService
    entry: CatalogueService | None
    service: Service | None


class Describing:
    """The services as they were made last."""

    def __init__(self, limits: CatalogueLimits, schemas: VersionSchemas) -> None:
        """Begin with none.

        Args:
            limits: How much there may be.
            schemas: Says which replicas would misread a call.
        """
        self._limits = limits
        self._schemas = schemas
        self._made: dict[str, _Made] = {}

    async def services(self, known: Snapshot, read: Mapping[str, Mapping[str, bytes]] = {}) -> dict[str, Service]:
        """Return each service by name; one that is as before is the very same. It must not be called twice at a time.

        Those that can't be read are left out, logged and counted.

        Args:
            known: What the store knows.
            read: What replicas say of themselves, by the service and their addresses.
        """
        slices, now = Slices(), known.by_service()
        for name in read.keys() & now.keys():
            now[name] = replace(now[name], read=dict(read[name]))
        for name in self._made.keys() - now.keys():
            del self._made[name]
        for name, one in now.items():
            made = self._made.get(name)
            if made is None or made.known != one:
                self._made[name] = _Made(one, self._entry(name, one), None if made is None else made.service)
            await slices.pause()
        entries = {name: entry for name in now if (entry := self._made[name].entry) is not None}
        if lost := self._limits.fit(entries):
            _log.warning("retired versions left out: the catalogue is full", services=lost)
        services = {}
        for name, entry in entries.items():
            made = self._made[name]
            if made.service is None or made.service.entry is not entry:
                made = self._made[name] = made._replace(service=_service(entry, made.service))
                await slices.pause()
            if made.service is not None:
                services[name] = made.service
        metrics.catalogue_passed_over.set(len(now) - len(services))
        return services

    def _entry(self, name: str, known: KnownService) -> CatalogueService | None:
        try:
            entry = versions.entry_of(name, known)
        except DecodeError as error:
            _log.error("entry passed over", service=name, error=str(error))
            return None
        self._schemas.mark(entry, known)
        return entry


def _service(entry: CatalogueService, known: Service | None) -> Service | None:
    try:
        return redescribe(entry, known)
    except CatalogueError as error:
        _log.error("entry passed over", service=entry.name, error=str(error))
    except Exception:  # noqa: BLE001 - one service's entry must not make the others unavailable
        _log.exception("entry passed over", service=entry.name)
    return None
