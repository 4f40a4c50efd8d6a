"""The schemas that methods have in each version of a service, and which replicas would misread a call.

While replicas of several versions live, a call is written by the newest version that has its method. A replica whose
own schema is broken by that one would read something else: it is not called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from poste.domain.errors import CatalogueError
from poste.rpc.catalogue import describe
from poste.rpc.schemas.schema import parse
from poste.rpc.schemas.wire_rules import breaking_changes
from poste.v1 import catalogue_pb2
from poste_mom.catalogue import versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from poste.queue.catalogue_store import KnownService
    from poste.rpc.schemas.schema import MethodSchema

    #: A method's schema by its short name.
    Schemas = Mapping[str, MethodSchema]

#: How many versions are remembered as they were read, and how many comparisons: few are ever asked for.
_MOST_READ: Final = 64
_MOST_COMPARED: Final = 1000


class VersionSchemas:
    """The schemas of versions, each read when it is asked for first."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], Schemas] = {}
        self._fit: dict[tuple[str, str], bool] = {}

    def living(self, service: str, known: KnownService, method: str) -> list[MethodSchema]:
        """Return the schemas that a method has at the replicas that live."""
        living = {place.version for place in known.places.values() if not place.stopped}
        found = [self._of(service, version, known) for version in sorted(living & known.versions.keys())]
        return [schemas[method] for schemas in found if method in schemas]

    def mark(self, entry: catalogue_pb2.CatalogueService, known: KnownService) -> None:
        """Note in a service's entry which replicas have a method whose calls they would misread."""
        standing = versions.newest_first(known)
        here = {name for place in known.places.values() if (name := place.version) in standing}
        if len(here) < 2:  # noqa: PLR2004 - they are all of one version
            return
        written: dict[str, MethodSchema] = {}
        for version in standing:
            for method, schema in self._of(entry.name, version, known).items():
                written.setdefault(method, schema)
        for address in sorted({place.address for place in known.places.values()}):
            at = {place.version for place in known.places.values() if place.address == address} & here
            schemas = [self._of(entry.name, version, known) for version in at]
            if unlike := sorted(self._misread(written, schemas)):
                self._replica(entry, address).unlike.extend(unlike)

    def _misread(self, written: Schemas, at: Iterable[Schemas]) -> set[str]:
        """Return the methods that an address has, and none of its versions by a schema that fits."""
        methods = {method for schemas in at for method in schemas}
        return {
            method
            for method in methods
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

    def _of(self, service: str, version: str, known: KnownService) -> Schemas:
        if (service, version) not in self._read:
            if len(self._read) >= _MOST_READ:
                self._read.clear()
            self._read[service, version] = _read(service, known.versions[version].content)
        return self._read[service, version]

    def _replica(self, entry: catalogue_pb2.CatalogueService, address: str) -> catalogue_pb2.LackingReplica:
        for replica in entry.lacking:
            if replica.address == address:
                return replica
        return entry.lacking.add(address=address)


def _read(service: str, content: bytes) -> Schemas:
    try:
        entry = versions.alone(service, catalogue_pb2.ServiceVersion.FromString(content), None)
        return {method.name: method.schema for method in describe(entry).routed}
    except (DecodeError, CatalogueError):
        # It was good when it was registered; the catalogue says what is wrong with it.
        return {}
