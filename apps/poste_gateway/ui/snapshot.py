"""A snapshot for the page: the services with their lights and their queues' figures, and the newest tasks.

::

    {"time": "…", "gateway": "host-1", "middleware": true,
     "services": [{"name": "calculator.v1.SumService", "light": "up" | "busy" | "away" | "hung" | "unlisted",
                   "replicas": {"ready": 1, "known": 1},
                   "direct": {"rate": 103.2, "errorRate": 0.1, "p99Seconds": 0.0049},
                   "figures": {"queued": 0, "running": 0, "delayed": 0, "dead": 0, "kept": 5,
                               "keptBytes": 1560, "heldBytes": 1560, "maxHeldBytes": 239075328,
                               "oldestAgeSeconds": null, "paused": false, "standsStill": false, "consumers": 1,
                               "enqueued": 5, "replayed": 0, "ended": 5,
                               "inRate": 0.0, "outRate": 0.0, "etaSeconds": null}}],
     "tasks": [{…a task without its response and error…}]}

`unlisted`: the service left the catalogue, and its queue is still there. `figures` is null while the middleware is
away. The rates are in tasks a second, and null at first. `direct` are the calls that this one gateway, whose host is
`gateway`, answered by the direct road in the last ten seconds (see `traffic`); null at first. `tasks` are the newest of
all queues, the newest first.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
from collections.abc import Mapping
from typing import Any, Final

from poste.domain.task_id import TaskIds
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.http.problems import Problem
from poste_gateway.mom import Mom
from poste_gateway.tasks.listings import Listings
from poste_gateway.ui.health import Health
from poste_gateway.ui.newest import Newest
from poste_gateway.ui.traffic import Traffic

_UNLISTED: Final = "unlisted"
_NO_CALLS: Final = {"rate": 0.0, "errorRate": 0.0, "p99Seconds": None}
_NO_REPLICAS: Final = {"ready": 0, "known": 0}
#: The fields of a queue's figures that repeat the service's name.
_NAMES: Final = ("queue", "service")


class Snapshots:
    """Takes snapshots."""

    def __init__(self, catalogue: ServiceCatalogue, mom: Mom, listings: Listings, ids: TaskIds) -> None:
        """Connect the parts; nothing is read yet.

        Args:
            catalogue: The services.
            mom: The middleware, for the tasks.
            listings: Reads the queues' figures.
            ids: Makes the tasks' ids from their keys.
        """
        self._catalogue = catalogue
        self._mom = mom
        self._listings = listings
        self._health = Health()
        self._newest = Newest(mom, ids)
        self._traffic = Traffic()
        self._host = socket.gethostname()

    async def take(self, tasks: bool) -> dict[str, Any]:
        """Return a snapshot as JSON values; what can't be read now is null.

        Args:
            tasks: Whether to add the newest tasks, if they can be read.
        """
        pools = dict(self._catalogue.pools)
        queues, *lights = await asyncio.gather(self._queues(), *(self._health.of(pool) for pool in pools.values()))
        light = dict(zip(pools, lights, strict=True))
        names = sorted({*pools, *(queues or ())})
        traffic = self._traffic.lately(asyncio.get_running_loop().time())
        snapshot = {
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "gateway": self._host,
            "middleware": queues is not None,
            "services": [
                {
                    "name": name,
                    "light": light.get(name, _UNLISTED),
                    "replicas": dict(zip(_NO_REPLICAS, pools[name].counts, strict=True))
                    if name in pools
                    else _NO_REPLICAS,
                    "direct": None if traffic is None else traffic.get(name, _NO_CALLS),
                    "figures": None if queues is None else queues.get(name),
                }
                for name in names
            ],
        }
        # Ids are made only with a key that the middleware has agreed to.
        if tasks and queues is not None and self._catalogue.key_agreed:
            snapshot["tasks"] = await self._newest.of(queues)
        return snapshot

    async def _queues(self) -> Mapping[str, dict[str, Any]] | None:
        """Return each queue's figures by its name; None if they can't be read."""
        if not await self._mom.connected(0.0):
            return None
        try:
            found = (await self._listings.queues())["queues"]
        except Problem:
            return None
        return {queue["queue"]: {name: value for name, value in queue.items() if name not in _NAMES} for queue in found}
