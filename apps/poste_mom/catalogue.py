"""The catalogue as this replica knows it: read from Redis, filled by the deployment's file and by registrations."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from poste.domain.errors import CatalogueError, StoreError
from poste.rpc.catalogue import Service, describe, refuse_taken_routes
from poste.runtime import logs
from poste.v1 import catalogue_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from poste.queue.catalogue_store import CatalogueStore
    from poste.v1 import mom_service_pb2

_log = logs.get("catalogue")
#: How often other replicas' changes are looked for, in seconds.
_POLL_SECONDS: Final = 0.5
#: How often replicas that fell silent are looked for, in seconds.
_FORGET_SECONDS: Final = 10.0


class Catalogue:
    """Every service there is, kept up to date."""

    def __init__(self, store: CatalogueStore, shipped: Sequence[catalogue_pb2.CatalogueService]) -> None:
        self._store = store
        self._shipped = {entry.name: entry for entry in shipped}
        self._services: dict[str, Service] = {}
        self._version: int | None = None
        self._filed = False
        self._changed = asyncio.Condition()

    @property
    def loaded(self) -> bool:
        """Whether it was read at least once."""
        return self._version is not None

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
        version = await self._store.version()
        if version == self._version:
            return
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
            self._services, self._version = services, version
            self._changed.notify_all()

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
        """Yield every entry now, and again whenever something changed."""
        seen: int | None = None
        while True:
            async with self._changed:
                while self._version is None or self._version == seen:
                    await self._changed.wait()
                seen = self._version
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
                if old.HasField("register_time"):
                    entry.file_descriptor_set = old.file_descriptor_set
                    entry.register_time.CopyFrom(old.register_time)
                    entry.author_settings.CopyFrom(old.author_settings)
            serialized = entry.SerializeToString(deterministic=True)
            if stored.get(name) != serialized:
                await self._store.save(name, serialized)
