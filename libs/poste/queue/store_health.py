"""Whether Redis can be trusted with a call now: it keeps on disk what it answers, and has memory to spare.

Every master of a cluster answers for its own queues.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError, StoreUnreached
from poste.queue import durability
from poste.queue.connection import is_cluster, name_of, server_of, servers_of
from poste.queue.durability import Durability, KeepsTooLittle
from poste.queue.errors import reading
from poste.queue.keys import Keys
from poste.runtime import logs

if TYPE_CHECKING:
    import redis.asyncio as redis
    from redis.asyncio.connection import AbstractConnection

    from poste.runtime.settings import MomSettings

_log = logs.get("store")
#: New calls are refused from this share of `maxmemory` on: the rest is for those that are accepted already.
_FULL: Final = 0.9
#: How often Redis' configuration and memory are checked, in seconds.
_CHECK_SECONDS: Final = 1.0


class StoreHealth:
    """What was last found out about Redis."""

    def __init__(self, settings: MomSettings) -> None:
        self._settings = settings
        self._keys = Keys(settings.key_prefix)
        self._client: redis.Redis | None = None
        self._servers: dict[redis.Redis, _Server] = {}
        self._unreached = "Redis was not reached yet"

    @property
    def trouble(self) -> str | None:
        """Why new calls are refused, or None; in a cluster None as long as one master takes them."""
        troubles = [server.trouble for server in self._servers.values()] or [self._unreached]
        return None if None in troubles else troubles[0]

    async def connected(self, _: AbstractConnection) -> None:
        """Forget what is known: this may be another server, or the same with other settings."""
        for server in self._servers.values():
            server.forget()

    async def watch(self, client: redis.Redis) -> None:
        """Check Redis for as long as the process lives."""
        self._client = client
        while True:
            try:
                found = await servers_of(client)
            except StoreError as error:
                self._servers, self._unreached = {}, str(error)
            else:
                self._servers = {one: self._server(one) for one in found}
            async with asyncio.TaskGroup() as group:
                for server in list(self._servers.values()):
                    group.create_task(server.check())
            await asyncio.sleep(_CHECK_SECONDS)

    async def durability(self, queue: str) -> Durability:
        """Return what a reply of the Redis that holds a queue proves.

        Raises:
            StoreUnreached: It must not be given calls now; the text says why.
            StoreNotRead: It can't be asked whether it may.
        """
        return await (await self._holder(queue)).durability()

    async def proof(self, queue: str) -> Durability:
        """Return what its reply proves to those who go on whatever it keeps: what was accepted is to end.

        Raises:
            StoreUnreached, StoreNotRead: It can't be asked.
        """
        try:
            return await (await self._holder(queue)).known()
        except KeepsTooLittle:
            return Durability.AS_DECLARED

    async def free_bytes(self, queue: str) -> int | None:
        """Return how much more the Redis that holds a queue takes before it is full; None if it has no limit.

        Raises:
            StoreUnreached: It is not known which one that is.
        """
        return (await self._holder(queue)).free_bytes

    async def limit_bytes(self, queue: str) -> int | None:
        """Return how much the Redis that holds a queue takes in all before it is full; None if it has no limit.

        Raises:
            StoreUnreached: It is not known which one that is.
        """
        return (await self._holder(queue)).limit_bytes

    async def give(self, queue: str, size: int) -> None:
        """Note that so many bytes were just given to a queue: until its Redis is asked again, that is what is known.

        Raises:
            StoreUnreached: It is not known which one that is.
        """
        (await self._holder(queue)).give(size)

    async def _holder(self, queue: str) -> _Server:
        if self._client is None:
            raise StoreUnreached(self._unreached)
        holder = await server_of(self._client, self._keys.of(queue).ready)
        self._servers[holder] = self._server(holder)
        return self._servers[holder]

    def _server(self, client: redis.Redis) -> _Server:
        return self._servers.get(client) or _Server(self._settings, client)


class _Server:
    """One server, found out anew after every new connection."""

    def __init__(self, settings: MomSettings, client: redis.Redis) -> None:
        self._settings = settings
        self._client = client
        self._known: Durability | None = None
        self._full: str | None = None
        #: What may still be given to it; None if it has no limit, or was not asked yet.
        self.free_bytes: int | None = None
        #: And of how much that is the rest.
        self.limit_bytes: int | None = None
        self._warned_unlimited = False
        self._why: str | None = "Redis was not reached yet"
        self._checking = asyncio.Lock()

    @property
    def trouble(self) -> str | None:
        return self._why or self._full

    def forget(self) -> None:
        self._known = None

    def give(self, size: int) -> None:
        if self.free_bytes is not None:
            self.free_bytes = max(0, self.free_bytes - size)

    async def check(self) -> None:
        self._known = None
        try:
            await self.known()
            await self._check_memory()
        except StoreError as error:
            if self._why != str(error):
                _log.error("calls are not accepted", server=name_of(self._client), reason=str(error))
            self._why = str(error)

    async def durability(self) -> Durability:
        if self._full is not None:
            raise StoreUnreached(self._full)
        return await self.known()

    async def known(self) -> Durability:
        known = self._known
        if known is not None:
            return known
        async with self._checking:
            if self._known is None:
                found = await durability.check(
                    self._client,
                    in_cluster=is_cluster(self._settings),
                    keeps=self._settings.redis_keeps,
                    accept_losing_last_second=self._settings.accept_losing_last_second,
                    accept_losing_everything=self._settings.accept_losing_everything,
                )
                # Set after the check, for the check itself may have made the connection that cleared it.
                self._known, self._why = found, None
                return found
            return self._known

    async def _check_memory(self) -> None:
        with reading():
            memory = await self._client.info("memory")
        used, limit = int(memory["used_memory"]), int(memory["maxmemory"])
        full = limit > 0 and used > limit * _FULL
        self._full = f"Redis holds {used} of {limit} bytes" if full else None
        self.limit_bytes = int(limit * _FULL) if limit > 0 else None
        self.free_bytes = None if self.limit_bytes is None else max(0, self.limit_bytes - used)
        if not (limit or self._warned_unlimited):
            self._warned_unlimited = True
            _log.warning(
                "Redis has no maxmemory: what it is given may take all of its host's", server=name_of(self._client)
            )
