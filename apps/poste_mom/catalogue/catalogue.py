"""The catalogue as this replica knows it: read from Redis, filled by the deployment's file and by registrations.

A Redis that was emptied, replaced, or restored from an older copy is recognized by its name, or by a catalogue version
that went back. The calls that it lost are lost; but services that are up must not be forgotten: this replica writes
what it knew again before gateways get a catalogue without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from google.protobuf.message import DecodeError

from poste.domain import input_rules
from poste.domain.errors import CatalogueError, CatalogueFullError, StoreError
from poste.queue.catalogue_store import Place, Snapshot
from poste.rpc.catalogue import Service, describe, taken_routes, without_taken
from poste.runtime import logs, metrics
from poste.runtime.addresses import names_a_socket, path_of
from poste.v1 import catalogue_pb2
from poste_mom.catalogue import reflected, versions
from poste_mom.catalogue.describing import Describing
from poste_mom.catalogue.limits import CatalogueLimits, standing_bytes
from poste_mom.catalogue.route_owners import RouteOwners
from poste_mom.catalogue.version_schemas import VersionSchemas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from poste.queue.catalogue_store import CatalogueStore
    from poste.rpc.schemas.schema import MethodSchema
    from poste.v1 import mom_service_pb2

_log = logs.get("catalogue")
#: How often other middlewares' changes are read, in seconds.
_POLL_SECONDS: Final = 0.5
#: How often silent replicas are searched for, in seconds.
_FORGET_SECONDS: Final = 10.0
#: How many versions of a service that is read are known by when they came.
_MOST_SEEN: Final = 32
#: How many couriers there may be: each that a careless one names anew is kept for a minute.
MAX_COURIERS: Final = 100


class Forgotten(NamedTuple):
    """What may bring a service back that was forgotten: living replicas, and the deployment's catalogue file."""

    replicas: int
    shipped: bool


class Catalogue:
    """All services, kept up to date with Redis."""

    def __init__(
        self,
        store: CatalogueStore,
        shipped: Sequence[catalogue_pb2.CatalogueService],
        limits: CatalogueLimits | None = None,
        *,
        sockets: Path | None = None,
        replaced: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin empty.

        Args:
            store: The catalogue in Redis.
            shipped: The services of the deployment's catalogue file.
            limits: How much it may hold.
            sockets: The folder in which replicas may have Unix sockets; None if they may have none. Otherwise a
                registration could make a gateway connect to any socket of its host.
            replaced: Called when Redis turns out to be another store than before, and at the first contact.
        """
        self._store = store
        self._limits = limits or CatalogueLimits()
        self._sockets = sockets
        self._replaced = replaced
        self._shipped = {entry.name: entry for entry in shipped}
        #: Those of them whose descriptors are to be read from their servers, and were never in the store yet.
        self._unread = {entry.name for entry in shipped if entry.reflect}
        self._services: dict[str, Service] = {}
        self._schemas = VersionSchemas()
        #: What replicas that are there say of themselves, by the service and their addresses.
        self._read: dict[str, dict[str, bytes]] = {}
        #: The names of the versions that any ever said, by the service, in the order in which they came first.
        self._seen: dict[str, list[str]] = {}
        #: It changed since the services were made of it.
        self._read_anew = False
        #: Counts up with every change of the services.
        self._revision = 0
        self._describing = Describing(self._limits, self._schemas)
        self._owners = RouteOwners()
        #: The snapshot of Redis that they were made of.
        self._known = Snapshot()
        self._version: int | None = None
        self._filed = False
        self._changed = asyncio.Condition()
        #: Held by one registration at a time: each is checked against the services before it.
        self._registering = asyncio.Lock()
        #: Held by one reading at a time: what was read first must not replace what was read after it.
        self._refreshing = asyncio.Lock()
        self._store_id = ""
        #: Redis is another store than before, and the services are not written to it yet.
        self._is_anew = False
        #: How many different stores there were.
        self._stores = 0

    @property
    def trouble(self) -> str | None:
        """Why the catalogue may be incomplete now; None if it is not."""
        if self._version is None:
            return "the catalogue was not read yet"
        return "Redis was emptied or replaced; services are registering again" if self._is_anew else None

    @property
    def store_id(self) -> str:
        """The random name of the store that it was read from."""
        return self._store_id

    def get(self, service: str) -> Service | None:
        """Return a service, or None if it is not known."""
        return self._services.get(service)

    def entries(self) -> list[catalogue_pb2.CatalogueService]:
        """Return every entry by name."""
        return [service.entry for _, service in sorted(self._services.items())]

    async def keep(self) -> None:
        """Follow the changes in Redis. Never returns."""
        forgotten = time.monotonic()
        while True:
            try:
                await self._file_shipped()
                if time.monotonic() - forgotten > _FORGET_SECONDS:
                    await self._store.clear()
                    forgotten = time.monotonic()
                await self.refresh()
            except StoreError as error:
                _log.warning("waiting for Redis", error=str(error))
            await asyncio.sleep(_POLL_SECONDS)

    async def refresh(self) -> None:
        """Read the catalogue again if it has changed.

        Raises:
            StoreError: Redis does not answer.
        """
        async with self._refreshing:
            version = await self._check_store()
            if version == self._version and not self._is_anew and not self._read_anew:
                return
            if self._is_anew and self._services:
                version = await self._file_again()
            # Of another store, or an older copy, nothing is as it was in the one before.
            before = Snapshot() if self._is_anew else self._known
            known = await self._store.read(before, version)
            self._read_anew = False
            services = await self._describing.services(known, self._read)
            async with self._changed:
                self._services, self._known, self._version, self._is_anew = services, known, version, False
                self._unread -= known.shipped.keys()
                self._owners.update(services)
                self._revision += 1
                self._changed.notify_all()

    async def _check_store(self) -> int:
        """Check whether Redis is still the same store; return the catalogue's version in it."""
        store_id, version = await self._store.store_id(), await self._store.version()
        is_older = self._version is not None and version < self._version
        if store_id == self._store_id and (self._is_anew or not is_older):
            return version
        if self._store_id:
            _log.error("the store was emptied, replaced, or restored from an older copy", store=store_id)
            metrics.store_replaced_total.inc()
        async with self._changed:
            self._store_id, self._is_anew = store_id, True
            self._stores += 1
            # Watching gateways reconnect, and give the fingerprint of their key again.
            self._changed.notify_all()
        self._replaced()
        return version

    async def _file_again(self) -> int:
        """Write to a new store what this process knows and the store does not; return the catalogue's version."""
        shipped = await self._store.shipped()
        for name, entry in self._known.shipped.items():
            if name not in shipped:
                await self._store.ship(name, entry)
        await self._store.file_again(self._known)
        self._filed = False
        await self._file_shipped()
        return await self._store.version()

    async def register(self, request: mom_service_pb2.RegisterServiceRequest) -> Service:
        """Note a replica and what it serves; returns that as this replica has it.

        Raises:
            CatalogueError: What it says of itself can't be catalogued.
            CatalogueFullError: There is no room for it.
            StoreError: Redis does not answer.
        """
        replica = request.replica or request.address
        if not input_rules.is_address(request.address) and not self._is_socket(request.address):
            raise CatalogueError(
                f"{request.service!r} can't be at {request.address!r}: "
                "that is no host:port, and no socket beside the middleware's own"
            )
        if not input_rules.is_replica(replica):
            raise CatalogueError(f"{request.service!r} can't have a replica {replica!r}")
        async with self._registering:
            return await self._register(request, replica)

    async def _register(self, request: mom_service_pb2.RegisterServiceRequest, replica: str) -> Service:
        # First, for its settings hold for who registers.
        await self._file_shipped()
        await self.refresh()
        version = versions.registered(request)
        # Before anything is made of it.
        methods = len(request.methods) or None
        version.weight = self._limits.weigh(request.service, request.file_descriptor_set, methods)
        known = self._services.get(request.service)
        # The file's word holds, be it that what stands in the store was filed by another.
        by_deployment = self._shipped.get(request.service) or (known.entry if known else None)
        service = describe(versions.alone(request.service, version, by_deployment))
        if taken := taken_routes(service, self._owners):
            version.taken_routes.extend(taken)
            service = describe(versions.alone(request.service, version, by_deployment))
        # What the descriptors declare may be more than it has handlers for.
        version.methods[:] = sorted(service.methods)
        content = version.SerializeToString(deterministic=True)
        name = versions.name_of(content)
        # Who only says again that he is there is not asked whether there is room.
        if self._known.places.get((request.service, replica)) != Place(name, request.address, stopped=False):
            self._check_room(request, replica, name, version.weight)
        await self._store.register(request.service, replica, request.address, name, content)
        await self.refresh()
        return service

    def _is_socket(self, address: str) -> bool:
        path = path_of(address)
        return path is not None and path.parent == self._sockets and names_a_socket(path)

    def _check_room(
        self, request: mom_service_pb2.RegisterServiceRequest, replica: str, version: str, weight: int
    ) -> None:
        if (request.service, replica) not in self._known.places:
            self._limits.check_replica(request.service, request.address, self._known.places)
        if (request.service, version) not in self._known.standing:
            self._limits.check_version(request.service, weight, self.entries())

    async def withdraw(self, service: str, replica: str) -> None:
        """Note that a replica stops.

        Raises:
            StoreError: Redis does not answer.
        """
        await self._store.withdraw(service, replica)

    async def register_courier(self, courier: str) -> None:
        """Note that a courier is there: it delivers for every service that has no consumer of its own.

        Raises:
            CatalogueError: It has no name that may be one.
            CatalogueFullError: There are as many as may be.
            StoreError: Redis does not answer.
        """
        if not input_rules.is_replica(courier):
            raise CatalogueError(f"{courier!r} can't be a courier's name")
        if courier not in self._known.couriers and len(self._known.couriers) >= MAX_COURIERS:
            raise CatalogueFullError(f"there are {MAX_COURIERS} couriers already")
        await self._store.register_courier(courier)
        await self.refresh()

    async def withdraw_courier(self, courier: str) -> None:
        """Note that a courier stops.

        Raises:
            StoreError: Redis does not answer.
        """
        await self._store.withdraw_courier(courier)

    @property
    def standing_bytes(self) -> int:
        """What all that stands takes of a gateway's memory, as it is estimated."""
        return sum(map(standing_bytes, self.entries()))

    @property
    def max_bytes(self) -> int:
        """What that may be."""
        return self._limits.max_bytes

    @property
    def couriers(self) -> int:
        """How many couriers live."""
        return len(self._known.couriers)

    async def forget(self, service: str) -> Forgotten | None:
        """Take a service out of the catalogue; returns what may bring it back, None if it is not in it.

        Raises:
            StoreError: Redis does not answer.
        """
        await self.refresh()
        if service not in versions.services(self._known):
            return None
        replicas = [place for (name, _), place in self._known.places.items() if name == service and not place.stopped]
        await self._store.forget(service)
        await self.refresh()
        return Forgotten(replicas=len(replicas), shipped=service in self._shipped)

    def reflected(self) -> dict[str, set[str]]:
        """Return the targets that say themselves what they serve, and the services that each is asked for."""
        found: dict[str, set[str]] = {}
        standing = (one.entry for one in self._services.values() if one.entry.reflect and not one.library)
        for entry in (*standing, *(self._shipped[name] for name in self._unread)):
            for target in entry.targets:
                found.setdefault(target, set()).add(entry.name)
        return found

    def target_tls(self, target: str) -> catalogue_pb2.TargetTls:
        """Return by what the server of a target is known that is called over TLS, besides what the target says."""
        entries = (*self._shipped.values(), *(service.entry for service in self._services.values()))
        return next((entry.target_tls for entry in entries if target in entry.targets), catalogue_pb2.TargetTls())

    def unread(self, target: str) -> bool:
        """Return whether the catalogue file names services of a target that were never read from it."""
        return any(target in self._shipped[name].targets for name in self._unread)

    async def reflect(self, target: str, service: str, files: bytes, *, register: bool = False) -> Service | None:
        """Note what a target says of a service that it serves.

        Args:
            target: Who says so.
            service: The service's full name.
            files: Its descriptors, as a FileDescriptorSet.
            register: It may be one that is not known yet.

        Returns:
            The service as it is known now; None if it is not to be known, because it was forgotten.

        Raises:
            CatalogueError: It can't be catalogued, or another source says what it is.
            CatalogueFullError: There is no room for it.
            StoreError: Redis does not answer.
        """
        async with self._registering:
            await self._file_shipped()
            await self.refresh()
            stored = self._stored(service)
            known = self._services.get(service)
            if not (register or stored.name or service in self._unread) or self._is_older(service, files, stored):
                return known
            if known is not None and known.library:
                raise CatalogueError(f"{service} registers itself: it has the worker library")
            filed, known_by = self._shipped.get(service), self.target_tls(target)
            entry = reflected.entry_of(target, service, files, filed=filed, stored=stored, target_tls=known_by)
            entry.weight = self._limits.weigh(service, files)
            described = without_taken(entry, describe(entry), self._owners)
            entry.others.extend(reflected.retired(stored, described))
            if entry != stored:
                others = [one for one in self.entries() if one.name != service]
                self._limits.check_version(service, entry.weight, others)
                await self._store.ship(service, entry.SerializeToString(deterministic=True))
                _log.info("reflected", service=service, target=target, methods=sorted(described.methods))
                await self.refresh()
            return described

    def _note_seen(self, service: str, name: str) -> None:
        seen = self._seen.setdefault(service, [])
        if name not in seen:
            seen.append(name)
            del seen[:-_MOST_SEEN]

    def _is_older(self, service: str, files: bytes, stored: catalogue_pb2.CatalogueService) -> bool:
        """Return whether a replica has only come back that is of an older version than another one that is there.

        Otherwise what calls are written by would change with each connection that is lost.
        """
        seen, last = self._seen.get(service, []), stored.file_descriptor_set
        if last == files or last not in self._read.get(service, {}).values():
            return False
        name, of_last = versions.name_of(files), versions.name_of(last)
        return name in seen and of_last in seen and seen.index(name) < seen.index(of_last)

    def _stored(self, service: str) -> catalogue_pb2.CatalogueService:
        """Return what is shipped of a service, as the store has it; an empty entry if nothing is."""
        entry = catalogue_pb2.CatalogueService()
        with contextlib.suppress(DecodeError):
            entry.MergeFromString(self._known.shipped.get(service, b""))
        return entry

    def served(self, service: str) -> frozenset[str] | None:
        """Return the short names of the methods that a living replica of a service has; None if none lives."""
        return versions.served(service, self._known)

    def living_schemas(self, service: str, method: str) -> list[MethodSchema]:
        """Return the schemas that a method has at the replicas of its service that live."""
        known, described = self._known.by_service().get(service), self._services.get(service)
        if known is None or described is None:
            return []
        known = dataclasses.replace(known, read=self._read.get(service, {}))
        return self._schemas.living(described.entry, known, method)

    def note_replica(self, address: str, files: Mapping[str, bytes]) -> None:
        """Note what a replica says of the services that it is read for: it is there. With nothing, it is gone.

        Args:
            address: Where it is.
            files: Their descriptors, by the service.
        """
        for service in {*self._read, *files}:
            read = self._read.setdefault(service, {})
            if read.get(address) != files.get(service):
                self._read_anew = True
                # What is new stands last.
                read.pop(address, None)
                if service in files:
                    read[address] = files[service]
                    self._note_seen(service, versions.name_of(files[service]))
        self._read = {service: read for service, read in self._read.items() if read}

    async def watch(self) -> AsyncIterator[dict[str, catalogue_pb2.CatalogueService]]:
        """Yield every entry by name now, and again whenever something changed, until the store is another one."""
        seen: int | None = None
        stores = self._stores
        while True:
            async with self._changed:
                while self._version is None or self._revision == seen:
                    await self._changed.wait()
                    if seen is not None and self._stores != stores:
                        return
                seen, stores = self._revision, self._stores
                entries = {entry.name: entry for entry in self.entries()}
            yield entries

    async def _file_shipped(self) -> None:
        """Write what the deployment ships, once."""
        if self._filed:
            return
        stored = await self._store.shipped()
        for name, shipped in self._shipped.items():
            entry = reflected.carried(shipped, stored.get(name)) if shipped.reflect else shipped
            if entry is None:
                continue
            serialized = entry.SerializeToString(deterministic=True)
            if stored.get(name) != serialized:
                await self._store.ship(name, serialized)
        self._filed = True
