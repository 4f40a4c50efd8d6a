"""The gauges that are not kept as things happen, but looked at when somebody asks: replicas, and what clients take."""

from __future__ import annotations

from poste.runtime import metrics
from poste_gateway.limits.capacity import Capacity
from poste_gateway.upstream.catalogue import ServiceCatalogue


class Figures:
    """Brings them up to date."""

    def __init__(self, directory: ServiceCatalogue, room: Capacity) -> None:
        """Look at what these know."""
        self._directory = directory
        self._room = room

    async def collect(self) -> None:
        """Look; what is told of services that left the catalogue goes."""
        room = self._room
        metrics.connections.set(room.connections)
        metrics.received_bytes.set(room.received.held)
        metrics.unsent_bytes.set(room.unsent.held)
        metrics.unsent_waiting_bytes.set(room.unsent.waiting)
        for gauge in (metrics.replicas_ready, metrics.replicas_known, metrics.calls_in_flight):
            gauge.clear()
        for name, fleet in self._directory.fleets.items():
            ready, known = fleet.counts
            metrics.replicas_ready.labels(name).set(ready)
            metrics.replicas_known.labels(name).set(known)
            metrics.calls_in_flight.labels(name).set(fleet.in_flight)
            for reason in metrics.FAILOVER_REASONS:
                # There from the start: what begins with its first one has no rate for it.
                metrics.failovers(name, reason)
