"""The catalogue as this replica knows it: read from Redis, filled by the deployment's file and by registrations.

A Redis that was emptied, replaced, or restored from an older copy is known by its name, or by a catalogue that grew
younger. The calls that it lost are lost; but who is up must not become unknown by it: this replica files again what it
knew, before anybody is told of a catalogue without it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from poste.domain.errors import CatalogueError, StoreError
from poste.rpc.catalogue import Service, describe, refuse_taken_routes
from poste.runtime import logs, metrics
from poste.v1 import catalogue_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from poste.queue.catalogue_store import CatalogueStore
    from poste.v1 import mom_service_pb2

_log = logs.get("catalogue")
#: How often other replicas' changes are looked for, in seconds.
_POLL_SECONDS: Final = 0.5
#: How often replicas that fell silent are looked for, in seconds.
_FORGET_SECONDS: Final = 10.0


class Catalogue:
    """Every service there is, kept up to date."""

    def __init__(
        self,
        store: CatalogueStore,
        shipped: Sequence[catalogue_pb2.CatalogueService],
        *,
        replaced: Callable[[], None] = lambda: None,
    ) -> None:
        """Know nothing yet.

        Args:
            store: Where it is kept.
            shipped: What the deployment says of services.
            replaced: Called when Redis turns out to be another store than it was, or is seen first.
        """
        self._store = store
        self._replaced = replaced
        self._shipped = {entry.name: entry for entry in shipped}
        self._services: dict[str, Service] = {}
        self._version: int | None = None
        self._filed = False
        self._changed = asyncio.Condition()
        self._store_id = ""
        #: Another store than before, which does not know yet what the last one knew.
        self._is_anew = False
        #: How many stores there were.
        self._stores = 0

    @property
    def trouble(self) -> str | None:
        """Why it can't be relied on now, or None."""
        if self._version is None:
            return "the catalogue was not read yet"
        return "Redis was emptied or replaced, and is told again which services there are" if self._is_anew else None

    @property
    def store_id(self) -> str:
        """The name of the store that it was read from."""
        return self._store_id

    def get(self, service: str) -> Service | None:
        """Return a service, or None if it is not known."""
        return self._services.get(service)

    def entries(self) -> list[catalogue_pb2.CatalogueService]:
        """Return every entry by name."""
        return [service.entry for _, service in sorted(self._services.items())]

    async def keep(self) -> None:
        """Follow Redis for as long as the process lives."""
        forgotten = time.monotonic()
        while True:
            try:
                if not self._filed:
                    await self._file_shipped()
                    self._filed = True
                if time.monotonic() - forgotten > _FORGET_SECONDS:
                    await self._store.forget_replicas()
                    forgotten = time.monotonic()
                await self.refresh()
            except StoreError as error:
                _log.warning("waiting for Redis", error=str(error))
            await asyncio.sleep(_POLL_SECONDS)

    async def refresh(self) -> None:
        """Read it anew if it changed.

        Raises:
            StoreUnreached: Redis does not answer.
        """
        version = await self._look_at_store()
        if version == self._version and not self._is_anew:
            return
        if self._is_anew and self._services:
            version = await self._file_again()
        entries, replicas = await self._store.entries(), await self._store.replicas()
        services = {}
        for name, serialized in entries.items():
            entry = catalogue_pb2.CatalogueService.FromString(serialized)
            targets = dict.fromkeys([*entry.targets, *replicas.get(name, ())])
            entry.targets[:] = list(targets)
            try:
                services[name] = describe(entry)
            except CatalogueError as error:
                _log.error("entry skipped", service=name, error=str(error))
        async with self._changed:
            self._services, self._version, self._is_anew = services, version, False
            self._changed.notify_all()

    async def _look_at_store(self) -> int:
        """Find out whether it is the store that it was; returns the catalogue's version in it."""
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
            # Who is told of the catalogue comes again, and says anew which key signs the ids.
            self._changed.notify_all()
        self._replaced()
        return version

    async def _file_again(self) -> int:
        """Write what this replica knew and the store does not; returns the catalogue's version after that."""
        stored = await self._store.entries()
        for name, service in self._services.items():
            shipped = list(self._shipped[name].targets) if name in self._shipped else []
            if name not in stored:
                entry = catalogue_pb2.CatalogueService()
                entry.CopyFrom(service.entry)
                entry.targets[:] = shipped
                await self._store.save(name, entry.SerializeToString(deterministic=True))
            for address in service.entry.targets:
                # One that is gone by now is forgotten again.
                if address not in shipped:
                    await self._store.see_replica(name, address)
        await self._file_shipped()
        return await self._store.version()

    async def register(self, request: mom_service_pb2.RegisterServiceRequest) -> Service:
        """Note a replica and, if its descriptors are the newest, what it serves.

        Raises:
            CatalogueError: What it says of itself can't be catalogued.
            StoreUnreached: Redis does not answer.
        """
        await self.refresh()
        known = self._services.get(request.service)
        entry = catalogue_pb2.CatalogueService(name=request.service)
        if known is not None:
            entry.CopyFrom(known.entry)
        shipped = self._shipped.get(request.service)
        # Registered addresses are kept apart from the deployment's target: they come and go.
        entry.targets[:] = list(shipped.targets) if shipped else []
        if shipped:
            # It may be known from what stood here before these were filed.
            entry.settings.CopyFrom(shipped.settings)
        if entry.register_time.ToNanoseconds() <= request.start_time.ToNanoseconds():
            entry.file_descriptor_set = request.file_descriptor_set
            entry.register_time.CopyFrom(request.start_time)
            entry.author_settings.CopyFrom(request.author_settings)
        entry.library = True
        service = describe(entry)
        refuse_taken_routes(service, self._services.values())
        stored = (await self._store.entries()).get(request.service)
        serialized = entry.SerializeToString(deterministic=True)
        if stored != serialized:
            await self._store.save(request.service, serialized)
        await self._store.see_replica(request.service, request.address)
        await self.refresh()
        return service

    async def watch(self) -> AsyncIterator[list[catalogue_pb2.CatalogueService]]:
        """Yield every entry now, and again whenever something changed, until the store is another one."""
        seen: int | None = None
        stores = self._stores
        while True:
            async with self._changed:
                while self._version is None or self._version == seen:
                    await self._changed.wait()
                    if seen is not None and self._stores != stores:
                        return
                seen, stores = self._version, self._stores
                entries = self.entries()
            yield entries

    async def _file_shipped(self) -> None:
        """Write what the deployment ships: its targets and settings hold; newer descriptors of a replica stay."""
        stored = await self._store.entries()
        for name, shipped in self._shipped.items():
            entry = catalogue_pb2.CatalogueService()
            entry.CopyFrom(shipped)
            if name in stored:
                old = catalogue_pb2.CatalogueService.FromString(stored[name])
                entry.library = old.library
                if old.HasField("register_time"):
                    entry.file_descriptor_set = old.file_descriptor_set
                    entry.register_time.CopyFrom(old.register_time)
                    entry.author_settings.CopyFrom(old.author_settings)
            serialized = entry.SerializeToString(deterministic=True)
            if stored.get(name) != serialized:
                await self._store.save(name, serialized)
