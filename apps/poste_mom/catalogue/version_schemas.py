"""The schemas that methods have in each version of a service, and which replicas would misread a call.

While replicas of several versions live, a call is written by the newest version that has its method. A replica whose
own schema is broken by that one would read something else: it is not called.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

from google.protobuf.message import DecodeError

from poste.domain.errors import CatalogueError
from poste.rpc.catalogue import describe
from poste.rpc.schemas.schema import parse
from poste.rpc.schemas.wire_rules import breaking_changes
from poste.v1 import catalogue_pb2
from poste_mom.catalogue import versions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from poste.queue.catalogue_store import KnownService
    from poste.rpc.schemas.schema import MethodSchema

    #: A method's schema by its short name.
    Schemas = Mapping[str, MethodSchema]

#: How many versions are remembered as they were read, and how many comparisons: few are ever asked for.
_MOST_READ: Final = 64
_MOST_COMPARED: Final = 1000


class _Versions(NamedTuple):
    """The versions of a service that stand, the newest first: what each says of itself, and where they are."""

    contents: Mapping[str, catalogue_pb2.ServiceVersion]
    places: Collection[tuple[str, str]]

    def at(self, address: str) -> list[str]:
        """Return the names of the versions at an address, which may be that of several processes."""
        return [version for place, version in self.places if place == address]


class VersionSchemas:
    """The schemas of versions, each read when it is asked for first."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], Schemas] = {}
        self._fit: dict[tuple[str, str], bool] = {}

    def living(self, entry: catalogue_pb2.CatalogueService, known: KnownService, method: str) -> list[MethodSchema]:
        """Return the schemas that a method has at the replicas that live."""
        if known.versions:
            places = {place.version for place in known.places.values() if not place.stopped}
        else:
            places = {version for _, version in _read(entry, known).places}
        standing = _standing(entry, known)
        found = [self._of(entry.name, version, standing) for version in sorted(places & standing.contents.keys())]
        return [schemas[method] for schemas in found if method in schemas]

    def mark(self, entry: catalogue_pb2.CatalogueService, known: KnownService) -> None:
        """Note in a service's entry which replicas have a method whose calls they would misread, or lack one."""
        standing = _standing(entry, known)
        if len({version for _, version in standing.places}) < 2:  # noqa: PLR2004 - they are all of one version
            return
        written: dict[str, MethodSchema] = {}
        for version in standing.contents:
            for method, schema in self._of(entry.name, version, standing).items():
                written.setdefault(method, schema)
        for address in sorted({address for address, _ in standing.places}):
            schemas = [self._of(entry.name, version, standing) for version in standing.at(address)]
            unlike = self._misread(written, schemas)
            # What registers says itself what it lacks.
            lacks = set() if known.versions else written.keys() - {method for one in schemas for method in one}
            if unlike or lacks:
                replica = _replica(entry, address)
                replica.methods.extend(sorted(lacks))
                replica.unlike.extend(sorted(unlike))

    def _misread(self, written: Schemas, at: Sequence[Schemas]) -> set[str]:
        """Return the methods that an address has, and none of its versions by a schema that fits."""
        return {
            method
            for method in {method for schemas in at for method in schemas}
            if not any(method in schemas and self._fits(schemas[method], written[method]) for schemas in at)
        }

    def _fits(self, own: MethodSchema, written: MethodSchema) -> bool:
        pair = own.fingerprint, written.fingerprint
        if pair[0] == pair[1]:
            return True
        if pair not in self._fit:
            if len(self._fit) >= _MOST_COMPARED:
                self._fit.clear()
            self._fit[pair] = not breaking_changes(parse(own.text), parse(written.text))
        return self._fit[pair]

    def _of(self, service: str, version: str, standing: _Versions) -> Schemas:
        if (service, version) not in self._read:
            if len(self._read) >= _MOST_READ:
                self._read.clear()
            self._read[service, version] = _schemas_of(service, standing.contents[version])
        return self._read[service, version]


def _standing(entry: catalogue_pb2.CatalogueService, known: KnownService) -> _Versions:
    if not known.versions:
        return _read(entry, known)
    contents = {}
    for name in versions.newest_first(known):
        with contextlib.suppress(DecodeError):
            contents[name] = catalogue_pb2.ServiceVersion.FromString(known.versions[name].content)
    return _Versions(contents, {(one.address, one.version) for one in known.places.values() if one.version in contents})


def _read(entry: catalogue_pb2.CatalogueService, known: KnownService) -> _Versions:
    """Return the versions of replicas that say themselves what they are, as the entry has them."""
    described = [entry.file_descriptor_set, *(one.file_descriptor_set for one in entry.others if not one.retired)]
    contents = {versions.name_of(files): catalogue_pb2.ServiceVersion(file_descriptor_set=files) for files in described}
    places = {(address, versions.name_of(files)) for address, files in known.read.items()}
    return _Versions(contents, {(address, version) for address, version in places if version in contents})


def _schemas_of(service: str, version: catalogue_pb2.ServiceVersion) -> Schemas:
    try:
        methods = describe(versions.alone(service, version, None)).routed
    except CatalogueError:
        # It was good when it was registered; the catalogue says what is wrong with it.
        return {}
    return {method.name: method.schema for method in methods}


def _replica(entry: catalogue_pb2.CatalogueService, address: str) -> catalogue_pb2.LackingReplica:
    for replica in entry.lacking:
        if replica.address == address:
            return replica
    return entry.lacking.add(address=address)
