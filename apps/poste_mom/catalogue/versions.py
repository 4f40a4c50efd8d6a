"""Makes a service's catalogue entry of what the store has: the valid versions, and the replicas of each.

A version is valid while a living replica has it, and while no replica lives. Versions are identified by their content,
never by when a process started: an old replica that starts again does not replace a newer version.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from poste.domain.sizes import MAX_PAYLOAD
from poste.rpc.catalogue import weigh
from poste.runtime import logs
from poste.v1 import catalogue_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from poste.queue.catalogue_store import KnownService, Place, Snapshot, Version
    from poste.v1 import mom_service_pb2

_log = logs.get("catalogue")
_NAME_LENGTH: Final = 16


def registered(request: mom_service_pb2.RegisterServiceRequest) -> catalogue_pb2.ServiceVersion:
    """Return the version that a replica says it has."""
    return catalogue_pb2.ServiceVersion(
        file_descriptor_set=request.file_descriptor_set,
        methods=request.methods,
        author_settings=request.author_settings if request.HasField("author_settings") else None,
    )


def name_of(content: bytes) -> str:
    """Name a version by its content."""
    return hashlib.sha256(content).hexdigest()[:_NAME_LENGTH]


def alone(
    service: str, version: catalogue_pb2.ServiceVersion, by_deployment: catalogue_pb2.CatalogueService | None
) -> catalogue_pb2.CatalogueService:
    """Return the entry of a service that has this version only, under the deployment's settings."""
    entry = catalogue_pb2.CatalogueService(name=service, library=True)
    if by_deployment is not None:
        entry.settings.CopyFrom(by_deployment.settings)
    _describe_by(entry, version)
    return entry


def services(known: Snapshot) -> list[str]:
    """Return the names of all services."""
    return sorted({*known.shipped, *(service for service, _ in known.versions)})


def entry_of(name: str, known: KnownService) -> catalogue_pb2.CatalogueService:
    """Return a service's entry.

    Raises:
        DecodeError: What the deployment ships of it can't be read.
    """
    entry = catalogue_pb2.CatalogueService(name=name)
    if known.shipped is not None:
        entry.MergeFromString(known.shipped)
    entry.library = bool(known.versions)
    entry.courier = not known.versions and known.couriers
    standing, retired = {}, []
    for version, kept in _by_age(known):
        try:
            parsed = catalogue_pb2.ServiceVersion.FromString(kept.content)
        except DecodeError as error:
            _log.error("version passed over", service=name, version=version, error=str(error))
            continue
        if kept.retire_time is None:
            standing[version] = parsed
        else:
            retired.append(parsed)
    if entry.reflect and not standing:
        _show_read(entry, known.read)
    shipped = catalogue_pb2.ServiceVersion(
        file_descriptor_set=entry.file_descriptor_set, weight=entry.weight, taken_routes=entry.taken_routes
    )
    entry.ClearField("taken_routes")
    others = [*standing.values(), *([shipped] if entry.file_descriptor_set else [])]
    if others:
        _describe_by(entry, others.pop(0))
        entry.others.extend(others)
    methods = {method for version in standing.values() for method in version.methods}
    entry.others.extend(needed(retired, methods))
    places = [place for _, place in sorted(known.places.items())]
    addresses = sorted({place.address for place in places})
    entry.targets[:] = list(dict.fromkeys([*entry.targets, *addresses]))
    for address in addresses:
        if lacks := methods - _methods_at(address, places, standing):
            entry.lacking.add(address=address, methods=sorted(lacks))
    while entry.others and entry.ByteSize() > MAX_PAYLOAD:
        # The oldest go, so that the newest fit their message.
        del entry.others[-1]
        _log.warning("version left out: too many bytes", service=name)
    return entry


def _show_read(entry: catalogue_pb2.CatalogueService, read: Mapping[str, bytes]) -> None:
    """Have an entry describe what its replicas say of themselves that are there now: those of several versions may be.

    What stands in the store is what was read last; if no replica says that any more, it describes results only.
    """
    there = list(dict.fromkeys(read.values()))
    last = entry.file_descriptor_set
    if not there or not last:
        return
    others = [files for files in reversed(there) if files != last]
    if last not in there:
        before = catalogue_pb2.ServiceVersion(file_descriptor_set=last, weight=entry.weight, retired=True)
        entry.others.insert(0, before)
        entry.file_descriptor_set = others.pop(0)
        entry.weight = weigh(entry.file_descriptor_set)
        entry.ClearField("taken_routes")
    for place, files in enumerate(others):
        entry.others.insert(place, catalogue_pb2.ServiceVersion(file_descriptor_set=files, weight=weigh(files)))


def newest_first(known: KnownService) -> list[str]:
    """Return the names of the versions of a service that stand."""
    return [name for name, version in _by_age(known) if version.retire_time is None]


def _by_age(known: KnownService) -> list[tuple[str, Version]]:
    return sorted(known.versions.items(), key=lambda one: (-one[1].register_time, one[0]))


def served(service: str, known: Snapshot) -> frozenset[str] | None:
    """Return the short names of the methods that a living replica of a service has; None if none lives."""
    here = {place.version for (name, _), place in known.places.items() if name == service and not place.stopped}
    if not here:
        return None
    contents = (known.versions[service, version].content for version in here if (service, version) in known.versions)
    return frozenset(
        method for content in contents for method in catalogue_pb2.ServiceVersion.FromString(content).methods
    )


def _describe_by(entry: catalogue_pb2.CatalogueService, version: catalogue_pb2.ServiceVersion) -> None:
    """Make a version the newest one of an entry."""
    entry.file_descriptor_set = version.file_descriptor_set
    entry.methods[:] = version.methods
    entry.weight = version.weight
    entry.taken_routes.extend(version.taken_routes)
    if version.HasField("author_settings"):
        entry.author_settings.CopyFrom(version.author_settings)


def needed(
    retired: Iterable[catalogue_pb2.ServiceVersion], described: Iterable[str]
) -> Iterator[catalogue_pb2.ServiceVersion]:
    """Return those retired versions by which results are read that no other describes."""
    seen = set(described)
    for version in retired:
        if not seen.issuperset(version.methods):
            seen.update(version.methods)
            version.retired = True
            yield version


def _methods_at(address: str, places: Iterable[Place], standing: dict[str, catalogue_pb2.ServiceVersion]) -> set[str]:
    """Return what can be called at an address: it may be that of several processes."""
    here = [standing.get(place.version) for place in places if place.address == address]
    return {method for version in here if version is not None for method in version.methods}
