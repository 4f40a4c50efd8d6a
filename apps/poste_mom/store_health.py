"""Whether Redis can be trusted with a call now: durable, and with memory to spare."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from poste.domain.errors import StoreUnreached
from poste.queue import durability
from poste.runtime import logs

if TYPE_CHECKING:
    import redis.asyncio as redis
    from redis.asyncio.connection import AbstractConnection

    from poste.queue.durability import Durability
    from poste.runtime.settings import MomSettings

_log = logs.get("store")
#: New calls are refused from this share of `maxmemory` on: the rest is for those that are accepted already.
_FULL: Final = 0.9
#: How often Redis' configuration and memory are looked at, in seconds.
_LOOK_SECONDS: Final = 1.0


class StoreHealth:
    """What was last found out about Redis, found out anew after every new connection."""

    def __init__(self, settings: MomSettings) -> None:
        self._settings = settings
        self._client: redis.Redis | None = None
        self._known: Durability | None = None
        self._full: str | None = None
        self._why: str | None = "Redis was not reached yet"
        self._checking = asyncio.Lock()

    @property
    def trouble(self) -> str | None:
        """Why new calls are refused, or None."""
        return self._why or self._full

    async def connected(self, _: AbstractConnection) -> None:
        """Forget what is known: this may be another server, or the same with other settings."""
        self._known = None

    async def watch(self, client: redis.Redis) -> None:
        """Look at Redis for as long as the process lives."""
        self._client = client
        while True:
            self._known = None
            try:
                # First: as long as the memory counts as full, nothing else is looked at.
                await self._look_at_memory(client)
                await self.durability()
            except (StoreUnreached, RedisError) as error:
                if self._why != str(error):
                    _log.error("calls are not accepted", reason=str(error))
                self._why = str(error)
            await asyncio.sleep(_LOOK_SECONDS)

    async def durability(self) -> Durability:
        """Return what a reply of this Redis proves.

        Raises:
            StoreUnreached: It must not be given calls now; the text says why.
        """
        if self._full is not None:
            raise StoreUnreached(self._full)
        known = self._known
        if known is not None:
            return known
        if self._client is None:
            raise StoreUnreached("Redis was not reached yet")
        async with self._checking:
            if self._known is None:
                found = await durability.check(
                    self._client,
                    accept_losing_last_second=self._settings.accept_losing_last_second,
                    accept_losing_everything=self._settings.accept_losing_everything,
                )
                # Set after the check, for the check itself may have made the connection that cleared it.
                self._known, self._why = found, None
                return found
            return self._known

    async def _look_at_memory(self, client: redis.Redis) -> None:
        memory = await client.info("memory")
        used, limit = int(memory["used_memory"]), int(memory["maxmemory"])
        full = limit > 0 and used > limit * _FULL
        self._full = f"Redis holds {used} of {limit} bytes" if full else None
