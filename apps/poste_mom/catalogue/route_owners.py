"""Whose each route is: of two services that have the same one, the first by name, as in a gateway's table."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from poste.rpc.http_rules.rules import Claim

if TYPE_CHECKING:
    from poste.rpc.catalogue import Service


class RouteOwners(Mapping[Claim, str]):
    """The service that owns each route, by what the route claims."""

    def __init__(self) -> None:
        """Begin with no service."""
        self._services: Mapping[str, Service] = {}
        #: Who has each, the first by name first: nearly always one.
        self._claimants: dict[Claim, list[str]] = {}

    def __getitem__(self, claim: Claim) -> str:
        return self._claimants[claim][0]

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._claimants)

    def __len__(self) -> int:
        return len(self._claimants)

    def update(self, services: Mapping[str, Service]) -> None:
        """Take over which services there are now; only the claims of those that changed are looked at."""
        for name, service in self._services.items():
            if _claims_differ(service, services.get(name)):
                self._drop(service)
        for name, service in services.items():
            if _claims_differ(service, self._services.get(name)):
                self._put(service)
        self._services = services

    def _put(self, service: Service) -> None:
        for claim in _claims(service):
            bisect.insort(self._claimants.setdefault(claim, []), service.name)

    def _drop(self, service: Service) -> None:
        for claim in _claims(service):
            claimants = self._claimants[claim]
            claimants.remove(service.name)
            if not claimants:
                del self._claimants[claim]


def _claims_differ(service: Service, other: Service | None) -> bool:
    return other is None or other.methods is not service.methods


def _claims(service: Service) -> set[Claim]:
    return {route.claim for method in service.routed for route in method.routes}
