"""The gateway's gauges that are read at each scrape: replicas, and what clients take of the gateway."""

from __future__ import annotations

from poste.runtime import metrics
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.limits.capacity import Capacity


class Figures:
    """Sets the gauges before a scrape."""

    def __init__(self, catalogue: ServiceCatalogue, capacity: Capacity) -> None:
        """Read from these at each scrape."""
        self._catalogue = catalogue
        self._capacity = capacity

    async def collect(self) -> None:
        """Set the gauges; those of services that left the catalogue disappear."""
        capacity = self._capacity
        metrics.connections.set(capacity.connections)
        metrics.received_bytes.set(capacity.received.held)
        metrics.unsent_bytes.set(capacity.unsent.held)
        metrics.received_max_bytes.set(capacity.received.limit)
        metrics.unsent_max_bytes.set(capacity.unsent.limit)
        metrics.unsent_waiting_bytes.set(capacity.unsent.waiting)
        for gauge in (metrics.replicas_ready, metrics.replicas_known, metrics.calls_in_flight):
            gauge.clear()
        for name, pool in self._catalogue.pools.items():
            ready, known = pool.counts
            metrics.replicas_ready.labels(name).set(ready)
            metrics.replicas_known.labels(name).set(known)
            metrics.calls_in_flight.labels(name).set(pool.in_flight)
            for reason in metrics.FAILOVER_REASONS:
                # Created at 0, so that rate() sees the first increment.
                metrics.failovers(name, reason)
