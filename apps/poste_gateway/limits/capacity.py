"""Limits on connections and held bytes, for all clients together and for each.

A reverse proxy brings many clients' requests over its own connections. So the trusted proxies of the settings have no
limit of their own; only those for all clients bound them.
"""

from __future__ import annotations

import ipaddress
import resource
from collections.abc import Callable, Iterable
from typing import Final

from poste.runtime import logs, metrics
from poste.runtime.counts import Counts
from poste.runtime.log_throttle import LogThrottle
from poste.runtime.setting_values import Network
from poste_gateway.limits.budgets import Budget, PatientBudget
from poste_gateway.limits.clients import peer_of
from poste_gateway.limits.refusals import refuse

#: File descriptors that are kept for other uses: channels, files, listeners.
_OWN_DESCRIPTORS: Final = 128
#: One in so many connections is closed, if idle, when there is no room for one more.
_FREED: Final = 16

_log: Final = logs.get("capacity")


class NoCapacityError(ConnectionError):
    """There is no room for what a client has sent."""


class Capacity:
    """The limits, and how much of them is in use.

    Attributes:
        received: Bytes of requests that are not answered yet: heads, bodies, and the calls they became.
        unsent: Bytes of responses that clients have not read; large ones count before the service sends them.
        connections: How many are open.
    """

    def __init__(
        self,
        *,
        max_connections: int = 2500,
        max_peer_connections: int = 1000,
        max_received_bytes: int = 40 * 2**20,
        max_unsent_bytes: int = 40 * 2**20,
        trusted: Iterable[Network] = (),
    ) -> None:
        """Set the limits.

        Args:
            max_connections: How many connections all clients may have; fewer if the process may not open as many files.
            max_peer_connections: How many one client may have.
            max_received_bytes: How many bytes of unanswered requests are held; half of it for one client.
            max_unsent_bytes: How many bytes of unread responses are held; half of it for one client. Three times as
                many may wait at their services until there is room.
            trusted: The networks of the proxies that have no limit of their own.
        """
        self.received = Budget(max_received_bytes, max_received_bytes // 2)
        self.unsent = PatientBudget(max_unsent_bytes, max_unsent_bytes // 2)
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_connections = max(1, min(max_connections, descriptors - _OWN_DESCRIPTORS))
        self._max_peer_connections = max_peer_connections
        self._trusted = tuple(trusted)
        self.connections = 0
        self._of = Counts()
        #: Each closes up to so many idle connections, and returns how many it closed.
        self._closers: list[Callable[[int], int]] = []
        self._seldom = LogThrottle(_log, "warning")

    def whose(self, address: str | None) -> str:
        """Return the client at an address, as shares are counted; empty for a trusted proxy, which has none."""
        if not address:
            return ""
        found = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        if any(found in network for network in self._trusted):
            return ""
        return peer_of(address)

    def closes_idle(self, close: Callable[[int], int]) -> None:
        """Register a function that closes up to so many idle connections and returns how many it closed."""
        self._closers.append(close)

    def closes_idle_no_more(self, close: Callable[[int], int]) -> None:
        """Unregister it."""
        self._closers.remove(close)

    def enter(self, peer: str, address: str) -> bool:
        """Count one connection more; return False if the limits don't allow it.

        If all are in use, those that were idle longest are closed to make room. A client whose idle connection was
        closed opens another; a client that is refused gets no service at all.
        """
        if peer and self._of[peer] >= self._max_peer_connections:
            refuse("peer-connections", peer=address, limit=self._max_peer_connections)
            return False
        if self.connections >= self._max_connections and not self.free():
            refuse("connections", peer=address, limit=self._max_connections)
            return False
        self.connections += 1
        if peer:
            self._of.add(peer)
        return True

    def leave(self, peer: str) -> None:
        """Count one connection less."""
        self.connections -= 1
        if peer:
            self._of.remove(peer)

    def free(self) -> bool:
        """Close the connections that were idle longest; return whether there were any."""
        wanted = max(1, self._max_connections // _FREED)
        closed = 0
        for close in self._closers:
            closed += close(wanted - closed)
            if closed >= wanted:
                break
        if closed:
            metrics.connections_cut_total.labels("crowded").inc(closed)
            self._seldom.write("idle connections closed", "crowded", closed=closed, limit=self._max_connections)
        return closed > 0

    def cut(self, reason: str, addresses: list[str]) -> None:
        """Count and log that connections were ended; `reason` is one of `metrics.CUT_REASONS`."""
        metrics.connections_cut_total.labels(reason).inc(len(addresses))
        self._seldom.write("connections ended", reason, ended=len(addresses), peer=addresses[0])
