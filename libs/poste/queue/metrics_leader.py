"""The metrics leader: the one replica of the middleware that exposes the system's metrics (queues, Redis).

If each did, a sum over the replicas would count them several times. The leader is one that is scraped, for metrics that
Prometheus does not collect are of no use, and stays the same one while it lives and is scraped.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.queue.keys import KEYS, Keys
from poste.queue.scripts import Scripts
from poste.queue.steps.leader import lead

if TYPE_CHECKING:
    import redis.asyncio as redis

#: How soon after its death another takes over, in seconds.
_TERM_SECONDS: Final = 5.0
_RENEW_SECONDS: Final = 1.0
#: One that was not asked for so long, in seconds, steps down; longer than anybody's scrape interval.
_FORGOTTEN_SECONDS: Final = 150.0


class MetricsLeader:
    """One replica's candidacy."""

    def __init__(self, client: redis.Redis, keys: Keys = KEYS) -> None:
        self._keys = keys
        self._scripts = Scripts(client)
        self._name = secrets.token_hex(8)
        self._asked = -math.inf
        self._leads = False

    async def is_leader(self) -> bool:
        """Return whether this replica is to export the system-wide metrics now."""
        self._asked = time.monotonic()
        await self._renew(_TERM_SECONDS)
        return self._leads

    async def hold(self) -> None:
        """Renew leadership while scraped; resign after 150 s without a scrape. Runs until cancelled."""
        try:
            while True:
                await asyncio.sleep(_RENEW_SECONDS)
                if self._leads:
                    forgotten = time.monotonic() - self._asked > _FORGOTTEN_SECONDS
                    await self._renew(0 if forgotten else _TERM_SECONDS)
        finally:
            if self._leads:
                await self._renew(0)

    async def _renew(self, seconds: float) -> None:
        # Without an answer it stays as it was. Should another have taken over meanwhile, no figure is exported twice:
        # this replica can't read any either, and shows only that it does not reach Redis.
        with contextlib.suppress(StoreError):
            self._leads = await lead(self._scripts, self._keys, self._name, seconds=seconds)
