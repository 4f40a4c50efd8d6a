"""The entries of services whose descriptors are read from their servers: what the server says, and what the file says.

Such an entry stands in the store as one of the catalogue file does, and outlives its server and every middleware.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from poste.domain.errors import CatalogueError
from poste.rpc.catalogue import describe
from poste.runtime import logs
from poste.v1 import catalogue_pb2
from poste_mom.catalogue import versions

if TYPE_CHECKING:
    from poste.rpc.catalogue import Service

#: How many earlier schemas of one service are kept, whose methods it has no more: their results are read by them.
_MOST_RETIRED: Final = 8
_log: Final = logs.get("catalogue")


def entry_of(
    target: str,
    service: str,
    files: bytes,
    *,
    filed: catalogue_pb2.CatalogueService | None,
    stored: catalogue_pb2.CatalogueService,
    target_tls: catalogue_pb2.TargetTls,
) -> catalogue_pb2.CatalogueService:
    """Return the entry of a service that its server has described, without its weight.

    Args:
        target: Where that is.
        service: Its full name.
        files: Its descriptors, as a FileDescriptorSet.
        filed: What this middleware's catalogue file says of it; None if nothing.
        stored: What stands in the store; empty if nothing does.
        target_tls: By what the server is known that is called over TLS.

    Raises:
        CatalogueError: The catalogue file or another server says what it is.
    """
    said = filed or (stored if stored.name else None)
    entry = catalogue_pb2.CatalogueService(name=service, targets=[target], reflect=True, target_tls=target_tls)
    if said is not None:
        if not said.reflect:
            raise CatalogueError(f"{service} is in the catalogue file, with descriptors of its own")
        if target not in said.targets:
            raise CatalogueError(f"{service} is registered at {', '.join(said.targets)} (`poste forget` takes it out)")
        entry.targets[:] = said.targets
        entry.settings.CopyFrom(said.settings)
    entry.file_descriptor_set = files
    return entry


def retired(stored: catalogue_pb2.CatalogueService, now: Service) -> list[catalogue_pb2.ServiceVersion]:
    """Return the earlier schemas by which results of methods are read that a service has no more.

    Args:
        stored: Its entry until now.
        now: What it has now.
    """
    earlier = list(stored.others)
    if stored.file_descriptor_set not in (b"", now.entry.file_descriptor_set):
        last = catalogue_pb2.ServiceVersion(file_descriptor_set=stored.file_descriptor_set, weight=stored.weight)
        with contextlib.suppress(CatalogueError):
            last.methods.extend(sorted(describe(versions.alone(stored.name, last, None)).methods))
            earlier.insert(0, last)
    return list(versions.needed(earlier, now.methods))[:_MOST_RETIRED]


def carried(filed: catalogue_pb2.CatalogueService, stored: bytes | None) -> catalogue_pb2.CatalogueService | None:
    """Return a service of the catalogue file with what its server last said; None if that is not known, or is no good.

    Args:
        filed: What the file says of it now.
        stored: What the store has of it, perhaps under another file.
    """
    try:
        last = catalogue_pb2.CatalogueService.FromString(stored or b"")
    except DecodeError:
        return None
    if not last.file_descriptor_set:
        return None
    entry = catalogue_pb2.CatalogueService()
    entry.CopyFrom(filed)
    entry.file_descriptor_set, entry.weight = last.file_descriptor_set, last.weight
    entry.taken_routes.extend(last.taken_routes)
    entry.others.extend(last.others)
    try:
        describe(entry)
    except CatalogueError as error:
        _log.error("settings not taken", service=filed.name, error=str(error))
        return None
    return entry
