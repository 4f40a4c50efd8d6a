"""Which schemas a method has now, at all replicas that live: those of several versions may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from poste.domain.errors import CatalogueError
from poste.rpc.catalogue import describe
from poste.v1 import catalogue_pb2
from poste_mom.catalogue import versions

if TYPE_CHECKING:
    from poste.queue.catalogue_store import Snapshot
    from poste.rpc.schemas.schema import MethodSchema

#: How many versions are remembered as they were read: few are ever asked for.
_MOST_READ: Final = 32


class LivingSchemas:
    """The schemas of versions, each read when it is asked for first."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], dict[str, MethodSchema]] = {}

    def schemas(self, service: str, method: str, known: Snapshot) -> list[MethodSchema]:
        """Return the schemas that a method has at the replicas of its service that live."""
        living = {place.version for (name, _), place in known.places.items() if name == service and not place.stopped}
        found = []
        for version in sorted(living):
            kept = known.versions.get((service, version))
            if kept is None:
                continue
            if (service, version) not in self._read:
                if len(self._read) >= _MOST_READ:
                    self._read.clear()
                self._read[service, version] = _methods_of(service, kept.content)
            if (schema := self._read[service, version].get(method)) is not None:
                found.append(schema)
        return found


def _methods_of(service: str, content: bytes) -> dict[str, MethodSchema]:
    try:
        entry = versions.alone(service, catalogue_pb2.ServiceVersion.FromString(content), None)
        return {name: method.schema for name, method in describe(entry).methods.items()}
    except (DecodeError, CatalogueError):
        # It was good when it was registered; the catalogue says what is wrong with it.
        return {}
