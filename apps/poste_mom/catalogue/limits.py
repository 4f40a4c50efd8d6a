"""How much the catalogue may hold. Every gateway keeps all of it in memory: one peer must not fill it for all.

What is read of a service takes many times the bytes of its descriptors, and how many depends on what is in them: so
each version is weighed, and what is bounded is the weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poste.domain.errors import CatalogueError, CatalogueFullError
from poste.rpc.catalogue import weigh
from poste.runtime.settings import MAX_CATALOGUE_BYTES, MAX_REPLICAS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

    from poste.queue.catalogue_store import Place
    from poste.v1.catalogue_pb2 import CatalogueService

#: A single version may have this part of the whole.
_SHARE: Final = 4
#: How many versions of one service may stand at once.
_MAX_VERSIONS: Final = 16
#: A process that was killed is remembered for a minute, and may have been started anew at its address: so many are
#: remembered for each address, in the mean.
_STARTS: Final = 8


class CatalogueLimits:
    """What the catalogue may hold.

    Attributes:
        max_bytes: What all that stands may take of a gateway's memory, as it is estimated.
    """

    def __init__(self, max_bytes: int = MAX_CATALOGUE_BYTES, max_replicas: int = MAX_REPLICAS) -> None:
        """Set them.

        Args:
            max_bytes: What all that stands may take of a gateway's memory, as it is estimated.
            max_replicas: At how many addresses there may be replicas, of all services.
        """
        self.max_bytes = max_bytes
        self._max_replicas = max_replicas

    def check_replica(self, service: str, address: str, places: Mapping[tuple[str, str], Place]) -> None:
        """Refuse one more replica than there may be; one that crashes and comes again at its address is no other.

        Raises:
            CatalogueFullError: There are so many already.
        """
        addresses = {(name, place.address) for (name, _), place in places.items()}
        full = (service, address) not in addresses and len(addresses) >= self._max_replicas
        if full or len(places) >= _STARTS * self._max_replicas:
            raise CatalogueFullError(f"{service}: there are {len(addresses)} replicas, as many as there may be")

    def weigh(self, service: str, files: bytes, methods: int | None = None) -> int:
        """Return what a version of a service takes of memory (`poste.rpc.catalogue.weigh`), before it is made.

        Raises:
            CatalogueError: Its descriptors can't be read.
            CatalogueFullError: It is too large by itself.
        """
        try:
            weight = weigh(files, methods)
        except CatalogueError as error:
            raise type(error)(f"service {service!r} can't be catalogued: {error}") from error
        largest = self.max_bytes // _SHARE
        if weight > largest:
            raise CatalogueFullError(f"{service} takes {weight} bytes of memory, and may take {largest}")
        return weight

    def check_version(self, service: str, weight: int, entries: Iterable[CatalogueService]) -> None:
        """Refuse one more version than there may be, or than there is room for.

        Raises:
            CatalogueFullError: It is.
        """
        taken = 0
        for entry in entries:
            taken += standing_bytes(entry)
            if entry.name == service and sum(not one.retired for one in entry.others) + 1 >= _MAX_VERSIONS:
                raise CatalogueFullError(f"{service} has {_MAX_VERSIONS} versions at once, as many as it may have")
        if taken + weight > self.max_bytes:
            raise CatalogueFullError(
                f"{service} has no room in the catalogue: {taken} of {self.max_bytes} bytes of memory are taken"
            )

    def check_shipped(self, entries: Iterable[CatalogueService]) -> None:
        """Refuse what the deployment ships if it does not fit.

        Raises:
            CatalogueFullError: It does not.
        """
        taken = sum(map(standing_bytes, entries))
        if taken > self.max_bytes:
            raise CatalogueFullError(f"it takes {taken} bytes of memory, and the catalogue may take {self.max_bytes}")

    def fit(self, entries: MutableMapping[str, CatalogueService]) -> list[str]:
        """Leave out retired versions that there is no room for; returns the services that lost one.

        Args:
            entries: By name. In the place of one that loses a version a copy without it is put.
        """
        left, lost = self.max_bytes - sum(map(standing_bytes, entries.values())), []
        for name, entry in list(entries.items()):
            kept = []
            for version in entry.others:
                if version.retired and version.weight > left:
                    lost.append(name)
                    continue
                left -= version.weight if version.retired else 0
                kept.append(version)
            if len(kept) < len(entry.others):
                entries[name] = copy = type(entry)()
                copy.CopyFrom(entry)
                del copy.others[:]
                copy.others.extend(kept)
        return lost


def standing_bytes(entry: CatalogueService) -> int:
    """Return what of a service stands in a gateway's memory, as it is estimated: all but its retired versions."""
    return entry.weight + sum(version.weight for version in entry.others if not version.retired)
