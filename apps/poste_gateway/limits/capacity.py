"""How much of the gateway its clients may take, all together and each: connections, and bytes that are held for them.

A reverse proxy brings everybody's requests over its own connections, so what counts for one client must not count for
it: those that the settings name are bounded by what there is for all.
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

#: Descriptors that are not for clients: channels, files, listeners.
_OWN_DESCRIPTORS: Final = 128
#: Of all connections this part is made free when there is no room for one more.
_FREED: Final = 16

_log: Final = logs.get("capacity")


class NoCapacityError(ConnectionError):
    """There is no room for what a client sends."""


class Capacity:
    """What there is, and who has how much of it.

    Attributes:
        received: Bytes that clients sent and that are not answered yet: heads, bodies, and the calls they became.
        unsent: Bytes of answers that clients have not taken; large ones count from before they are sent for.
        connections: How many there are.
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
        """Take the limits.

        Args:
            max_connections: How many connections all clients may have.
            max_peer_connections: How many one may have.
            max_received_bytes: How many bytes they may have sent that are not answered; half of it one.
            max_unsent_bytes: How many bytes of answers they may leave unread; half of it one. Three times as many may
                wait with their services until there is room.
            trusted: Where the proxies are that have no share of their own.
        """
        self.received = Budget(max_received_bytes, max_received_bytes // 2)
        self.unsent = PatientBudget(max_unsent_bytes, max_unsent_bytes // 2)
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_connections = max(1, min(max_connections, descriptors - _OWN_DESCRIPTORS))
        self._max_peer_connections = max_peer_connections
        self._trusted = tuple(trusted)
        self.connections = 0
        self._of = Counts()
        #: Each closes as many idle connections as it is told, and returns how many these were.
        self._closers: list[Callable[[int], int]] = []
        self._seldom = LogThrottle(_log, "warning")

    def whose(self, address: str | None) -> str:
        """Return the client at an address, whose share is counted by that; empty for who has no share of its own."""
        if not address:
            return ""
        found = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        if any(found in network for network in self._trusted):
            return ""
        return peer_of(address)

    def closes_idle(self, close: Callable[[int], int]) -> None:
        """Know of something that can close idle connections."""
        self._closers.append(close)

    def closes_idle_no_more(self, close: Callable[[int], int]) -> None:
        """Know that it has ended."""
        self._closers.remove(close)

    def enter(self, peer: str, address: str) -> bool:
        """Let one connection more in, or not.

        Where all are in use, those that were idle longest go first: a client whose connection was closed while it was
        idle makes another; one that finds no way in has nothing.
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
        """Know that a connection ended."""
        self.connections -= 1
        if peer:
            self._of.remove(peer)

    def free(self) -> bool:
        """Close connections that were idle longest; returns whether there were any."""
        wanted = max(1, self._max_connections // _FREED)
        closed = 0
        for close in self._closers:
            closed += close(wanted - closed)
            if closed >= wanted:
                break
        if closed:
            metrics.connections_cut_total.labels("crowded").inc(closed)
            self._seldom.tell("idle connections closed", "crowded", closed=closed, limit=self._max_connections)
        return closed > 0

    def cut(self, reason: str, addresses: list[str]) -> None:
        """Count and log that connections were ended; `reason` is one of `metrics.CUT_REASONS`."""
        metrics.connections_cut_total.labels(reason).inc(len(addresses))
        self._seldom.tell("connections ended", reason, ended=len(addresses), peer=addresses[0])
