"""Which route a path is: the most special one, whatever there are, and how long the search takes."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from structlog.testing import capture_logs
from support import annotated

from poste.rpc.catalogue import Service, describe
from poste.rpc.http_rules.templates import BadPathError, parse
from poste_gateway.catalogue.route_table import RouteTable
from poste_gateway.catalogue.route_tree import MOST_VISITS, RouteTree


class Table:
    """A table of templates, each a method's of its own, all of strings."""

    def __init__(self, *rules: str) -> None:
        methods = {
            f"Method{number}": (annotated.REQUEST, annotated.ANSWER, [rule if " " in rule else f"GET {rule}"])
            for number, rule in enumerate(rules)
        }
        service = describe(annotated.entry_of(methods))
        assert not [one for method in service.methods.values() for one in method.passed_over]
        self.table = RouteTable([service])
        self.rules = rules

    def find(self, path: str, verb: str = "GET") -> str | None:
        """Which rule a path is."""
        match = self.table.find(verb, path, path)
        return None if match is None else self.rules[int(match.method.name.removeprefix("Method"))]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["/**"], {"/a": "/**", "/a/": "/**"}),
        (
            ["/a/**", "/b/*", "/c/*/d/**", "/c/*/d/e", "/c/f/d/e"],
            {
                "/a/b": "/a/**",
                "/a/b/c": "/a/**",
                "/a": "/a/**",
                "/b/c": "/b/*",
                "b/c/d": None,
                "/b/c/d": None,
                "/c/u/d/v": "/c/*/d/**",
                "/c/v/d/w/x": "/c/*/d/**",
                "/c/x/y/d/z": None,
                "/c//v/d/w/x": None,
                "/c/x/d/e": "/c/*/d/e",
                "/c/f/d/e": "/c/f/d/e",
                "/c/f/d/f": "/c/*/d/**",
            },
        ),
        (
            [
                *("/a/{x}/c/d/e", "/{x=a/*}/b/{y=*}/c", "/a/{x=b/*}/{y=d/**}", "/{x=*}/a", "/{x=**}/a/b"),
                *("/a/b/{x=*}", "/a/b/c/{x=**}", "/{x=*}/d/e/f/{y=**}"),
            ],
            {
                "/a/book/c/d/e": "/a/{x}/c/d/e",
                "/a/hello/b/world/c": "/{x=a/*}/b/{y=*}/c",
                "/a/b/zoo/d/animal/tiger": "/a/{x=b/*}/{y=d/**}",
                "/foo/a": "/{x=*}/a",
                "/foo/bar/a/b": "/{x=**}/a/b",
                "/a/b/foo": "/a/b/{x=*}",
                "/a/b/c/foo/bar/baz": "/a/b/c/{x=**}",
                "/foo/d/e/f/bar/baz": "/{x=*}/d/e/f/{y=**}",
            },
        ),
        (
            ["/a/{x=b/**}", "/a/{x=b/**}/z", "/a/{x=b/**}/y/z", "/a/{x=b/**}:verb", "/a/{x=**}"],
            {
                "/a/b/hello/world/c": "/a/{x=b/**}",
                "/a/b/world/c/z": "/a/{x=b/**}/z",
                "/a/b/world/c/y/z": "/a/{x=b/**}/y/z",
                "/a/b/world/c:verb": "/a/{x=b/**}:verb",
                "/a/hello/b/world/c": "/a/{x=**}",
                "/a/b/z": "/a/{x=b/**}/z",
            },
        ),
        (
            ["/some/const:verb", "/some/*:verb", "/some/*/foo:verb", "/other/**:verb", "/other/**/const:verb"],
            {
                "/some/const:verb": "/some/const:verb",
                "/some/other:verb": "/some/*:verb",
                "/some/other:verb/": None,
                "/some/bar/foo:verb": "/some/*/foo:verb",
                "/some/foo1/foo2/foo:verb": None,
                "/other/bar/foo:verb": "/other/**:verb",
                "/other/bar/foo/const:verb": "/other/**/const:verb",
            },
        ),
        # A verb that no route has is a part of the name; one that is encoded is none.
        (["/foo/{x=*}"], {"/foo/other:verb": "/foo/{x=*}"}),
        (["/foo/*/hello"], {"/foo/other:verb/hello": "/foo/*/hello"}),
        (
            ["/{x=**}:verb", "/{x=**}"],
            {
                "/some:verb/const:verb": "/{x=**}:verb",
                "/some:verb/const": "/{x=**}",
                "/some/const%3Averb": "/{x=**}",
                "/some:verb2/const:verb2": "/{x=**}",
            },
        ),
        (
            ["/{x}:custom", "/{x}:custom:custom"],
            {"/i:custom:custom": "/{x}:custom:custom", "/i:custom": "/{x}:custom"},
        ),
        # Encoded or not, a literal is the same; but for a slash, which is no border if it is encoded.
        (["/v1/sums", "/v1/a%2Fb", "/v1/{x}/c"], {"/v1/s%75ms/c": "/v1/{x}/c", "/v1/a%2fb": "/v1/a%2Fb"}),
        (["/a/{x}", "/a"], {"/a/": None, "/a": "/a", "/a//": None, "/A": None}),
    ],
)
def test_the_most_special_route_is_found(rules, expected):
    """Else a call reaches another method than its annotation says."""
    table = Table(*rules)

    assert {path: table.find(path) for path in expected} == expected


def test_a_verb_goes_where_its_route_is():
    """Else a DELETE is 405 because a GET has a more special route, or an OPTIONS finds no route."""
    table = Table(
        *("GET /v1/x/y", "POST /v1/x/{x}", "DELETE /v1/{name=x/*}", "HEAD /v1/heads/{x}", "GET /v1/heads/{x}"),
        *("OPTIONS /v1/opts/{x}", "* /v1/any/{x}", "PUT /v1/any/{x}"),
    )

    assert table.find("/v1/x/y", "POST") == "POST /v1/x/{x}"
    assert table.find("/v1/x/y", "DELETE") == "DELETE /v1/{name=x/*}"
    assert table.find("/v1/x/y", "HEAD") == "GET /v1/x/y"
    assert table.find("/v1/heads/1", "HEAD") == "HEAD /v1/heads/{x}"
    assert table.find("/v1/opts/1", "OPTIONS") == "OPTIONS /v1/opts/{x}"
    assert [table.find("/v1/any/1", verb) for verb in ("PUT", "PURGE")] == ["PUT /v1/any/{x}", "* /v1/any/{x}"]
    verbs = table.table.verbs
    assert (verbs("/v1/x/y", "/v1/x/y"), verbs("/v1/z", "/v1/z")) == (["GET", "POST", "DELETE"], None)
    assert set(verbs("/v1/any/1", "/v1/any/1") or ()) == {"GET", "PUT", "POST", "DELETE", "PATCH"}


def test_what_a_path_says_is_decoded_where_it_is_a_value():
    """Else a path that is no value fails as one, or a broken one is a handler's string."""
    table = Table("/a/{x}", "/a/*/b").table

    match = table.find("GET", "/a/1/2", "/a/1%2F2", "revision=2")
    assert match is not None
    assert (match.captured, match.query) == (("1/2",), "revision=2")
    assert table.find("GET", "/a/%ff/b", "/a/%ff/b") is not None
    with pytest.raises(BadPathError):
        table.find("GET", "/a/%ff", "/a/%ff")


class _Walked(RouteTree[Any]):
    """A tree that counts the nodes that are visited."""

    visits = 0

    def _walk(self, node: Any, segments: Any, place: int) -> Any:
        self.visits += 1
        yield from super()._walk(node, segments, place)

    def walked(self, path: str) -> int:
        """How many nodes are visited if all that a path may be is tried."""
        self.visits = 0
        list(self.walk(path.strip("/").split("/")))
        return self.visits


def test_ten_thousand_routes_take_no_longer_than_ten():
    """Else every call of a large deployment pays for all of its routes."""

    def grown(services: int) -> _Walked:
        tree = _Walked()
        for service, thing in itertools.product(range(services), range(10)):
            for path in (f"/v1/projects/*/s{service}/*/things{thing}/*", f"/v1/{{x=s{service}/things{thing}/**}}:run"):
                assert tree.add(parse(path), "GET", path) == path
        return tree

    few, many = grown(1), grown(500)
    for path in ("/v1/projects/a/s0/b/things9/c", "/v1/s0/things3/a/b/c/d/e", "/v1/projects/a/b/c/d/e/f", "/v1/x"):
        assert many.walked(path) == few.walked(path) <= len(path.split("/"))


def test_a_route_that_would_make_walks_too_long_is_the_only_one_lost():
    """Else one service makes every call of all others slow: at each segment both ways lead on."""
    tree = _Walked()
    refused = 0
    for ways in itertools.product(("a", "*"), repeat=12):
        path = "/" + "/".join(ways)
        refused += tree.add(parse(path), "GET", path) is None
    assert refused > 1000
    assert tree.walked("/" + "/".join("a" * 12)) <= MOST_VISITS
    assert tree.add(parse("/v1/{x}"), "GET", "another") == "another"


def described(package: str, *rules: str) -> Service:
    return describe(annotated.entry_of({"Call": (annotated.REQUEST, annotated.ANSWER, [*rules])}, package=package))


def test_a_route_that_two_services_have_is_the_first_ones_by_name():
    """Else which one a call reaches depends on who registered last, or one conflict takes a whole service."""
    services = [described("b.v1", "GET /v1/{name=x/*}", "GET /v1/mine"), described("a.v1", "GET /v1/x/{uuid}")]
    for order in (services, services[::-1]):
        with capture_logs() as logs:
            table = RouteTable(order)
        found = [table.find("GET", path, path) for path in ("/v1/x/1", "/v1/mine")]
        assert [match.method.service for match in found if match] == ["a.v1.Cases", "b.v1.Cases"]
        assert table.passed_over(services[0].methods["Call"])[0].reason == "the route is a.v1.Cases/Call's"
        assert [line["event"] for line in logs] == ["route not served"]


#: Templates of few forms, so that services often claim the same ones; the last ones make walks long.
_TEMPLATES = (
    *("/v1/a", "/v1/b", "/v1/{x}", "/v1/a/{x}", "/v1/{name=a/*}", "/v1/{name=a/**}", "/v1/a%2Fb", "/v1/{x}:run"),
    *(
        "/v1/{name=**}/z",
        "/v1/{name=**}/y/z",
        "/v1/{x}:run:now",
        "/v1/*/{x}",
        "/v1/**",
        "/v1/{x}/b",
        "/p1.v1.Cases/Call",
    ),
)
_WAYS = ["/" + "/".join(ways) for ways in itertools.product(("a", "*"), repeat=9)]
_ASKED = [
    f"/v1/{rest}" for rest in ("a", "b", "c", "a/b", "b/b", "a%2Fb", "c:run", "c:run:now", "q/z", "q/y/z", "a/b/c")
]
_ASKED += ["/a/a/a/a/a/a/a/a/a", "/a/b/a/b/a/b/a/b/a", "/b/b/b/b/b/b/b/b/b", "/p1.v1.Cases/Call"]


def _judged(table: RouteTable) -> RouteTable:
    if table.unjudged:
        for _ in table.judge_anew():
            pass
    return table


def _said(table: RouteTable, services: list[Service]) -> Any:
    """Everything that can be asked of a table."""
    verbs = ("GET", "POST", "PURGE")
    return (
        {(verb, path): table.find(verb, path, path) for verb in verbs for path in _ASKED},
        {path: set(table.verbs(path, path) or ()) for path in _ASKED},
        {method.path: table.passed_over(method) for service in services for method in service.methods.values()},
    )


@pytest.mark.parametrize(("seed", "ways"), [(1, 0), (2, 0), (3, 280)])
def test_a_table_that_changed_is_the_one_that_is_built_anew(seed: int, ways: int) -> None:
    """Else two gateways serve different routes, by what each saw of services that came, changed and went."""
    chance = random.Random(seed)  # noqa: S311 - the same each time
    templates = [*_TEMPLATES, *chance.sample(_WAYS, ways)]

    def some(package: str) -> Service:
        rules = chance.sample(templates, len(templates) // 3)
        return described(package, *(f"{chance.choice(('GET', 'POST', '*'))} {rule}" for rule in rules))

    versions = {name: [some(name) for _ in range(3)] for name in (f"p{number}.v1" for number in range(5))}
    table, live, judgements = RouteTable(), dict[str, Service](), 0
    for _ in range(60):
        package = chance.choice([*versions])
        if package in live and chance.random() < 0.4:
            table.drop(live.pop(package).name)
        else:
            live[package] = chance.choice(versions[package])
            table.put(live[package])
        services = [*live.values()]
        judgements += table.unjudged
        assert _said(_judged(table), services) == _said(RouteTable(services), services)
    # Only templates that make walks long need more than what the change is of.
    assert bool(judgements) == bool(ways)
    for service in live.values():
        table.drop(service.name)

    assert _tables_of(_judged(table)) == _tables_of(RouteTable())


def _tables_of(table: RouteTable) -> Any:
    """What is left in a table: of services that went nothing may stay."""
    root = table._tree._root
    return (
        table._paths,
        root.empty,
        root.worst,
        root.worsts,
        table._verbs,
        table._colons,
        table._waiting,
        table._refused,
    )


def test_a_change_touches_its_own_routes_only() -> None:
    """Else every change of one of a thousand services holds the calls of all others up."""
    touched: list[str] = []

    class Counted(RouteTable):
        def _add(self, match: Any) -> Any:
            touched.append(match.method.service)
            return super()._add(match)

        def _take_out(self, match: Any) -> None:
            touched.append(match.method.service)
            super()._take_out(match)

    table = Counted([described(f"p{number}.v1", f"GET /v1/p{number}/{{x}}", "GET /v1/all") for number in range(50)])
    changed, own = described("p7.v1", "GET /v1/p7/{x}", "GET /v1/other"), "p7.v1.Cases"
    touched.clear()
    table.put(changed)
    table.drop(own)
    table.put(changed)

    assert touched == [own] * 3 * 4
    assert not table.unjudged
