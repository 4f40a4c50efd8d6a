"""The health of a service as the page shows it, its light: `up`, `busy`, `away`, or `hung` if it does not answer."""

from __future__ import annotations

import asyncio
from typing import Final

from poste.rpc import hang_probe
from poste.upstream.replica_pool import ReplicaPool

_HUNG: Final = "hung"
_AWAY: Final = "away"
#: How long a replica may take to answer a probe, in seconds.
_PATIENCE_SECONDS: Final = 0.5
#: How long a replica that hung is not probed again, in seconds: each probe's connection stays in its backlog until it
#: goes on.
_BELIEF_SECONDS: Final = 5.0


class Health:
    """Returns the services' lights. Probes a service that is away when a snapshot is made: it may hang instead."""

    def __init__(self) -> None:
        #: When to knock again at the addresses where something hung.
        self._hung: dict[str, float] = {}

    async def of(self, pool: ReplicaPool) -> str:
        """Return the light of one service."""
        availability = pool.availability
        if availability != _AWAY:
            return availability
        if pool.shunned:
            return _HUNG
        now = asyncio.get_running_loop().time()
        knocks = [self._hangs(replica.address, now, tls=replica.tls) for replica in pool.replicas if replica.listed]
        return _HUNG if any(await asyncio.gather(*knocks)) else _AWAY

    async def _hangs(self, address: str, now: float, *, tls: bool) -> bool:
        if now < self._hung.get(address, now):
            return True
        # Those whose time is over go: an address that left its service is never asked for again.
        self._hung = {one: end for one, end in self._hung.items() if end > now}
        hangs = await hang_probe.accepts_but_silent(address, _PATIENCE_SECONDS, tls=tls)
        if hangs:
            self._hung[address] = now + _BELIEF_SECONDS
        return hangs
