"""Follows the middleware's catalogue: puts the parts of its stream together, and reads the entries.

A change costs what has changed, whatever else is catalogued.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from poste.domain.errors import CatalogueError
from poste.rpc.catalogue import Service, redescribe
from poste.runtime import logs, metrics
from poste.v1 import catalogue_pb2, mom_service_pb2

_log: Final = logs.get("catalogue")


class ReceivedCatalogue:
    """The entries that one stream has brought: first all of them, in parts, then what has changed."""

    def __init__(self) -> None:
        """Begin empty, as each stream does."""
        self._entries: dict[str, catalogue_pb2.CatalogueService] = {}
        self._changed: dict[str, catalogue_pb2.CatalogueService] = {}

    @property
    def entries(self) -> Mapping[str, catalogue_pb2.CatalogueService]:
        """All of them, by name."""
        return self._entries

    def add(self, part: mom_service_pb2.WatchCatalogueResponse) -> bool:
        """Take a part of the stream in; returns whether the catalogue is whole now: else more parts follow."""
        brought = {entry.name: entry for entry in part.services}
        self._entries |= brought
        self._changed |= brought
        for name in part.removed:
            self._entries.pop(name, None)
            self._changed.pop(name, None)
        return not part.more

    def take_changed(self) -> list[catalogue_pb2.CatalogueService]:
        """Return the entries that came since this was asked last; what is not among all of them is gone."""
        changed, self._changed = self._changed, {}
        return list(changed.values())


class ReadServices:
    """What was read of a catalogue's entries.

    Attributes:
        by_name: The services.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.by_name: dict[str, Service] = {}
        #: Those whose entries can't be read as they are now.
        self._passed_over: set[str] = set()

    def read(self, entry: catalogue_pb2.CatalogueService) -> Service | None:
        """Read an entry; one that can't be read is passed over, counted and logged, and what was known of it is kept.

        Returns the service, which is not put with the others here; None if nothing is known of it.
        """
        known = self.by_name.get(entry.name)
        try:
            service = known if known is not None and known.entry == entry else redescribe(entry, known)
        except CatalogueError as error:
            _log.error("catalogue entry passed over", service=entry.name, error=str(error))
        except Exception:  # noqa: BLE001 - one service's entry must not make the others unavailable
            _log.exception("catalogue entry passed over", service=entry.name)
        else:
            self._passed_over.discard(entry.name)
            self._count()
            return service
        self._passed_over.add(entry.name)
        self._count()
        return known

    def keep_only(self, names: Mapping[str, object]) -> list[str]:
        """Return which services are none of these; what could not be read of others is forgotten."""
        self._passed_over &= names.keys()
        self._count()
        return [*(self.by_name.keys() - names.keys())]

    def _count(self) -> None:
        metrics.catalogue_passed_over.set(len(self._passed_over))
