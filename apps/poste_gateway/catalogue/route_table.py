"""Finds the method that a request calls. aiohttp's own router is frozen once it serves; the catalogue changes.

Paths without variables are found in a dict; the tree of templates is walked only for the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

from poste.rpc.catalogue import Method, Service
from poste.rpc.http_rules import templates
from poste.rpc.http_rules.rules import ANY_VERB, PassedOver, Route
from poste.rpc.http_rules.templates import BadPathError
from poste.runtime import logs
from poste_gateway.catalogue.route_tree import Ends, RouteTree

_log: Final = logs.get("route_table")
#: The verbs that are listed for a route of any verb.
_USUAL_VERBS: Final = ("GET", "PUT", "POST", "DELETE", "PATCH")


class Match(NamedTuple):
    """What a request calls.

    Attributes:
        method: The method.
        route: The route by which it is called.
        captured: What its path says of the route's variables.
        query: Its query, as it came.
    """

    method: Method
    route: Route
    captured: tuple[str, ...] = ()
    query: str = ""


class RouteTable:
    """The routes of all catalogued services.

    Attributes:
        passed_over: Those that are not served here though their service has them, by their method's path.
    """

    def __init__(self, services: Iterable[Service] = ()) -> None:
        self._paths: dict[str, dict[str, Match]] = {}
        self._tree = RouteTree[Match]()
        #: The custom verbs at the ends of templates, behind a colon; and the most colons in one.
        self._verbs: set[str] = set()
        self._colons = 0
        self.passed_over: dict[str, list[PassedOver]] = {}
        by_name = sorted(services, key=lambda service: service.name)
        for service in by_name:
            for method in service.methods.values():
                default = method.routes[0]
                self._paths.setdefault(default.path, {})[default.verb] = Match(method, default)
        for service in by_name:
            for method in service.methods.values():
                for route in method.routes[1:]:
                    self._add(Match(method, route))

    def get(self, verb: str, path: str) -> Match | None:
        """Return the match of a route without variables, by its exact path; None if there is none."""
        verbs = self._paths.get(path)
        return None if verbs is None else verbs.get(verb)

    def find(self, verb: str, path: str, raw_path: str, query: str = "") -> Match | None:
        """Return the match of a request, None if no route matches.

        Args:
            verb: Its verb.
            path: Its path, with nothing encoded that need not be.
            raw_path: Its path as it came.
            query: Its query as it came.

        Raises:
            BadPathError: What its path says of a variable can't be decoded.
        """
        match = _of_verb(self._paths.get(path, {}), verb)
        if match is not None:
            return match._replace(query=query) if query else match
        for ends, suffix, segments in self._ways(raw_path):
            if (verbs := ends.get(suffix)) is not None and (match := _of_verb(verbs, verb)) is not None:
                return match._replace(captured=tuple(match.route.template.captured(segments)), query=query)
        return None

    def verbs(self, path: str, raw_path: str) -> Collection[str] | None:
        """Return which verbs call something at a path, None if none does."""
        found = dict.fromkeys(self._paths.get(path, ()))
        for ends, suffix, _ in self._ways(raw_path):
            found |= dict.fromkeys(ends.get(suffix, ()))
        if ANY_VERB in found:
            del found[ANY_VERB]
            found |= dict.fromkeys(_USUAL_VERBS)
        return list(found) or None

    def _ways(self, raw_path: str) -> Iterator[tuple[Ends[Match], str, list[str]]]:
        """Yield the candidates for a path: matches by method, the custom verb at its end, and the segments before."""
        if not raw_path.startswith("/"):
            return
        segments = raw_path[1:].split("/") if raw_path != "/" else []
        *before, last = segments or [""]
        decoded = [_decoded(segment) for segment in before]
        # A custom verb at the end is one if any route has it; the longest first.
        for suffix in (*self._suffixes(last), ""):
            rest = last.removesuffix(suffix) if suffix else last
            whole = [*before, rest] if segments else []
            for ends in self._tree.walk([*decoded, _decoded(rest)] if segments else []):
                yield ends, suffix, whole

    def _suffixes(self, last: str) -> list[str]:
        found, rest = [], last
        for _ in range(self._colons):
            rest, colon, _ = rest.rpartition(":")
            if not colon:
                break
            if (suffix := last[len(rest) :]) in self._verbs:
                found.append(suffix)
        return found[::-1]

    def _add(self, match: Match) -> None:
        method, route = match.method, match.route
        template = route.template
        if template.plain and "%" not in route.path:
            holder: Match | None = self._paths.setdefault(route.path, {}).setdefault(route.verb, match)
        else:
            holder = self._tree.add(template, route.verb, match)
            if template.verb:
                self._verbs.add(template.verb)
                self._colons = max(self._colons, template.verb.count(":"))
        if holder is match:
            return
        # The first service by name keeps the route: that must not depend on the order of registrations.
        reason = "with it the search for a path could take too many steps"
        if holder is not None:
            reason = f"the route is {holder.method.service}/{holder.method.name}'s"
        _log.error(
            "route not served",
            method=f"{method.service}/{method.name}",
            route=f"{route.verb} {route.path}",
            reason=reason,
        )
        self.passed_over.setdefault(method.path, []).append(PassedOver(route.verb, route.path, reason))


def _of_verb(verbs: dict[str, Match], verb: str) -> Match | None:
    """Return the match of a verb; of HEAD that of GET, unless it has a route of its own."""
    found = verbs.get(verb)
    if found is None and verb == "HEAD":
        found = verbs.get("GET")
    return found or verbs.get(ANY_VERB)


def _decoded(segment: str) -> str | None:
    try:
        return templates.decoded(segment)
    except BadPathError:
        return None
