"""Where the catalogue is kept: what the deployment ships, what replicas registered, and which of them live.

Both are opaque bytes here: what is in them (services, descriptors, settings) is read by `poste.rpc.catalogue`.
"""

from __future__ import annotations

import functools
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from poste.domain.errors import StoreUnreached
from poste.queue.connection import text
from poste.queue.errors import reading, writing
from poste.queue.keys import KEYS, Keys
from poste.queue.scripts import Scripts
from poste.queue.steps import catalogue as steps
from poste.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping

    import redis.asyncio as redis

_STOPPED: Final = "stopped"
#: How couriers' names begin among those of the replicas: no service is called so.
_COURIERS: Final = "* "
#: So many records are read at once: each may be of megabytes.
_AT_ONCE: Final = 50
#: So much of a record's name is logged.
_SHOWN: Final = 200

_log: Final = logs.get("catalogue_store")
KeyT = TypeVar("KeyT", str, tuple[str, str])
ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class Version:
    """What a program of one version registered.

    Attributes:
        content: What it said.
        register_time: When it was registered first, in seconds since the epoch, by Redis' time.
        retire_time: When no replica had it any more, though others lived; None if it stands.
    """

    content: bytes
    register_time: float
    retire_time: float | None


@dataclass(frozen=True, slots=True)
class Place:
    """A replica that registered lately.

    Attributes:
        version: The name of its version.
        address: Where it is called.
        stopped: It stopped, as the last one.
    """

    version: str
    address: str
    stopped: bool


@dataclass(frozen=True, slots=True)
class KnownService:
    """All that the store knows of one service; as long as that is the same, so is the service.

    Attributes:
        shipped: What the deployment ships; None if nothing.
        versions: By their names.
        places: By the replicas' names.
        couriers: Whether couriers live.
        read: What its replicas say of themselves that are there now, by their addresses, where they are asked.
    """

    shipped: bytes | None
    versions: dict[str, Version]
    places: dict[str, Place]
    couriers: bool
    read: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the store knows of services.

    Attributes:
        shipped: What the deployment ships, by the service's name.
        versions: By the service's name and the version's.
        places: By the service's name and the replica's.
        couriers: The names of those that live.
        version: The version of the catalogue that it has at least.
        unnoted: How many changes there were by then of which it is not known what they changed.
    """

    shipped: Mapping[str, bytes] = field(default_factory=dict)
    versions: Mapping[tuple[str, str], Version] = field(default_factory=dict)
    places: Mapping[tuple[str, str], Place] = field(default_factory=dict)
    couriers: frozenset[str] = frozenset()
    version: int = 0
    unnoted: int = 0

    @property
    def standing(self) -> dict[tuple[str, str], Version]:
        """The versions that are not retired."""
        return {name: version for name, version in self.versions.items() if version.retire_time is None}

    def by_service(self) -> dict[str, KnownService]:
        """Return what is known of each service, by name."""
        names = sorted({*self.shipped, *(service for service, _ in self.versions)})
        found = {name: KnownService(self.shipped.get(name), {}, {}, bool(self.couriers)) for name in names}
        for (service, name), version in self.versions.items():
            found[service].versions[name] = version
        for (service, name), place in self.places.items():
            if service in found:
                found[service].places[name] = place
        return found


class CatalogueStore:
    """The catalogue on one Redis. Every method raises a StoreError if Redis does not answer; all can be repeated."""

    def __init__(self, client: redis.Redis, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client)

    async def store_id(self) -> str:
        """Return this store's name: a random one that it is given if it has none, for then it was empty."""
        with writing(several=True):
            found = await self._client.get(self._keys.store_id)
            if found is None:
                await self._client.set(self._keys.store_id, secrets.token_hex(8), nx=True)
                found = await self._client.get(self._keys.store_id)
        if found is None:
            raise StoreUnreached("Redis lost its name as soon as it had it")
        return text(found)

    async def version(self) -> int:
        """Return a number that grows with every change."""
        with reading():
            return int(await self._client.get(self._keys.catalogue_version) or 0)

    async def shipped(self) -> dict[str, bytes]:
        """Return what the deployment ships, by the service's name."""
        with reading():
            found = await self._client.hgetall(self._keys.catalogue)
        return dict(_readable(found, _shipped))

    async def ship(self, service: str, entry: bytes) -> None:
        """Write what the deployment ships of one service."""
        await steps.ship(self._scripts, self._keys, service, entry)

    async def read(self, before: Snapshot, version: int) -> Snapshot:
        """Return everything. What changes meanwhile makes another version of the catalogue.

        What a service is, which may be megabytes, is read only if it changed.

        Args:
            before: What was read last of this store; an empty snapshot if nothing was.
            version: The catalogue's version now, or a moment ago.
        """
        keys = self._keys
        with reading():
            # Both at one moment, and before anything else.
            counted: Any = await self._client.mget(keys.catalogue_version, keys.catalogue_noted)
            unnoted = int(counted[0] or 0) - int(counted[1] or 0)
            if unnoted != before.unnoted or not 0 <= version - before.version <= steps.REMEMBERED:
                before = Snapshot()
            # First: what changes while the rest is read may be read as it was, and is read again with the next version.
            changes: Any = await self._client.zrangebyscore(keys.catalogue_changes, f"({before.version}", "+inf")
            retired: Any = await self._client.zrange(keys.retired, 0, -1, withscores=True)
            places = await self._client.hgetall(keys.places)
            replicas = [text(one) for one in await self._client.zrange(keys.replicas, 0, -1)]
        version_of, changed = functools.partial(_version, dict(retired)), frozenset(changes)
        return Snapshot(
            shipped=await self._changed(keys.catalogue, before.shipped, changed, _shipped),
            versions=await self._changed(keys.versions, before.versions, changed, version_of),
            places=dict(_readable(places, lambda who, kept: (_names(text(who)), _place(text(kept))))),
            couriers=frozenset(one.removeprefix(_COURIERS) for one in replicas if one.startswith(_COURIERS)),
            version=version,
            unnoted=unnoted,
        )

    async def _changed(
        self,
        key: str,
        before: Mapping[KeyT, ValueT],
        changed: Container[bytes],
        read: Callable[[bytes, bytes], tuple[KeyT, ValueT]],
    ) -> dict[KeyT, ValueT]:
        """Read a hash whose fields begin with services' names: what is not as before.

        Args:
            key: The hash.
            before: What was read of it last.
            changed: The services that changed since.
            read: Reads a field and what is kept in it.
        """
        with reading():
            fields = cast("list[bytes]", await self._client.hkeys(key))
            named = {_field(one): one for one in before}
            same = {field for field in fields if field in named and field.partition(b" ")[0] not in changed}
            found: dict[bytes, bytes] = {}
            others = [field for field in fields if field not in same]
            for begin in range(0, len(others), _AT_ONCE):
                some = others[begin : begin + _AT_ONCE]
                kept: list[Any] = await self._client.hmget(key, some)
                found |= {field: one for field, one in zip(some, kept, strict=True) if one is not None}
        return {named[field]: before[named[field]] for field in same} | dict(_readable(found, read))

    async def register(self, service: str, replica: str, address: str, version: str, content: bytes) -> None:
        """Note that a replica of a service is at an address, and what its version is.

        Raises:
            StoreLost: It may be noted.
        """
        await steps.register(
            self._scripts, self._keys, service, replica, address=address, version=version, content=content
        )

    async def withdraw(self, service: str, replica: str) -> None:
        """Note that a replica stops: if others live, it is forgotten, and what it alone had.

        Raises:
            StoreLost: It may be noted.
        """
        await steps.withdraw(self._scripts, self._keys, service, replica)

    async def register_courier(self, courier: str) -> None:
        """Note that a courier is there.

        Raises:
            StoreLost: It may be noted.
        """
        await steps.register_courier(self._scripts, self._keys, courier)

    async def withdraw_courier(self, courier: str) -> None:
        """Note that a courier stops.

        Raises:
            StoreLost: It may be noted.
        """
        await steps.withdraw_courier(self._scripts, self._keys, courier)

    async def forget(self, service: str) -> None:
        """Forget a service: what is shipped of it, its versions and its replicas.

        Raises:
            StoreLost: It may be forgotten.
        """
        await steps.forget(self._scripts, self._keys, service)

    async def clear(self) -> None:
        """Forget replicas and couriers that have not registered for long, and versions that were retired long ago.

        Raises:
            StoreLost: It may be done.
        """
        await steps.clear(self._scripts, self._keys)

    async def file_again(self, known: Snapshot) -> None:
        """Write what another store knew, where this one knows nothing of it. Who is gone by now is forgotten again."""
        with writing(several=True):
            now = (await self._client.time())[0]
            for (service, name), version in known.versions.items():
                await steps.file_version(
                    self._scripts, self._keys, f"{service} {name}", version.content,
                    register_time=version.register_time, retire_time=version.retire_time,
                )  # fmt: skip
            for (service, name), place in known.places.items():
                who = f"{service} {name}"
                # First its lease: a place without one would stay for good.
                await steps.file_replica(self._scripts, self._keys, who, now=now)
                said = [place.version, place.address, *([_STOPPED] if place.stopped else [])]
                await self._client.hsetnx(self._keys.places, who, " ".join(said))
            for courier in known.couriers:
                await steps.file_replica(self._scripts, self._keys, f"{_COURIERS}{courier}", now=now)
            # What it has now it did not have before, so nobody takes it for what it was.
            await self._client.incr(self._keys.catalogue_noted)
            await self._client.incr(self._keys.catalogue_version)

    async def pin_fingerprint(self, fingerprint: str) -> bool:
        """Return whether ids on this Redis are signed with the key of this fingerprint; the first one sets it."""
        with writing(several=True):
            await self._client.set(self._keys.id_key_fingerprint, fingerprint, nx=True)
            return text(await self._client.get(self._keys.id_key_fingerprint)) == fingerprint


def _names(key: str) -> tuple[str, str]:
    service, _, name = key.partition(" ")
    return service, name


def _field(name: str | tuple[str, str]) -> bytes:
    """Return the field of a hash in which something of this name is kept."""
    return (name if isinstance(name, str) else " ".join(name)).encode()


def _shipped(field: bytes, entry: bytes) -> tuple[str, bytes]:
    return text(field), entry


def _version(retired: Mapping[bytes, float], field: bytes, kept: bytes) -> tuple[tuple[str, str], Version]:
    content, register_time = steps.version_of(kept)
    retire_time = steps.retire_time_of(retired[field]) if field in retired else None
    return _names(text(field)), Version(content, register_time, retire_time)


def _readable(
    found: Mapping[Any, Any], read: Callable[[Any, Any], tuple[KeyT, ValueT]]
) -> Iterator[tuple[KeyT, ValueT]]:
    """Read what is kept; what can't be read is passed over, for the rest is not to suffer for it."""
    for key, kept in found.items():
        try:
            yield read(key, kept)
        except ValueError as error:
            _log.error("catalogue record passed over", record=repr(key)[:_SHOWN], error=str(error))


def _place(kept: str) -> Place:
    version, address, *stopped = kept.split(" ")
    return Place(version, address, stopped=bool(stopped))
