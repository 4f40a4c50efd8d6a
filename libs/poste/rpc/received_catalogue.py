"""Follows the middleware's catalogue: puts the parts of its stream together, and reads the entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, ValuesView
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

    @property
    def entries(self) -> ValuesView[catalogue_pb2.CatalogueService]:
        """All of them."""
        return self._entries.values()

    def add(self, part: mom_service_pb2.WatchCatalogueResponse) -> bool:
        """Take a part of the stream in; returns whether the catalogue is whole now: else more parts follow."""
        self._entries.update((entry.name, entry) for entry in part.services)
        for name in part.removed:
            self._entries.pop(name, None)
        return not part.more


def describe_all(entries: Iterable[catalogue_pb2.CatalogueService], known: Mapping[str, Service]) -> dict[str, Service]:
    """Read a catalogue's entries; one that can't be read is passed over, counted and logged.

    Args:
        entries: They.
        known: What was read before, by name: it is kept for an entry that can't be read now, or has not changed.
    """
    services, passed_over = {}, 0
    for entry in entries:
        before = known.get(entry.name)
        try:
            services[entry.name] = redescribe(entry, before)
            continue
        except CatalogueError as error:
            _log.error("catalogue entry passed over", service=entry.name, error=str(error))
        except Exception:  # noqa: BLE001 - one service's entry must not make the others unavailable
            _log.exception("catalogue entry passed over", service=entry.name)
        passed_over += 1
        if before is not None:
            services[entry.name] = before
    metrics.catalogue_passed_over.set(passed_over)
    return services
