"""What the middleware makes of its store: again only what is another than before."""

from __future__ import annotations

import random
from dataclasses import replace

from support import annotated

from poste.queue.catalogue_store import Place, Snapshot, Version
from poste.rpc.catalogue import Service, claims_of, describe
from poste.v1 import catalogue_pb2
from poste_mom.catalogue.describing import Describing
from poste_mom.catalogue.limits import CatalogueLimits
from poste_mom.catalogue.route_owners import RouteOwners
from poste_mom.catalogue.version_schemas import VersionSchemas


def entry(number: int, *rules: str) -> catalogue_pb2.CatalogueService:
    methods = {"Call": (annotated.REQUEST, annotated.ANSWER, [*rules])}
    return annotated.entry_of(methods, package=f"p{number}.v1", library=False)


def version(number: int, register_time: float, *rules: str, retired: bool = False) -> Version:
    said = catalogue_pb2.ServiceVersion(
        file_descriptor_set=entry(number, *rules).file_descriptor_set, methods=["Call"], weight=1000
    )
    if retired:
        said.methods[:] = ["Call", "Gone"]
    return Version(said.SerializeToString(), register_time, 5.0 if retired else None)


async def test_a_change_makes_its_own_service_anew() -> None:
    """Else each change of one of a thousand services holds the middleware up for seconds."""
    describing = Describing(CatalogueLimits(), VersionSchemas())
    shipped = {f"p{number}.v1.Cases": entry(number, f"GET /v1/{number}").SerializeToString() for number in range(20)}
    before = await describing.services(Snapshot(shipped=shipped))
    places = {("p3.v1.Cases", "one"): Place("a", "127.0.0.1:9", stopped=False)}
    versions = {("p3.v1.Cases", "a"): version(3, 1.0, "GET /v1/moved")}
    now = await describing.services(Snapshot(shipped=shipped, versions=versions, places=places))
    gone = await describing.services(Snapshot(shipped={name: shipped[name] for name in list(shipped)[1:]}))

    assert len(before) == 20
    assert [name for name in now if now[name] is not before[name]] == ["p3.v1.Cases"]
    assert now["p3.v1.Cases"].targets == ("127.0.0.1:9",)
    assert before.keys() - gone.keys() == {"p0.v1.Cases"}


async def test_a_retired_version_comes_back_when_there_is_room() -> None:
    """Else what was left out of a full catalogue is lost for good: what is made once is kept as it is."""
    shipped = {"p2.v1.Cases": entry(2).SerializeToString()}
    versions = {
        ("p1.v1.Cases", "new"): version(1, 2.0),
        ("p1.v1.Cases", "old"): version(1, 1.0, retired=True),
    }
    full = Snapshot(shipped={**shipped, "p2.v1.Cases": _weighing(entry(2), 9500)}, versions=versions)
    describing = Describing(CatalogueLimits(max_bytes=11_000), VersionSchemas())
    others = [
        len((await describing.services(known))["p1.v1.Cases"].entry.others)
        for known in (full, full, replace(full, shipped=shipped), full)
    ]

    assert others == [0, 0, 1, 0]


def _weighing(one: catalogue_pb2.CatalogueService, weight: int) -> bytes:
    one.weight = weight
    return one.SerializeToString()


def test_owners_that_changed_are_those_that_are_counted_anew() -> None:
    """Else a service reads that a route is another's which is gone, or is given one that another has."""
    chance = random.Random(1)  # noqa: S311 - the same each time
    rules = [f"GET /v1/{name}" for name in "abcd"]
    versions = {number: [describe(entry(number, *chance.sample(rules, 2))) for _ in range(3)] for number in range(5)}
    owners, live = RouteOwners(), dict[str, Service]()
    for _ in range(60):
        service = chance.choice(versions[chance.randrange(5)])
        if service.name in live and chance.random() < 0.4:
            del live[service.name]
        else:
            live[service.name] = service
        owners.update(dict(live))
        assert dict(owners) == claims_of(live.values())
    owners.update({})

    assert not owners
