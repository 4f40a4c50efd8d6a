"""The catalogue in the messages of `poste.v1`: all of it for gateways, and for a replica what holds for its service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poste.domain import sizes
from poste.rpc.policies import settled
from poste.v1 import mom_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from poste.rpc.catalogue import Service
    from poste.v1 import catalogue_pb2


def registered(service: Service) -> mom_service_pb2.RegisterServiceResponse:
    """Return the answer to a replica's registration: the service's settings, and its routes that are not served."""
    response = mom_service_pb2.RegisterServiceResponse(settings=settled(service.entry))
    for method in service.routed:
        for one in method.passed_over:
            response.passed_over.add(method=method.name, verb=one.verb, path=one.path, reason=one.reason)
    return response


def changes(
    before: Mapping[str, catalogue_pb2.CatalogueService],
    now: Mapping[str, catalogue_pb2.CatalogueService],
    store_id: str,
) -> Iterator[mom_service_pb2.WatchCatalogueResponse]:
    """Yield the messages with the changes of the catalogue since what was sent last."""
    part, size = mom_service_pb2.WatchCatalogueResponse(store_id=store_id), 0
    part.removed.extend(sorted(before.keys() - now.keys()))
    for name, entry in now.items():
        if (known := before.get(name)) is entry or known == entry:
            continue
        size += entry.ByteSize()
        if part.services and size > sizes.FRAME:
            part.more = True
            yield part
            part, size = mom_service_pb2.WatchCatalogueResponse(store_id=store_id), entry.ByteSize()
        part.services.append(entry)
    yield part
