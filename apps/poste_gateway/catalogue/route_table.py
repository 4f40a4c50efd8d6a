"""Finds the method that a request calls. aiohttp's own router is frozen once it serves; the catalogue changes.

Paths without variables are found in a dict; the tree of templates is walked only for the others.

A service comes, changes and goes by itself: only its own routes are touched, and those of others that it takes or
leaves. What is served does not depend on the order: of a route that several services have the first one by name has it,
and when it goes the next one. Only where a template was refused because walks would be too long does it depend on all
templates before it; then the table is to be judged anew, service by service.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

from poste.rpc.catalogue import Method, Service
from poste.rpc.http_rules import templates
from poste.rpc.http_rules.rules import ANY_VERB, USUAL_VERBS, Claim, PassedOver, Route
from poste.rpc.http_rules.templates import BadPathError
from poste.runtime import logs
from poste_gateway.catalogue.route_tree import Ends, RouteTree

_log: Final = logs.get("route_table")
#: What only one match can have: a verb and a path, or what a template claims.
_Place: TypeAlias = tuple[str, str] | Claim


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
        unjudged: A change may have altered which templates fit: `judge_anew` is to be called.
    """

    def __init__(self, services: Iterable[Service] = ()) -> None:
        self._services: dict[str, Service] = {}
        self._paths: dict[str, dict[str, Match]] = {}
        self._tree = RouteTree[Match]()
        #: How many templates end with each custom verb, which stands behind a colon; and the most colons in one.
        self._verbs: dict[str, int] = {}
        self._colons = 0
        #: Matches of routes that another service has, the first by name first.
        self._waiting: dict[_Place, list[Match]] = {}
        #: Routes that would make walks too long, by their places: no service has those.
        self._refused: dict[_Place, list[Match]] = {}
        self.unjudged = False
        for service in sorted(services, key=lambda one: one.name):
            self.put(service)
        # In the order of names, as it is judged.
        self.unjudged = False

    def put(self, service: Service) -> None:
        """Take a service's routes in, in place of those that it had."""
        before = self._services.get(service.name)
        if before is not None and before.methods is service.methods:
            self._services[service.name] = service
            return
        self.drop(service.name)
        for match in self._put(service):
            self._log_loss(match)

    def drop(self, name: str) -> None:
        """Take a service's routes out; those that others wait for become theirs."""
        service = self._services.pop(name, None)
        for match in () if service is None else _matches(service):
            self._take_out(match)

    def judge_anew(self) -> Iterator[None]:
        """Judge which templates fit, service by service; what was served is served until the end.

        Nothing may be put or dropped meanwhile.
        """
        fresh = RouteTable()
        for _, service in sorted(self._services.items()):
            fresh._put(service)
            yield
        for place, matches in fresh._refused.items():
            for match in matches:
                if match not in self._refused.get(place, ()):
                    fresh._log_loss(match)
        self._paths, self._tree, self._verbs, self._colons = fresh._paths, fresh._tree, fresh._verbs, fresh._colons
        self._waiting, self._refused, self.unjudged = fresh._waiting, fresh._refused, False

    def passed_over(self, method: Method) -> list[PassedOver]:
        """Return the routes of a method that are not served here though its service has them."""
        return [
            PassedOver(route.verb, route.path, reason)
            for route in method.routes
            if (reason := self._why_not(Match(method, route))) is not None
        ]

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
            found |= dict.fromkeys(USUAL_VERBS)
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

    def _put(self, service: Service) -> list[Match]:
        """Take in the routes of a service that has none here; returns what is not served now, be it another's."""
        self._services[service.name] = service
        return [lost for match in _matches(service) if (lost := self._add(match)) is not None]

    def _add(self, match: Match) -> Match | None:
        """Take a route in; returns the one that is not served for it: itself, or that of a service behind it."""
        holder = self._occupy(match)
        if holder is match:
            return None
        place = _place(match.route)
        if holder is None:
            self._refused.setdefault(place, []).append(match)
            self.unjudged = True
            return match
        lost = match
        if _rank(match) < _rank(holder):
            self._replace(match)
            lost = holder
        bisect.insort(self._waiting.setdefault(place, []), lost, key=_rank)
        return lost

    def _take_out(self, match: Match) -> None:
        route, place = match.route, _place(match.route)
        # What was refused may fit without this one.
        self.unjudged |= bool(self._refused) and not _exact(route)
        for lost in (self._refused, self._waiting):
            if match in lost.get(place, ()):
                lost[place].remove(match)
                if not lost[place]:
                    del lost[place]
                return
        if (waiting := self._waiting.get(place)) is None:
            self._vacate(route)
            return
        self._replace(waiting.pop(0))
        if not waiting:
            del self._waiting[place]

    def _holder(self, route: Route) -> Match | None:
        if _exact(route):
            return self._paths.get(route.path, {}).get(route.verb)
        return self._tree.get(route.template, route.verb)

    def _occupy(self, match: Match) -> Match | None:
        """Have a route served unless another service has it; returns the match that has it now.

        Returns None if it would make walks too long: none has it.
        """
        route, template = match.route, match.route.template
        if _exact(route):
            return self._paths.setdefault(route.path, {}).setdefault(route.verb, match)
        holder = self._tree.add(template, route.verb, match)
        if holder is match and template.verb:
            self._verbs[template.verb] = self._verbs.get(template.verb, 0) + 1
            self._colons = max(self._colons, template.verb.count(":"))
        return holder

    def _replace(self, match: Match) -> None:
        if _exact(match.route):
            self._paths[match.route.path][match.route.verb] = match
        else:
            self._tree.replace(match.route.template, match.route.verb, match)

    def _vacate(self, route: Route) -> None:
        if _exact(route):
            verbs = self._paths[route.path]
            del verbs[route.verb]
            if not verbs:
                del self._paths[route.path]
            return
        self._tree.remove(route.template, route.verb)
        if verb := route.template.verb:
            self._verbs[verb] -= 1
            if not self._verbs[verb]:
                del self._verbs[verb]
                self._colons = max((one.count(":") for one in self._verbs), default=0)

    def _why_not(self, match: Match) -> str | None:
        """Return why a route is not served; None if it is."""
        holder = self._holder(match.route)
        if holder is None:
            return "with it the search for a path could take too many steps"
        if holder.method.service == match.method.service:
            return None
        return f"the route is {holder.method.service}/{holder.method.name}'s"

    def _log_loss(self, match: Match) -> None:
        method, route = match.method, match.route
        _log.error(
            "route not served",
            method=f"{method.service}/{method.name}",
            route=f"{route.verb} {route.path}",
            reason=self._why_not(match),
        )


def _matches(service: Service) -> Iterator[Match]:
    for method in service.routed:
        for route in method.routes:
            yield Match(method, route)


def _exact(route: Route) -> bool:
    """Return whether a route is found by its path as it is."""
    return route.template.plain and "%" not in route.path


def _place(route: Route) -> _Place:
    """Return what only one match can have."""
    return (route.verb, route.path) if _exact(route) else route.claim


def _rank(match: Match) -> tuple[bool, str]:
    """Return what decides who has a route: default routes before all others, then the service's name.

    That must not depend on the order of registrations. One service has a route only once.
    """
    return not match.route.default, match.method.service


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
