"""Which call a path stands for. A table of our own: aiohttp's router is frozen once it serves, the catalogue is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from poste.rpc.catalogue import Method, Service
from poste.runtime import logs

_log: Final = logs.get("route_table")


class RouteTable:
    """The routes of all catalogued services."""

    def __init__(self, services: Iterable[Service] = ()) -> None:
        self._paths: dict[str, dict[str, Method]] = {}
        by_name = sorted(services, key=lambda service: service.name)
        for service in by_name:
            for method in service.methods.values():
                default = method.routes[0]
                self._paths.setdefault(default.path, {})[default.verb] = method
        for service in by_name:
            for method in service.methods.values():
                self._add_annotated(method)

    def _add_annotated(self, method: Method) -> None:
        for route in method.routes[1:]:
            holder = self._paths.setdefault(route.path, {}).setdefault(route.verb, method)
            if holder is not method:
                # The first by name keeps it: which one that is must not depend on who registered last.
                _log.error(
                    "route claimed twice",
                    route=f"{route.verb} {route.path}",
                    kept=f"{holder.service}/{holder.name}",
                    refused=f"{method.service}/{method.name}",
                )

    def get(self, verb: str, path: str) -> Method | None:
        """Return the method that a request calls, None if there is none."""
        verbs = self._paths.get(path)
        return None if verbs is None else verbs.get(verb)

    def verbs(self, path: str) -> Mapping[str, Method] | None:
        """Return what each verb at a path calls, None if there is nothing."""
        return self._paths.get(path)
