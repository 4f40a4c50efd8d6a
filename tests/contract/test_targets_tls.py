"""Services without the library over TLS: who is not who it should be is sent nothing, by either road."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from support import depot, feed
from support.certificates import Certificates
from support.gateway import FakeMom, answer, running_gateway, serving_mom, serving_shop
from support.redis_server import RedisServer
from support.self_signed import make_certificate
from support.targets import catalogue, courier, opened
from support.waiting import until

from poste.domain.errors import StartError
from poste.rpc import hang_probe
from poste.rpc.credentials import Credentials
from poste.rpc.target_trust import TargetTrust
from poste.upstream.replica_pool import ReplicaPool
from poste.v1.catalogue_pb2 import TargetTls

#: What a client begins a connection over TLS with: a record of its handshake (RFC 8446, section 5.1).
HANDSHAKE = b"\x16\x03"
#: What may be wrong with a server, and what is said of it.
REASONS = {
    "authority": "its certificate is refused",
    "name": "its certificate is refused: it is for another name",
    "no TLS": "it does not answer in TLS",
    "client": "demands another certificate of its clients",
}
Callers = list[Mapping[str, Sequence[bytes]]]


class Server(NamedTuple):
    """A server's certificate, which is its own authority, for localhost and 127.0.0.1."""

    certificate: Path
    key: Path

    def tls(self, clients: Path | None = None) -> grpc.ServerCredentials:
        """What it takes connections by: from all, or from those alone who have a certificate of that authority."""
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        believed = None if clients is None else clients.read_bytes()
        return grpc.ssl_server_credentials([pair], believed, require_client_auth=clients is not None)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Server, Server]:
    """Two of them, for the same names."""
    one, other = (Server(*make_certificate(tmp_path_factory.mktemp("server"))) for _ in range(2))
    return one, other


@pytest.fixture
def server(servers: tuple[Server, Server]) -> Server:
    return servers[0]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"), {"depot": [depot.NAME]})


@contextlib.asynccontextmanager
async def a_pool(trust: TargetTrust) -> AsyncIterator[ReplicaPool]:
    async with asyncio.TaskGroup() as group:
        pool = ReplicaPool(depot.NAME, group.create_task, trust=trust)
        try:
            yield pool
        finally:
            await pool.close()


async def test_a_registered_service_is_called_over_tls_by_both_roads(
    own_redis: RedisServer, tmp_path: Path, server: Server
) -> None:
    """Whoever is on the way reads the calls, or answers them in the service's place."""
    callers: Callers = []
    async with (
        opened(own_redis, tmp_path, ca_file=server.certificate) as office,
        courier(own_redis, office, targets_ca_file=server.certificate),
    ):
        async with depot.serving(tls=server.tls(), callers=callers) as port:
            done = await office.verb("register", f"grpcs://localhost:{port}", folder=tmp_path)
            await office.answers()
            in_plain = await office.register(f"127.0.0.1:{port}")
        await office.gateway.available(name=depot.NAME, availability="away", queueable=True)
        place = await office.kept()
        async with depot.serving(tls=server.tls(), callers=callers, port=port):
            await until(lambda: office.ended(place), what="the delivery")
            assert (await office.gateway.get(place)).body["state"] == "SUCCEEDED"

    assert (done.returncode, done.stderr) == (0, "")
    assert (in_plain.status, "can't be reached" in in_plain.body["detail"]) == (409, True)
    assert len(callers) == 2
    assert {tuple(caller["transport_security_type"]) for caller in callers} == {(b"ssl",)}


async def test_a_service_may_demand_the_part_s_own_certificate(
    own_redis: RedisServer, tmp_path: Path, server: Server, certificates: Certificates
) -> None:
    """Whoever reaches the service's port could call it past the gateway."""
    callers: Callers = []
    tls = server.tls(clients=certificates.folder / "ca.crt")
    async with (
        opened(own_redis, tmp_path, certificates=certificates, ca_file=server.certificate) as office,
        courier(own_redis, office, targets_ca_file=server.certificate, **certificates.settings_of("courier")),
        depot.serving(tls=tls, callers=callers) as port,
    ):
        said = await office.register(f"grpcs://127.0.0.1:{port}")
        await office.answers()
        place = await office.kept()
        await until(lambda: office.ended(place), what="the delivery")

    assert said.status == 200
    names = [caller["x509_subject_alternative_name"] for caller in callers]
    assert names == [[b"gateway.poste.internal"], [b"courier.poste.internal"]]


@pytest.mark.parametrize("wrong", REASONS)
async def test_who_is_not_who_it_should_be_is_sent_nothing(
    own_redis: RedisServer, tmp_path: Path, servers: tuple[Server, Server], certificates: Certificates, wrong: str
) -> None:
    """A call, and what it holds, would go to whoever answers at the address; and nobody be told why it does not."""
    (server, other), reason = servers, REASONS[wrong]
    callers: Callers = []
    tls = None if wrong == "no TLS" else server.tls(certificates.folder / "ca.crt" if wrong == "client" else None)
    believed = other if wrong == "authority" else server
    async with depot.serving(tls=tls, callers=callers) as port:
        target = f"grpcs://127.0.0.1:{port}"
        known_by = ['server_name = "ledger.example"'] if wrong == "name" else []
        (tmp_path / "depot.binpb").write_bytes(depot.descriptors(["Store"]))
        file = catalogue(tmp_path, target, *known_by)
        file.write_text(file.read_text().replace("reflect = true", 'descriptors = "depot.binpb"'))
        async with (
            opened(own_redis, tmp_path, ca_file=believed.certificate, catalogue=file) as office,
            courier(own_redis, office, targets_ca_file=believed.certificate),
        ):
            await office.gateway.available(name=depot.NAME, availability="away", queueable=True)
            place = await office.kept()
            direct = await office.call()
            await office.away_because(reason)
            shown = await office.verb("services", folder=tmp_path)
            said = await office.register(target)
            task = await office.gateway.get(place)

    assert direct.status == 503
    assert (task.body["state"], task.body.get("attempt", 0)) == ("QUEUED", 0)
    assert (said.status, reason in said.body["detail"]) == (409, True)
    assert reason in shown.stdout.replace("\n", " ")
    assert callers == []


async def test_what_else_a_server_has_is_known_by_what_the_catalogue_says_of_its_target(
    own_redis: RedisServer, tmp_path: Path, server: Server
) -> None:
    """A second service would be registered, read by the file's authorities, and be away for ever by the settings'."""
    other = "foreign.v1.Other"
    (tmp_path / "servers.crt").write_bytes(server.certificate.read_bytes())
    async with depot.serving(tls=server.tls(), names=(depot.NAME, other)) as port:
        target = f"grpcs://127.0.0.1:{port}"
        file = catalogue(tmp_path, target, 'ca_file = "servers.crt"')
        async with opened(own_redis, tmp_path, catalogue=file) as office:
            said = await office.register(target)
            await office.gateway.available(name=depot.NAME, ready=1)
            await office.gateway.available(name=other, ready=1)

    assert said.status == 200


async def test_streams_go_over_tls_by_the_catalogue_s_own_authorities(tmp_path: Path, server: Server) -> None:
    """A stream has a connection of its own, which would be in plain, or believe another."""
    async with feed.plain(feed.Feed(), tls=server.tls()) as place:
        entry = feed.entry(f"grpcs://{place}", library=False)
        entry.target_tls.ca, entry.target_tls.server_name = server.certificate.read_bytes(), "localhost"
        async with serving_mom(FakeMom(entry)) as mom, running_gateway(tmp_path, mom) as gateway:
            await gateway.available(name=feed.NAME, ready=1)
            reply = await gateway.get("/v1/feeds/a?count=2&letters=1&free=2", Accept="application/x-ndjson")

    assert (reply.status, len(reply.text.splitlines())) == (200, 2)


async def test_what_is_in_the_server_s_place_sees_a_handshake_and_no_more() -> None:
    """The page's look whether a service hangs, or a connection that is made anew, would go on in plain."""
    seen: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(2))
        writer.close()

    async with await asyncio.start_server(note, "127.0.0.1", 0) as listener, a_pool(TargetTrust()) as pool:
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        pool.update((f"grpcs://{address}",), library=False, max_in_flight=10)
        await until(lambda: len(seen) >= 2, what="connections")
        before = len(seen)
        assert not await hang_probe.accepts_but_silent(address, 5.0, tls=True)
        await until(lambda: len(seen) > before)

    assert {*seen} == {HANDSHAKE}


async def test_a_server_over_tls_that_lives_is_not_taken_for_one_that_hangs(server: Server) -> None:
    """A service whose certificate is refused would be shown as hung, and its process be looked at in vain."""
    async with depot.serving(tls=server.tls()) as port:
        assert not await hang_probe.accepts_but_silent(f"127.0.0.1:{port}", 5.0, tls=True)


async def test_from_when_on_tls_is_asked_for_nothing_goes_in_plain() -> None:
    """The connection from before would be used on and on, for it is up."""
    async with serving_shop(answer) as one, a_pool(TargetTrust()) as pool:
        pool.update((one.target,), library=False, max_in_flight=10)
        await until(lambda: pool.availability == "up")
        pool.update((f"grpcs://{one.target}",), library=False, max_in_flight=10)
        await until(lambda: pool.trouble is not None, what="it is known that TLS fails")

        assert pool.availability == "away"


async def test_authorities_are_renewed_in_place(tmp_path: Path, servers: tuple[Server, Server]) -> None:
    """A service whose certificate is of another authority than before would need a restart of all gateways."""
    server, other = servers
    file = tmp_path / "ca.crt"
    file.write_bytes(other.certificate.read_bytes())
    trust = TargetTrust(file)
    async with depot.serving(tls=server.tls()) as port, a_pool(trust) as pool:
        pool.update((f"grpcs://127.0.0.1:{port}",), library=False, max_in_flight=10)
        await until(lambda: pool.trouble is not None, what="it is not believed")
        file.write_bytes(server.certificate.read_bytes())
        trust.look()
        # Now, not when it is looked next: a call that finds none has it so.
        await pool.pick()
        await until(lambda: pool.availability == "up", what="it is believed")


def test_a_renewed_certificate_is_shown_and_what_can_not_be_used_is_not_taken(
    tmp_path: Path, server: Server, certificates: Certificates
) -> None:
    """Services would refuse an expired certificate for ever; or the Web's authorities do for a file half written."""
    files = certificates.settings_of("gateway")
    own = {name: tmp_path / file.name for name, file in files.items()}
    for name, file in files.items():
        own[name].write_bytes(file.read_bytes())
        own[name].chmod(0o600)
    shown = Credentials(*own.values())
    believed = tmp_path / "servers.crt"
    believed.write_bytes(server.certificate.read_bytes())
    trust = TargetTrust(believed, shown)
    target, none = "grpcs://ledger.example:443", TargetTls()
    before = trust.towards(target, none)
    assert before is not None
    assert before.peer == "ledger.example"
    for broken in (b"", b"half"):
        believed.write_bytes(broken)
        trust.look()
        assert trust.towards(target, none) == before
    assert trust.towards("ledger.example:443", none) is None

    for name, file in certificates.settings_of("courier").items():
        own[name].write_bytes(file.read_bytes())
    shown.look()

    assert trust.towards(target, none) != before
    with pytest.raises(StartError, match="POSTE_TARGETS_CA_FILE"):
        TargetTrust(believed)
