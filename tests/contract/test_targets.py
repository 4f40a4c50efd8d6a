"""Services without the library are registered by what their server says of itself: by REST, the verb, and the file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support import depot
from support.gateway import Gateway
from support.ports import free_port
from support.redis_server import RedisServer
from support.rest import is_problem
from support.targets import TARGETS, Office, catalogue, courier, opened
from support.waiting import until

from poste.runtime import metrics
from poste.v1 import mom_service_pb2 as pb

#: What is no target over TLS, and must not be called in plain for it.
TLS = ("grpcs://", "grpcs://localhost", "GRPCS://a:1", "https://a:1", "grpcs://a:1/x")


@pytest.fixture
async def office(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Office]:
    async with opened(own_redis, tmp_path) as one:
        yield one


async def test_a_server_is_registered_by_its_address_alone(office: Office) -> None:
    """For a service that is another's, or not in Python, one would have to make descriptor sets by hand."""
    async with depot.serving(("Store", "Fetch")) as port:
        said = await office.register(f"127.0.0.1:{port}")
        await office.answers()
        called = await office.call()
        again = await office.register(f"127.0.0.1:{port}")

    listed = [{"name": depot.NAME, "methods": ["Fetch", "Store"]}]
    assert (said.status, said.body) == (200, {"target": f"127.0.0.1:{port}", "services": listed})
    assert (called.status, called.body["sku"]) == (200, "a")
    assert again.body == said.body


async def test_what_changed_at_a_restart_is_seen_without_anyones_doing(office: Office) -> None:
    """A new release of the service would be called by the schema of the one before, until an operator noticed."""
    async with depot.serving(("Store", "Old")) as port:
        await office.register(f"127.0.0.1:{port}")
        await office.answers("Old")
    async with depot.serving(("Store", "New"), port=port):
        await office.answers("New")
        old = await office.call("Old")
    # Away it is what it was last.
    await office.answers("New", 503)

    assert old.status == 404


async def test_each_replica_is_read_when_it_comes(own_redis: RedisServer, tmp_path: Path) -> None:
    """A release would not be seen while replicas are exchanged one by one: as a whole such a server never goes."""
    ports = [free_port(), free_port()]
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    async with (
        opened(own_redis, tmp_path, catalogue=catalogue(tmp_path, target)) as office,
        depot.serving(port=ports[0]),
    ):
        async with depot.serving(port=ports[1]):
            await office.gateway.available(name=depot.NAME, ready=2)
        await office.gateway.available(name=depot.NAME, ready=1)
        async with depot.serving(("Store", "New"), port=ports[1]):
            # The other one has none of it.
            await office.known("New")


async def test_results_of_what_is_gone_can_be_read(own_redis: RedisServer, tmp_path: Path) -> None:
    """A client that comes for its result would find none, because of a release meanwhile."""
    async with opened(own_redis, tmp_path) as office, courier(own_redis, office):
        async with depot.serving(("Store", "Old")) as port:
            await office.register(f"127.0.0.1:{port}")
            await office.gateway.available(name=depot.NAME, queueable=True)
            kept = await office.gateway.post(f"/{depot.NAME}/Old", {"sku": "a"}, Prefer="respond-async")
            place = kept.headers["Location"]
            await until(lambda: office.ended(place), what="the result")
        async with depot.serving(("Store", "New"), port=port):
            await office.known("New")
            read = await office.gateway.get(place)

    assert (read.body["state"], read.body["response"]["sku"]) == ("SUCCEEDED", "a")


async def test_what_was_registered_outlives_the_middleware(own_redis: RedisServer, tmp_path: Path) -> None:
    """Its calls would be unknown paths after a restart, just while the service is away."""
    async with opened(own_redis, tmp_path) as office, depot.serving() as port:
        await office.register(f"127.0.0.1:{port}")
        await office.answers()
    async with opened(own_redis, tmp_path, empty=False) as office:
        await office.answers(status=503)
        async with depot.serving(("Store", "New"), port=port):
            await office.answers("New")


async def test_what_was_forgotten_stays_so(office: Office, tmp_path: Path) -> None:
    """An operator would take it out again and again: its server is there, and is read again."""
    async with depot.serving() as port:
        await office.register(f"127.0.0.1:{port}")
        await office.answers()
        done = await office.verb("forget", depot.NAME, folder=tmp_path)
        await office.answers(status=404)
    async with depot.serving(("Store", "New"), port=port):
        said = await office.register(f"127.0.0.1:{port}")
        await office.answers("New")

    assert done.returncode == 0
    assert said.status == 200


async def test_what_cannot_be_registered_is_told_why(office: Office) -> None:
    """An operator would not know which of two things to mend: the address, or the server."""
    nobody = await office.register(f"127.0.0.1:{free_port()}")
    async with depot.serving(versions=()) as port:
        mute = await office.register(f"127.0.0.1:{port}")
    wrong = [await office.register(target) for target in ("", "nowhere", "a:0", "unix:/x", "a:1/b", *TLS)]
    async with depot.serving(names=("google.evil.Depot",)) as port:
        reserved = await office.register(f"127.0.0.1:{port}")

    is_problem(nobody, 409, "target-unread", "FAILED_PRECONDITION", TARGETS)
    assert "can't be reached" in nobody.body["detail"]
    assert "no server reflection" in mute.body["detail"]
    assert {reply.status for reply in wrong} == {400}
    assert "reserved" in reserved.body["detail"]


async def test_a_service_of_somebody_else_is_left_to_him(office: Office) -> None:
    """A client that may name an address would take over another's calls."""
    request = pb.RegisterServiceRequest(
        service=depot.NAME, file_descriptor_set=depot.descriptors(["Store"]), address="127.0.0.1:9"
    )
    await office.mom.stub.RegisterService(request, timeout=5)
    other = "foreign.v1.Other"
    async with depot.serving() as port, depot.serving(names=[other]) as first, depot.serving(names=[other]) as second:
        library = (await office.register(f"127.0.0.1:{port}")).body["services"]
        await office.register(f"127.0.0.1:{first}")
        elsewhere = (await office.register(f"127.0.0.1:{second}")).body["services"]

    assert [(one["name"], "worker library" in one["refused"]) for one in library] == [(depot.NAME, True)]
    assert f"127.0.0.1:{first}" in elsewhere[0]["refused"]


async def test_only_operators_register(office: Office) -> None:
    """Any client could have gateways call whatever address it likes."""
    stranger = Gateway(office.gateway.port, office.gateway.session, office.gateway.ids)
    refused = await stranger.post(f"{TARGETS}?target=127.0.0.1:1")

    assert refused.status == 401


async def test_the_verb_registers(office: Office, tmp_path: Path) -> None:
    """It is the installed command that people have."""
    async with depot.serving() as port:
        done = await office.verb("register", f"127.0.0.1:{port}", folder=tmp_path)
        await office.answers()
    failed = await office.verb("register", f"127.0.0.1:{port}", folder=tmp_path)

    assert (done.returncode, done.stdout) == (0, f"{depot.NAME}: registered at 127.0.0.1:{port}: Store\n")
    assert failed.returncode == 1
    assert "can't be reached" in failed.stderr


def reasons(logs: list[Any]) -> list[str]:
    return [line["reason"] for line in logs if line["event"] == "target not read"]


async def test_the_catalogue_file_leaves_it_to_the_server(own_redis: RedisServer, tmp_path: Path) -> None:
    """A deployment would have to ship the descriptors of each release, and be wrong whenever it did not."""
    port = free_port()
    with capture_logs() as logs:
        async with opened(own_redis, tmp_path, catalogue=catalogue(tmp_path, f"127.0.0.1:{port}")) as office:
            early = await office.call()
            # Not by the metric: another test's middleware may have left it so.
            await until(lambda: reasons(logs), what="it is logged that no service can be reached")
            counted = metrics.targets_unread._value.get()
            async with depot.serving(port=port):
                await office.answers()
                await until(lambda: metrics.targets_unread._value.get() == 0, what="it is told that all is well")
        # Another file: its settings hold for what is known of the service, before that is there again.
        changed = catalogue(tmp_path, f"127.0.0.1:{port}", 'away = "reject"', "timeout_seconds = 7")
        async with opened(own_redis, tmp_path, empty=False, catalogue=changed) as office:
            await office.answers(status=503)
            (listed,) = (await office.gateway.get(TARGETS)).body["services"]

    assert early.status == 404
    assert counted == 1
    assert len([reason for reason in reasons(logs) if reason.startswith("no connection")]) == 1
    assert (listed["methods"][0]["away"], listed["methods"][0]["timeoutSeconds"]) == ("reject", 7)
