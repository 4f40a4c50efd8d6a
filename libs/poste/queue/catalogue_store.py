"""Where the catalogue is kept: entries are bytes here, what they mean is known in `poste.rpc.catalogue`."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, cast

from redis.exceptions import RedisError

from poste.domain.errors import StoreUnreached
from poste.queue.connection import text
from poste.queue.keys import KEYS, Keys

if TYPE_CHECKING:
    import redis.asyncio as redis

#: A replica that has not registered for this long, in seconds, is no longer listed.
REPLICA_SECONDS: Final = 60.0


class CatalogueStore:
    """The catalogue on one Redis. Every method raises StoreUnreached if Redis does not answer; all can be repeated."""

    def __init__(self, client: redis.Redis, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys

    async def store_id(self) -> str:
        """Return this store's name: a random one that it is given if it has none, for then it was empty."""
        try:
            found = await self._client.get(self._keys.store_id)
            if found is None:
                await self._client.set(self._keys.store_id, secrets.token_hex(8), nx=True)
                found = await self._client.get(self._keys.store_id)
        except RedisError as error:
            raise StoreUnreached(str(error)) from error
        if found is None:
            raise StoreUnreached("Redis lost its name as soon as it had it")
        return text(found)

    async def version(self) -> int:
        """Return a number that grows with every change."""
        try:
            return int(await self._client.get(self._keys.catalogue_version) or 0)
        except RedisError as error:
            raise StoreUnreached(str(error)) from error

    async def entries(self) -> dict[str, bytes]:
        """Return every service's entry by its name."""
        try:
            found = await self._client.hgetall(self._keys.catalogue)
        except RedisError as error:
            raise StoreUnreached(str(error)) from error
        return {text(name): cast("bytes", entry) for name, entry in found.items()}

    async def save(self, service: str, entry: bytes) -> None:
        """Write one service's entry."""
        try:
            await self._client.hset(self._keys.catalogue, service, entry)
            await self._client.incr(self._keys.catalogue_version)
        except RedisError as error:
            raise StoreUnreached(str(error)) from error

    async def see_replica(self, service: str, address: str) -> bool:
        """Note that a replica of a service is at an address; returns whether it was not listed before."""
        try:
            now = (await self._client.time())[0]
            fresh = await self._client.zadd(self._keys.replicas, {f"{service} {address}": now})
            if fresh:
                await self._client.incr(self._keys.catalogue_version)
        except RedisError as error:
            raise StoreUnreached(str(error)) from error
        return bool(fresh)

    async def replicas(self) -> dict[str, list[str]]:
        """Return the addresses of each service's replicas that registered lately, in order."""
        try:
            now = (await self._client.time())[0]
            found = await self._client.zrange(self._keys.replicas, int(now - REPLICA_SECONDS), "+inf", byscore=True)
        except RedisError as error:
            raise StoreUnreached(str(error)) from error
        replicas: dict[str, list[str]] = {}
        for member in sorted(text(one) for one in found):
            service, _, address = member.partition(" ")
            replicas.setdefault(service, []).append(address)
        return replicas

    async def forget_replicas(self) -> None:
        """Remove replicas that have not registered for long."""
        try:
            now = (await self._client.time())[0]
            if await self._client.zremrangebyscore(self._keys.replicas, "-inf", int(now - REPLICA_SECONDS)):
                await self._client.incr(self._keys.catalogue_version)
        except RedisError as error:
            raise StoreUnreached(str(error)) from error

    async def pin_fingerprint(self, fingerprint: str) -> bool:
        """Tell whether ids on this Redis are signed with the key of this fingerprint; the first one sets it."""
        try:
            await self._client.set(self._keys.id_key_fingerprint, fingerprint, nx=True)
            return text(await self._client.get(self._keys.id_key_fingerprint)) == fingerprint
        except RedisError as error:
            raise StoreUnreached(str(error)) from error
