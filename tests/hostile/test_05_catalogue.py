"""Any process inside may register: the catalogue takes what can be a service, and no more than there is room for."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2_grpc
from support import annotated as annotating
from support import described
from support.gateway import FakeMom, running_gateway, serving_mom
from support.mom import RunningMom, running_mom
from support.redis_server import RedisServer, running
from support.waiting import until

from poste.domain.errors import StartError
from poste.queue.connection import open_client
from poste.queue.keys import KEYS
from poste.rpc.catalogue import describe
from poste.runtime import metrics
from poste.runtime.settings import MomSettings, StoreSettings
from poste.service.servicer import services_of
from poste.v1 import catalogue_pb2, mom_service_pb2_grpc
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.catalogue.route_table import RouteTable
from poste_mom.__main__ import run
from poste_mom.catalogue import catalogue_file


def files(package: str, service: str, *, methods: int = 1, fields: int = 1, name: str = "the_field") -> bytes:
    """Describe a service: so many methods, each with a request of so many fields."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{service}.proto", package=package, syntax="proto3")
    for number in range(methods):
        message = file.message_type.add(name=f"Asked{number}")
        for place in range(fields):
            described.field(message, f"{name}_{place}")
    kinds = {f"Ask{number}": (f".{package}.Asked{number}",) * 2 for number in range(methods)}
    described.service(file, service, kinds)  # type: ignore[arg-type]  # two of each
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def request(package: str = "some.v1", service: str = "Some", **changes: Any) -> pb.RegisterServiceRequest:
    fields: dict[str, Any] = {
        "service": f"{package}.{service}",
        "file_descriptor_set": files(package, service),
        "address": "127.0.0.1:1",
    }
    return pb.RegisterServiceRequest(**{**fields, **changes})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    with running(tmp_path / "redis") as one:
        yield one


@pytest.fixture
async def mom(server: RedisServer) -> AsyncIterator[RunningMom]:
    async with running_mom(server.url) as one:
        yield one


async def refused(mom: RunningMom, asked: pb.RegisterServiceRequest) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await mom.stub.RegisterService(asked, timeout=10)
    return raised.value.code(), raised.value.details() or ""


async def catalogued(mom: RunningMom) -> dict[str, catalogue_pb2.CatalogueService]:
    """Read the whole catalogue, in as many messages as it comes in."""
    stream = mom.stub.WatchCatalogue(pb.WatchCatalogueRequest(), timeout=20)
    found: dict[str, catalogue_pb2.CatalogueService] = {}
    async for part in stream:
        found |= {entry.name: entry for entry in part.services}
        if not part.more:
            break
    stream.cancel()
    return found


# Who may register


@pytest.mark.parametrize(
    ("package", "service"),
    [
        ("poste.v1", "MomService"),
        ("poste.v2", "Any"),
        ("grpc.health.v1", "Health"),
        ("google.longrunning", "Operations"),
    ],
)
async def test_a_reserved_name_is_refused_wherever_it_comes_from(
    mom: RunningMom, tmp_path: Path, package: str, service: str
) -> None:
    """Any REST client could call the middleware itself, its PauseQueue say, once that stands in the catalogue."""
    code, details = await refused(mom, request(package, service))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "reserved" in details

    (tmp_path / "some.binpb").write_bytes(files(package, service))
    file = tmp_path / "catalogue.toml"
    file.write_text(f'[services."{package}.{service}"]\ndescriptors = "some.binpb"\n')
    with pytest.raises(StartError, match="reserved"):
        catalogue_file.read(file)


def test_an_author_is_told_of_a_reserved_name() -> None:
    """His service would start, and be refused for ever in a line of its log."""
    for kind in (health_pb2_grpc.HealthServicer, mom_service_pb2_grpc.MomServiceServicer):
        with pytest.raises(StartError, match="reserved"):
            services_of([kind()])


@pytest.mark.parametrize(
    "changes",
    [
        {"service": ""},
        {"service": "some.v1.Some Other"},
        {"service": "some.v1." + "S" * 500},
        {"service": "some..Some"},
        {"address": ""},
        {"address": "127.0.0.1"},
        {"address": "127.0.0.1:0"},
        {"address": "127.0.0.1:65536"},
        {"address": "unix:/run/docker.sock"},
        {"address": "ipv4:1.2.3.4:5"},
        {"address": "dns:///some:1"},
        {"address": "some host:1"},
        {"address": "h" * 301 + ":1"},
        {"replica": "one two"},
        {"replica": "r" * 301},
        {"file_descriptor_set": b"\xff\xff"},
        {"file_descriptor_set": b""},
        {"file_descriptor_set": files("some.v1", "Some", methods=1001)},
        {"author_settings": catalogue_pb2.ServiceSettings(timeout_seconds=math.nan)},
        {"author_settings": catalogue_pb2.ServiceSettings(timeout_seconds=-5)},
        {"author_settings": catalogue_pb2.ServiceSettings(queued_timeout_seconds=1e300)},
        {"author_settings": catalogue_pb2.ServiceSettings(backoff_seconds=31 * 86_400)},
        {"author_settings": catalogue_pb2.ServiceSettings(max_in_flight=-1)},
    ],
)
async def test_what_no_service_can_be_is_refused(mom: RunningMom, changes: dict[str, Any]) -> None:
    """It would become a key, a path, a target, or a time that every gateway and the store then go by."""
    before = metrics.registrations_refused_total.labels("invalid")._value.get()
    code, details = await refused(mom, request(**changes))

    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details
    assert metrics.registrations_refused_total.labels("invalid")._value.get() == before + 1
    assert not await catalogued(mom)


@pytest.mark.parametrize(
    "address", ["10.1.2.3:50052", "[fe80::1%eth0]:50052", "[::1]:1", "sum-1.some_host.internal:65535"]
)
async def test_an_address_is_a_host_and_a_port(mom: RunningMom, address: str) -> None:
    """What is refused for its form must not be what deployments have."""
    await mom.stub.RegisterService(request(address=address), timeout=10)
    assert list((await catalogued(mom))["some.v1.Some"].targets) == [address]


async def test_a_socket_is_an_address_beside_the_middlewares_own(server: RedisServer, tmp_path: Path) -> None:
    """No service would be reached beside a `poste up`; or a gateway would be led to whatever listens on its host."""
    async with running_mom(server.url, socket=tmp_path / "mom.sock") as mom:
        for elsewhere in ("/run/docker.sock", f"{tmp_path}/../mom.sock", f"{tmp_path}/a b.sock", str(tmp_path)):
            code, _ = await refused(mom, request(address=f"unix:{elsewhere}"))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
        await mom.stub.RegisterService(request(address=f"unix:{tmp_path}/sum.sock"), timeout=10)

        assert list((await catalogued(mom))["some.v1.Some"].targets) == [f"unix:{tmp_path}/sum.sock"]


# How much


async def test_there_is_room_for_so_much_and_no_more(server: RedisServer) -> None:
    """One peer would fill the memory of every gateway, and what comes after it be unknown."""
    async with running_mom(server.url, max_catalogue_bytes=2**20, max_replicas=8) as mom:
        code, details = await refused(mom, request(file_descriptor_set=files("some.v1", "Some", methods=9, fields=99)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "may take 262144" in details
        code, details = await refused(mom, request(file_descriptor_set=b"\n" * 2**20 + b"."))
        assert (code, "may have 1048576" in details) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)

        asked = [request(service=f"Some{number}", address=f"127.0.0.1:{number + 1}") for number in range(16)]
        said = await asyncio.gather(
            *(mom.stub.RegisterService(one, timeout=10) for one in asked), return_exceptions=True
        )
        kept = [one for one in said if isinstance(one, pb.RegisterServiceResponse)]
        assert len(kept) == 8
        assert {one.code() for one in said if isinstance(one, grpc.aio.AioRpcError)} == {
            grpc.StatusCode.RESOURCE_EXHAUSTED
        }
        assert len(await catalogued(mom)) == 8
        # Who is in it renews that as before.
        names = await catalogued(mom)
        for one in asked:
            if one.service in names:
                await mom.stub.RegisterService(one, timeout=10)


async def test_who_crashes_again_and_again_takes_nobodys_place(server: RedisServer) -> None:
    """Each start is another replica, remembered for a minute: a loop of crashes would keep all others out."""
    async with running_mom(server.url, max_replicas=2) as mom:
        for number in range(10):
            await mom.stub.RegisterService(request(replica=f"start-{number}"), timeout=10)
        await mom.stub.RegisterService(request(replica="other", address="127.0.0.1:2"), timeout=10)
        code, details = await refused(mom, request(replica="third", address="127.0.0.1:3"))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "there are 2 replicas" in details


async def test_one_service_has_so_many_versions_at_once(mom: RunningMom) -> None:
    """A replica that comes back under another name with another description each time would fill the catalogue."""
    for number in range(16):
        await mom.stub.RegisterService(
            request(replica=f"r{number}", file_descriptor_set=files("some.v1", "Some", fields=number + 1)), timeout=10
        )
    code, details = await refused(mom, request(replica="more", file_descriptor_set=files("some.v1", "Some", fields=99)))

    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "16 versions" in details
    assert metrics.registrations_refused_total.labels("full")._value.get() > 0


async def test_a_catalogue_file_that_does_not_fit_is_told_at_the_start(tmp_path: Path) -> None:
    """What is left out of it would be found out by its clients."""
    (tmp_path / "some.binpb").write_bytes(files("some.v1", "Some", methods=10, fields=300))
    (tmp_path / "catalogue.toml").write_text('[services."some.v1.Some"]\ndescriptors = "some.binpb"\n')
    settings = MomSettings(catalogue=tmp_path / "catalogue.toml", max_catalogue_bytes=2**20, port=0, admin_port=0)

    with pytest.raises(StartError, match="POSTE_MAX_CATALOGUE_BYTES"):
        await run(settings, asyncio.Event())


# One bad entry, and what is sent


async def test_what_cant_be_read_takes_nobody_along(mom: RunningMom, server: RedisServer) -> None:
    """One record that was damaged, or written by another version, would end every middleware, or empty each gateway."""
    await mom.stub.RegisterService(request(), timeout=10)
    client = open_client(StoreSettings(redis_url=server.url))
    async with contextlib.aclosing(client):
        await client.hset(KEYS.catalogue, "bad.v1.Bad", b"\xff\xff")
        await client.hset(KEYS.catalogue, "grpc.health.v1.Health", b"")
        await client.hset(KEYS.catalogue, b"\xff\xfe", b"")
        await client.hset(KEYS.versions, "some.v1.Some x", b"no time")
        await client.hset(KEYS.versions, "some.v1.Some y", b"1 \xff\xff")
        await client.hset(KEYS.versions, "odd.v1.Odd z", b"1 \xff\xff")
        await client.hset(KEYS.places, "some.v1.Some x", "nonsense")
        await client.incr(KEYS.catalogue_version)

        async def counted() -> bool:
            return metrics.catalogue_passed_over._value.get() == 4

        await until(counted)
    assert list(await catalogued(mom)) == ["some.v1.Some"]
    await mom.stub.RegisterService(request("more.v1", "More"), timeout=10)
    assert set(await catalogued(mom)) == {"some.v1.Some", "more.v1.More"}


async def test_only_what_changed_is_sent(mom: RunningMom) -> None:
    """Each replica that comes or goes would cost every gateway the whole catalogue, in bytes and in reading."""
    await mom.stub.RegisterService(request(), timeout=10)
    stream = mom.stub.WatchCatalogue(pb.WatchCatalogueRequest(), timeout=20)
    first = await stream.read()
    await mom.stub.RegisterService(request("more.v1", "More"), timeout=10)
    second = await stream.read()
    await mom.stub.ForgetService(pb.ForgetServiceRequest(service="some.v1.Some"), timeout=10)
    third = await stream.read()
    stream.cancel()

    said = [([entry.name for entry in one.services], list(one.removed)) for one in (first, second, third)]
    assert said == [(["some.v1.Some"], []), (["more.v1.More"], []), ([], ["some.v1.Some"])]


async def test_a_catalogue_of_more_than_a_message_reaches_every_gateway(server: RedisServer, tmp_path: Path) -> None:
    """Past 16 MiB each gateway would know nothing, for good, and say that it is ready."""
    async with (
        running_mom(server.url, max_catalogue_bytes=2**31) as mom,
        running_gateway(tmp_path, mom.settings.port) as gateway,
    ):
        # With long names few are needed.
        for number in range(19):
            large = files("some.v1", f"S{number}", methods=100, fields=10, name="n" * 900)
            asked = request(service=f"S{number}", file_descriptor_set=large, address=f"127.0.0.1:{number + 1}")
            await mom.stub.RegisterService(asked, timeout=20)
        size = sum(entry.ByteSize() for entry in (await catalogued(mom)).values())
        assert size > 16 * 1024 * 1024
        await gateway.available(name="some.v1.S18", availability="away")
        assert len((await gateway.get("/v1/services")).body["services"]) == 19


class Unreadable(FakeMom):
    """A middleware whose catalogue is larger than any gateway takes, when asked to."""

    unreadable = False

    async def WatchCatalogue(self, _request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        if self.unreadable:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max")
        yield pb.WatchCatalogueResponse(services=self.entries)
        await self.changed.wait()


async def test_a_gateway_that_cant_read_the_catalogue_says_so(tmp_path: Path) -> None:
    """It would be ready, and go by an old catalogue for ever, without a word."""
    async with serving_mom(fake := Unreadable()) as port, running_gateway(tmp_path, port) as gateway:
        assert (await gateway.get("/readyz")).status == 200
        fake.unreadable = True
        fake.announce()

        async def told() -> bool:
            reply = await gateway.get("/readyz")
            return reply.status == 503 and "RESOURCE_EXHAUSTED" in reply.text

        await until(told)
        assert metrics.catalogue_followed._value.get() == 0
        fake.unreadable = False

        async def ready() -> bool:
            return (await gateway.get("/readyz")).status == 200

        await until(ready)


def annotated(package: str, *rules: str) -> pb.RegisterServiceRequest:
    entry = annotating.entry_of({"Call": (annotating.REQUEST, annotating.ANSWER, [*rules])}, package=package)
    return request(service="Cases", package=package, file_descriptor_set=entry.file_descriptor_set)


async def test_a_route_that_another_service_has_is_lost_alone_and_said(mom: RunningMom) -> None:
    """Else who registers last takes another's calls, or one route in common costs a service all it has."""
    first = await mom.stub.RegisterService(annotated("b.v1", "GET /v1/{name=things/*}"), timeout=10)
    assert not first.passed_over
    mine = annotated("a.v1", "GET /v1/things/{uuid}", "GET /v1/{name=mine/*}", "GET /v1/tasks/{uuid}")
    for _ in range(2):
        second = await mom.stub.RegisterService(mine, timeout=10)
        told = {one.path: one.reason for one in second.passed_over}
        assert told == {"/v1/things/{uuid}": "the route is b.v1.Cases's", "/v1/tasks/{uuid}": "the path is Poste's own"}
    # Though it is the first by name.
    services = {name: describe(entry) for name, entry in (await catalogued(mom)).items()}
    routes = RouteTable(services.values())
    found = [routes.find("GET", path, path) for path in ("/v1/things/1", "/v1/mine/1")]
    assert [match.method.service for match in found if match] == ["b.v1.Cases", "a.v1.Cases"]

    # Who had it gives it up: it is free, and whose it is then is known at their next registration.
    await mom.stub.ForgetService(pb.ForgetServiceRequest(service="b.v1.Cases"), timeout=10)
    third = await mom.stub.RegisterService(mine, timeout=10)
    assert [one.path for one in third.passed_over] == ["/v1/tasks/{uuid}"]
    (match,) = [RouteTable(map(describe, (await catalogued(mom)).values())).find("GET", "/v1/things/1", "/v1/things/1")]
    assert match is not None
