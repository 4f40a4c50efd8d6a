"""Clients' keys: who is let in, to what, how often; and whose a task is. A real gateway, on each of its surfaces."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs
from support import shop
from support.cli import environment, poste
from support.driven_office import SUM, Office, running_office
from support.gateway import Stage, answer, running_gateway, staged
from support.keyring import Keyring
from support.operating import OPERATOR
from support.redis_server import RedisServer
from support.rest import ORDER, PLACE, is_problem
from support.waiting import until

from poste.domain import carried
from poste.domain.codes import Code
from poste.domain.errors import StartError
from poste.queue import record
from poste.queue.record import RECORD_BYTES
from poste.runtime.settings import GatewaySettings
from poste_gateway.access import audit
from poste_gateway.access.doors import DOORS
from poste_gateway.access.identity import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
METHOD = f"/{shop.NAME}/Place"
#: Every surface that calls a method: verb, path, body, headers.
CALLS: tuple[tuple[str, str, Any, Mapping[str, str]], ...] = (
    ("POST", PLACE, ORDER, {}),
    ("POST", METHOD, ORDER, {"Connect-Protocol-Version": "1"}),
    ("POST", METHOD, b"", {"Content-Type": "application/proto"}),
    ("POST", METHOD, b"\0\0\0\0\0", {"Content-Type": "application/grpc-web+proto"}),
    ("POST", PLACE, ORDER, {"Prefer": "respond-async"}),
    ("POST", PLACE, ORDER, {"Idempotency-Key": "one"}),
    ("GET", f"/{shop.NAME}/Quote?connect=v1&encoding=json&message=%7B%7D", None, {}),
    ("GET", "/nothing/here", None, {}),
)


@dataclass
class Guarded:
    """A gateway that asks for keys, and the keys."""

    stage: Stage
    ring: Keyring

    async def ask(self, verb: str, path: str, body: Any = None, headers: Mapping[str, str] = {}) -> Any:
        sent = {name.replace("-", "_"): value for name, value in headers.items()}
        return await self.stage.gateway.ask(verb, path, body, **sent)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    ring = Keyring(folder / "client.keys")
    keys = {"all": ring.add("all", *Role)}
    for role in Role:
        keys[f"only-{role}"] = ring.add(f"only-{role}", role)
        keys[f"but-{role}"] = ring.add(f"but-{role}", *(one for one in Role if one is not role))
    async with staged(folder, answer, client_keys_file=ring.path, headers=keys["all"]) as stage:
        stage.keys = keys  # type: ignore[attr-defined]
        yield Guarded(stage, ring)


def place(path: str) -> str:
    """A path that a route stands for."""
    for kind, name in (("tasks", "x"), ("queues", shop.NAME), ("services", shop.NAME), ("methods", "Place")):
        path = path.replace(f"/{kind}/*", f"/{kind}/{name}")
    return path.replace("/problems/*", "/problems/gone").replace("/ui/*", "/ui/main.js")


@pytest.mark.parametrize(
    ("verb", "path", "role"), [(verb, path, role) for path, verbs in DOORS.items() for verb, role in verbs.items()]
)
async def test_every_own_route_asks_for_its_role(guarded: Guarded, verb: str, path: str, role: Role | None) -> None:
    """One door that was forgotten would be open to whoever finds it."""
    keys: dict[str, Mapping[str, str]] = guarded.stage.keys  # type: ignore[attr-defined]
    if path == "/ui/events":
        verb = "HEAD"
    bare = guarded.stage.gateway.session
    async with bare.request(verb, guarded.stage.gateway.url + place(path), allow_redirects=False) as nobody:
        if role is None:
            # A browser that signs in is asked for what it brings, and whether it is the gateway's own page.
            assert nobody.status < 400 or path == "/ui/session"
            return
        assert (nobody.status, nobody.headers["WWW-Authenticate"]) == (401, "Bearer")
    wrong = await guarded.ask(verb, place(path), headers={"Authorization": "Bearer poste_wrong"})
    without = await guarded.ask(verb, place(path), headers=keys[f"but-{role}"])
    allowed = await guarded.ask(verb, place(path), headers=keys[f"only-{role}"])
    assert (wrong.status, without.status) == (401, 403)
    assert allowed.status not in (401, 403)


@pytest.mark.parametrize(("verb", "path", "body", "headers"), CALLS)
async def test_every_surface_asks_for_a_key_that_may_call(
    guarded: Guarded, verb: str, path: str, body: Any, headers: Mapping[str, str]
) -> None:
    """Who is refused by REST would come in by Connect, gRPC-Web, or as a call that is kept."""
    keys: dict[str, Mapping[str, str]] = guarded.stage.keys  # type: ignore[attr-defined]
    role, sent = "read" if path.startswith("/nothing") else "call", {**headers}
    session, url = guarded.stage.gateway.session, guarded.stage.gateway.url
    data = json.dumps(body) if isinstance(body, dict) else body
    if isinstance(body, dict):
        sent["Content-Type"] = "application/json"
    statuses = []
    for key in ({}, keys[f"but-{role}"]):
        async with session.request(verb, url + path, data=data, headers={**sent, **key}) as reply:
            # gRPC-Web tells it in a frame behind the messages.
            told = re.search(rb"grpc-status: (\d+)", await reply.read())
            statuses.append(int(told[1]) if told else reply.status)
    assert statuses in ([401, 403], [Code.UNAUTHENTICATED, Code.PERMISSION_DENIED])
    assert guarded.stage.shops[0].ran == []
    assert not guarded.stage.mom.requests


async def test_a_preflight_and_the_probes_need_no_key(guarded: Guarded) -> None:
    """A browser sends no key with a preflight, and what balances gateways has none."""
    session, url = guarded.stage.gateway.session, guarded.stage.gateway.url
    for verb, path in (("OPTIONS", PLACE), ("GET", "/livez"), ("GET", "/readyz")):
        async with session.request(verb, url + path) as reply:
            assert reply.status < 300, (verb, path)


async def test_a_key_opens_the_methods_that_it_names(tmp_path: Path) -> None:
    """A client that was given one method would call them all, by a batch if not otherwise."""
    ring = Keyring(tmp_path / "client.keys")
    narrow, other = ring.add("narrow", methods=[f"{shop.NAME}/Place"]), ring.add("other", methods=["other.v1.Service"])
    async with staged(tmp_path, answer, client_keys_file=ring.path, headers=OPERATOR) as stage:
        batch = [{"method": f"{shop.NAME}/Place", "request": ORDER}]
        mine = await stage.gateway.post(PLACE, ORDER, **narrow)
        whole = await stage.gateway.post(PLACE, ORDER, **other)
        kept = await stage.gateway.post("/v1/tasks:batch", batch, **other)

    assert mine.status == 200
    is_problem(whole, 403, "not-allowed", "PERMISSION_DENIED")
    assert kept.body["results"][0]["error"]["type"] == "/problems/not-allowed"


async def test_the_handler_is_told_its_client_and_never_the_key(tmp_path: Path) -> None:
    """A service could not tell its clients apart, a client could name another, or a service could use their keys."""
    ring = Keyring(tmp_path / "client.keys")
    acme = ring.add("acme")
    forwards = {"request_headers": {"names": ["authorization", "grpc-metadata-*"]}}
    async with staged(tmp_path, answer, entry=forwards, client_keys_file=ring.path, headers=OPERATOR) as stage:
        said = await stage.gateway.post(PLACE, ORDER, Grpc_Metadata_Poste_Client="other", **acme)
        (metadata,) = stage.shops[0].metadata

    assert said.status == 200
    assert metadata["poste-client"] == "acme"
    assert "authorization" not in metadata


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office(own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Office, Any]]:
    folder = tmp_path_factory.mktemp("office")
    ring = Keyring(folder / "client.keys")
    keys = {
        "acme": ring.add("acme"),
        "other": ring.add("other"),
        "brief": ring.add("brief", max_task_ttl_seconds=60, max_result_ttl_seconds=30),
        "looks": ring.add("looks", "call", "read", "look"),
        "few": ring.add("few", max_waiting_calls=1),
        "little": ring.add("little", max_kept_bytes=2 * RECORD_BYTES),
    }
    files = {"client_keys_file": ring.path, "audit_file": folder / "audit.log"}
    async with running_office(own_redis, folder, headers=OPERATOR, **files) as one:
        one.folder = folder  # type: ignore[attr-defined]
        yield one, keys


async def test_a_task_is_its_clients(office: tuple[Office, Any]) -> None:
    """Who learns of an id, by a log or over a shoulder, would read the result, or cancel the call."""
    one, keys = office
    at = await one.waiting(**keys["acme"])
    tries = [("GET", at), ("GET", f"{at}/history"), ("GET", f"{at}/events"), ("DELETE", at)]
    for verb, path in tries:
        is_problem(await one.gateway.ask(verb, path, **keys["other"]), 404, "no-such-task", "NOT_FOUND")
    mine = await one.gateway.get(at, **keys["acme"])
    looked = [await one.gateway.get(at, **keys["looks"]), await one.gateway.get(at, **OPERATOR)]
    listed = await one.gateway.get(f"/v1/queues/{SUM}/tasks", **keys["looks"])
    cancelled = await one.gateway.ask("DELETE", at, **keys["acme"])

    assert [reply.status for reply in (mine, *looked)] == [200, 200, 200]
    assert mine.body["id"] in [task["id"] for task in listed.body["tasks"]]
    assert cancelled.body["state"] == "CANCELLED"


async def test_an_operators_look_at_what_is_a_clients_is_written_down(office: tuple[Office, Any]) -> None:
    """Who cancels others' calls, or reads their results, by what clients do it by as well, could not be found out."""
    one, keys = office
    theirs, mine = await one.waiting(**keys["acme"]), await one.waiting(**keys["looks"])
    file = one.folder / "audit.log"  # type: ignore[attr-defined]
    before = len([*audit.entries(file)])
    asked = [
        *(("acme", f"GET {theirs}"), ("acme", "GET /v1/tasks"), ("acme", "HEAD /ui/events"), ("looks", f"GET {mine}")),
        *(("looks", f"GET {theirs}"), ("looks", f"GET {theirs}/history"), ("looks", "GET /v1/tasks?pageSize=1")),
        *(("looks", "HEAD /ui/events"), ("looks", f"DELETE {theirs}"), ("looks", f"DELETE {mine}")),
    ]
    statuses = [(await one.gateway.ask(*what.split(), **keys[who])).status for who, what in asked]
    written = [*audit.entries(file)][before:]

    assert statuses == [200] * len(asked)
    assert [(entry["who"], entry["what"]) for entry in written] == asked[4:9]
    assert {entry["outcome"] for entry in written} == {"OK"}


async def test_the_record_keeps_the_client(office: tuple[Office, Any]) -> None:
    """A call that waited would reach its handler as nobody's."""
    one, keys = office
    at = await one.waiting(**keys["acme"])
    key = one.gateway.ids.read(at.removeprefix("/v1/tasks/")).key
    kept = await one.client.hget(one.keys.record(key), record.HEADERS)
    assert ("poste-client", "acme") in carried.read(kept.decode())
    await one.gateway.ask("DELETE", at, **keys["acme"])


async def test_each_client_has_idempotency_keys_of_its_own(office: tuple[Office, Any]) -> None:
    """A client would get another's answer by guessing a key, or be told that its own was used."""
    one, keys = office
    asked = {"Idempotency_Key": "same", "Prefer": "respond-async"}
    first = await one.gateway.post("/v1/sum", {"a": 1, "b": 1}, **asked, **keys["acme"])
    again = await one.gateway.post("/v1/sum", {"a": 1, "b": 1}, **asked, **keys["acme"])
    others = await one.gateway.post("/v1/sum", {"a": 2, "b": 2}, **asked, **keys["other"])

    assert [reply.status for reply in (first, again, others)] == [202, 202, 202]
    assert again.body["id"] == first.body["id"] != others.body["id"]
    assert "Idempotent-Replayed" not in others.headers


async def test_a_keys_ceilings_cut_times_to_live(office: tuple[Office, Any]) -> None:
    """A client would keep the queue full of what it could have for weeks."""
    one, keys = office
    reply = await one.gateway.post("/v1/sum", {"a": 1, "b": 1}, Prefer="respond-async", **keys["brief"])
    found = one.gateway.ids.read(reply.body["id"])

    assert (found.task_ttl_seconds, found.result_ttl_seconds) == (60, 30)


async def test_a_keys_ceiling_holds_for_the_time_that_calls_wait_for(office: tuple[Office, Any]) -> None:
    """The same client would keep it full for a month, by calls for later."""
    one, keys = office
    call = {"method": f"{SUM}/Add", "request": {"a": 1, "b": 1}}
    far = await one.gateway.post("/v1/sum", call["request"], Poste_Not_Before="70", **keys["brief"])
    near = await one.gateway.post("/v1/sum", call["request"], Poste_Not_Before="60", **keys["brief"])
    free = await one.gateway.post("/v1/sum", call["request"], Poste_Not_Before="70", **keys["acme"])
    many = await one.gateway.post("/v1/tasks:batch", [{**call, "notBefore": 70}, call], **keys["brief"])
    all_ = await one.gateway.post("/v1/tasks:batch", [call], Poste_Not_Before="70", **keys["brief"])

    reason = "may be at most 60 seconds ahead with these credentials"
    assert (near.status, free.status) == (202, 202)
    is_problem(far, 400, "invalid-request", "INVALID_ARGUMENT")
    assert far.body["errors"] == [{"field": "Poste-Not-Before", "reason": reason}]
    said = [result.get("error", {}).get("detail") for reply in (many, all_) for result in reply.body["results"]]
    assert said == [f"notBefore {reason}", None, f"Poste-Not-Before {reason}"]


async def test_a_client_has_its_quota_of_a_queue_and_is_told_what_it_has(office: tuple[Office, Any]) -> None:
    """One client would fill a queue for all, as long as it did not ask too often."""
    one, keys = office
    call = {"method": f"{SUM}/Add", "request": {"a": 1, "b": 1}}
    first = await one.waiting(**keys["few"])
    over = await one.gateway.post("/v1/sum", call["request"], Prefer="respond-async", **keys["few"])
    others = await one.gateway.post("/v1/sum", call["request"], Prefer="respond-async", **keys["acme"])
    many = await one.gateway.post("/v1/tasks:batch", [call, call], **keys["little"])
    await one.gateway.ask("DELETE", first, **keys["few"])
    after = await one.gateway.post("/v1/sum", call["request"], Prefer="respond-async", **keys["few"])

    is_problem(over, 429, "quota-exceeded", "RESOURCE_EXHAUSTED")
    has = "In this service's queue the client has"
    assert over.body["detail"] == f"{has} 1 of the 1 waiting calls that it may have: nothing was accepted."
    assert over.headers["Retry-After"]
    assert (others.status, after.status) == (202, 202)
    kept, refused = many.body["results"]
    assert (kept["task"]["state"], refused["error"]["type"]) == ("QUEUED", "/problems/quota-exceeded")
    assert refused["error"]["detail"].startswith(f"{has} 418 of the 800 bytes that it may have")


async def test_a_key_is_used_so_often_and_no_more(tmp_path: Path) -> None:
    """One client would take all that the gateway has; or have no way to know when it may go on."""
    ring = Keyring(tmp_path / "client.keys")
    limited, free = ring.add("limited", rate="3/1000"), ring.add("free")
    async with staged(tmp_path, answer, client_keys_file=ring.path, headers=OPERATOR) as stage:
        replies = [await stage.gateway.post(PLACE, ORDER, **limited) for _ in range(4)]
        read = await stage.gateway.get("/v1/services", **limited)
        other = await stage.gateway.post(PLACE, ORDER, **free)

    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert replies[0].headers["RateLimit-Policy"] == '"key";q=3;w=1000'
    assert replies[0].headers["RateLimit"].startswith('"key";r=2;t=')
    is_problem(replies[3], 429, "rate-limited", "RESOURCE_EXHAUSTED")
    assert 300 < int(replies[3].headers["Retry-After"]) <= 334
    assert (read.status, other.status, "RateLimit" in other.headers) == (429, 200, False)


async def test_what_a_key_may_not_do_counts_too(tmp_path: Path) -> None:
    """Who has a key that may little would ask for what it may not without end: that cost nothing."""
    ring = Keyring(tmp_path / "client.keys")
    limited = ring.add("limited", rate="2/1000")
    async with staged(tmp_path, client_keys_file=ring.path, headers=OPERATOR) as stage:
        replies = [await stage.gateway.post(f"/v1/queues/{shop.NAME}/pause", **limited) for _ in range(3)]

    assert [reply.status for reply in replies] == [403, 403, 429]


async def test_wrong_keys_come_so_often_from_an_address_and_right_ones_always(tmp_path: Path) -> None:
    """Keys could be tried without end; or whoever does so would lock out who shares an address with him."""
    ring = Keyring(tmp_path / "client.keys")
    good = ring.add("good")
    files = {"client_keys_file": ring.path, "trusted_proxies": "10.0.0.0/8"}
    async with staged(tmp_path, answer, headers=OPERATOR, **files) as stage:
        tries = [await stage.gateway.post(PLACE, ORDER, Authorization=f"Bearer wrong{n}") for n in range(40)]
        signing = await stage.gateway.post("/ui/session", {"key": "wrong"}, Sec_Fetch_Site="same-origin")
        bare = await stage.gateway.get("/v1/services", Authorization="")
        mine = [await stage.gateway.post(PLACE, ORDER, **good) for _ in range(3)]
        async with stage.gateway.other("127.0.0.2") as other:
            elsewhere = await other.post(PLACE, ORDER, Authorization="Bearer wrong")

    assert {reply.status for reply in tries[:30]} == {401}
    for reply in (tries[-1], signing):
        is_problem(reply, 429, "too-many-attempts", "RESOURCE_EXHAUSTED")
        assert 1 <= int(reply.headers["Retry-After"]) <= 2
    assert [reply.status for reply in mine] == [200, 200, 200]
    assert (bare.status, elsewhere.status) == (401, 401)


async def test_each_call_of_a_batch_counts(tmp_path: Path) -> None:
    """Ten thousand calls would pass as one."""
    ring = Keyring(tmp_path / "client.keys")
    limited = ring.add("limited", rate="3/1000")
    batch = [{"method": f"{shop.NAME}/Place", "request": ORDER}] * 5
    async with staged(tmp_path, answer, client_keys_file=ring.path, headers=OPERATOR) as stage:
        first = await stage.gateway.post("/v1/tasks:batch", batch, **limited)
        after = await stage.gateway.post(PLACE, ORDER, **limited)

    assert (first.status, after.status) == (200, 429)


async def test_a_batch_counts_as_often_as_it_has_calls_and_once_at_least(tmp_path: Path) -> None:
    """The last request of a rate would be refused if it is a batch; or one without calls be free."""
    ring = Keyring(tmp_path / "client.keys")
    one, none = ring.add("one", rate="1/1000"), ring.add("none", rate="1/1000")
    batch = [{"method": f"{shop.NAME}/Place", "request": ORDER}]
    async with staged(tmp_path, answer, client_keys_file=ring.path, headers=OPERATOR) as stage:
        replies = [
            await stage.gateway.post("/v1/tasks:batch", calls, **key)
            for calls, key in ((batch, one), (batch, one), ([], none), (batch, none))
        ]

    assert [reply.status for reply in replies] == [200, 429, 200, 429]


async def test_what_is_left_of_a_rate_is_told_to_its_own_client(tmp_path: Path) -> None:
    """Behind a proxy many clients come by one connection: the next one there would be told of the one before."""
    ring = Keyring(tmp_path / "client.keys")
    limited = ring.add("limited", rate="3/1000")["Authorization"].encode()
    async with staged(tmp_path, answer, client_keys_file=ring.path, headers=OPERATOR) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.port)
        writer.write(b"GET /v1/services HTTP/1.1\r\nHost: localhost\r\nAuthorization: %b\r\n\r\n" % limited)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        said = await asyncio.wait_for(reader.read(), 15)
        writer.close()

    assert said.count(b"HTTP/1.1 200 ") == 2
    assert said.count(b"RateLimit-Policy: ") == 1


async def test_who_watches_the_page_does_so_until_the_key_is_revoked(tmp_path: Path) -> None:
    """The stream has no end: a key that was lost would show all tasks for as long as the gateway runs."""
    ring = Keyring(tmp_path / "client.keys")
    watch = ring.add("watch", "read", "look")
    async with (
        staged(tmp_path, answer, client_keys_file=ring.path, headers=OPERATOR) as stage,
        stage.gateway.session.get(f"{stage.gateway.url}/ui/events", headers=watch) as stream,
        asyncio.timeout(20),
    ):
        await stream.content.readuntil(b"event: snapshot")
        ring.remove("watch")
        await stream.content.read()


async def test_a_revoked_key_is_out_and_a_broken_file_lets_none_out(tmp_path: Path) -> None:
    """A key that was lost would be good until a restart; or one typing error would shut all clients out."""
    ring = Keyring(tmp_path / "client.keys")
    gone, stays = ring.add("gone"), ring.add("stays")
    async with staged(tmp_path, answer, client_keys_file=ring.path, headers=OPERATOR) as stage:

        async def status(key: Mapping[str, str]) -> int:
            return int((await stage.gateway.post(PLACE, ORDER, **key)).status)

        before = await status(gone)
        ring.remove("gone")

        async def out() -> bool:
            return await status(gone) == 401

        await until(out, what="the key is out")
        kept = await status(stays)
        late = ring.add("late")

        async def in_() -> bool:
            return await status(late) == 200

        await until(in_, what="the new key is in")
        with capture_logs() as logs:
            ring.path.write_text("{")
            await until(
                lambda: [one for one in logs if one["event"] == "keys refused"], what="a word of the broken file"
            )
        assert (before, kept, await status(stays), await status(late)) == (200, 200, 200, 200)


async def test_a_file_that_others_could_read_is_read_once_they_can_not(tmp_path: Path) -> None:
    """What its operator wrote, and then mended as the log says, would not count: a revoked key stayed good."""
    ring = Keyring(tmp_path / "client.keys")
    gone = ring.add("gone")
    async with staged(tmp_path, answer, client_keys_file=ring.path, headers=OPERATOR) as stage:

        async def status() -> int:
            return int((await stage.gateway.post(PLACE, ORDER, **gone)).status)

        with capture_logs() as logs:
            ring.remove("gone", mode=0o644)
            await until(lambda: [one for one in logs if one["event"] == "keys refused"], what="a word of its mode")
        refused = await status()
        ring.path.chmod(0o600)

        async def out() -> bool:
            return await status() == 401

        await until(out, what="the key is out")
        assert refused == 200


async def test_a_file_that_is_wrong_is_refused_and_its_secrets_not_told(tmp_path: Path) -> None:
    """A gateway would start with no keys; or log one that was written where its digest should be."""
    ring = Keyring(tmp_path / "client.keys")
    ring.add("one", sha256="poste_secret")
    with pytest.raises(StartError, match=r"client.keys: keys\.0\.sha256") as refused:
        async with running_gateway(tmp_path, 1, wait=False, client_keys_file=ring.path):
            pass
    assert "poste_secret" not in str(refused.value)
    ring.path.chmod(0o644)
    with pytest.raises(StartError, match="others can read it"):
        async with running_gateway(tmp_path, 1, wait=False, client_keys_file=ring.path):
            pass


async def test_who_shows_no_key_may_call_where_a_setting_says_so(tmp_path: Path) -> None:
    """Public methods beside private ones would need a key that everybody knows."""
    ring = Keyring(tmp_path / "client.keys")
    acme = ring.add("acme")
    async with staged(tmp_path, answer, client_keys_file=ring.path, anonymous_calls=True) as stage:
        called = await stage.gateway.post(PLACE, ORDER)
        wrong = await stage.gateway.post(PLACE, ORDER, Authorization="Bearer poste_wrong")
        operated = await stage.gateway.post(f"/v1/queues/{shop.NAME}/pause")
        kept = await stage.gateway.post(PLACE, ORDER, Prefer="respond-async")
        at = kept.headers["Location"]
        others = await stage.gateway.get(at, **acme)
        document = await stage.gateway.get("/openapi.json")

    assert [reply.status for reply in (called, wrong, operated, kept, others)] == [200, 401, 401, 202, 404]
    assert "poste-client" not in stage.shops[0].metadata[0]
    assert document.body["security"] == [{}, {"Key": []}]


async def test_the_document_says_what_is_to_be_shown(guarded: Guarded) -> None:
    """A generated client would send no key, and a page to try calls have no field for one."""
    document = (await guarded.stage.gateway.get("/openapi.json")).body

    assert document["security"] == [{"Key": []}]
    assert document["components"]["securitySchemes"]["Key"]["scheme"] == "bearer"


async def test_a_gateway_without_keys_asks_for_none(tmp_path: Path) -> None:
    """On loopback a newcomer would need a key before the first call; a service's own tokens would be taken for keys."""
    async with staged(tmp_path, answer) as stage:
        called = await stage.gateway.post(PLACE, ORDER, Authorization="Bearer whatever the service asks for")
        document = await stage.gateway.get("/openapi.json")

    assert called.status == 200
    assert "security" not in document.body


@pytest.mark.parametrize(("host", "more", "fits"), [
    ("0.0.0.0", {}, False),  # noqa: S104 - what it is about
    ("::", {}, False),
    ("poste.example", {}, False),
    ("0.0.0.0", {"anonymous_calls": True}, True),  # noqa: S104
    ("0.0.0.0", {"client_keys_file": "client.keys"}, True),  # noqa: S104
    ("127.0.0.1", {}, True),
    ("::1", {}, True),
    ("localhost", {}, True),
])  # fmt: skip
async def test_beyond_loopback_a_gateway_needs_keys_or_a_word_for_it(host: str, more: Any, fits: bool) -> None:
    """A gateway that was only to be tried would be open to the network."""
    if fits:
        assert GatewaySettings(host=host, **more).host == host
    else:
        with pytest.raises(StartError, match="POSTE_ANONYMOUS_CALLS=true"):
            GatewaySettings(host=host, **more)


async def test_keys_are_made_listed_and_revoked_by_a_command(tmp_path: Path) -> None:
    """Keys would be made by hand, and written where others read them."""
    file = tmp_path / "client.keys"
    env = environment(POSTE_CLIENT_KEYS_FILE=str(file))
    limits = ("--rate", "100/60", "--max-waiting-calls", "50", "--max-kept-bytes", "1000000")
    made = poste("keys", "new", "acme-1", "--client", "acme", "--role", "call", *limits, env=env)
    twice = poste("keys", "new", "acme-1", env=env)
    operator = poste("keys", "new", "ann", "--role", "look", "--role", "replay", env=env)
    wrong = poste("keys", "new", "bad", "--rate", "many", env=env)
    listed = poste("keys", "list", env=env)
    key = made.stdout.strip()
    secret = tmp_path / "key"
    os.close(os.open(secret, os.O_CREAT, 0o600))
    secret.write_text(operator.stdout)
    async with staged(tmp_path, answer, client_keys_file=file, headers=OPERATOR) as stage:
        called = await stage.gateway.post(PLACE, ORDER, Authorization=f"Bearer {key}")
    revoked = poste("keys", "revoke", "acme-1", env=env)

    assert (made.returncode, called.status, revoked.returncode) == (0, 200, 0)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in file.read_text()
    assert (twice.returncode, "two keys have the name acme-1" in twice.stderr) == (2, True)
    assert (wrong.returncode, "must be how many requests" in wrong.stderr) == (2, True)
    assert listed.stdout.startswith("acme-1: client acme; call; rate 100/60; 50 waiting calls; 1000000 kept bytes; ")
    assert poste("keys", "list", env=env).stdout.startswith("ann: client ann; look, replay; ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other groups")
async def test_who_could_read_the_keys_can_after_a_change(tmp_path: Path) -> None:
    """Gateways that read root's file by their group would go on with the last one, and let in a revoked key."""
    ring = Keyring(tmp_path / "client.keys")
    ring.add("acme")
    os.chown(ring.path, 0, 65534)
    ring.path.chmod(0o640)
    revoked = poste("keys", "revoke", "acme", env=environment(POSTE_CLIENT_KEYS_FILE=str(ring.path)))
    after = ring.path.stat()

    assert revoked.returncode == 0, revoked.stderr
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (0, 65534, 0o640)


async def test_task_ids_are_signed_by_a_new_key_without_a_restart(own_redis: RedisServer, tmp_path: Path) -> None:
    """A key that leaked could only be replaced by giving up every task; or a repeated call would run once more."""
    file = tmp_path / "id.key"
    asked = {"Idempotency_Key": "same", "Prefer": "respond-async"}
    async with running_office(own_redis, tmp_path) as one:
        place = await one.waiting()
        named = await one.gateway.post("/v1/sum", {"a": 1, "b": 1}, **asked)
        said = await asyncio.to_thread(poste, "keys", "rotate-ids", "--file", str(file), "--in", "0")

        async def renewed() -> bool:
            return (await one.waiting())[:11] != place[:11]

        await until(renewed, what="an id that is signed by the new key")
        again = await one.gateway.post("/v1/sum", {"a": 1, "b": 1}, **asked)
        kept = await one.gateway.get(place)
        newer = await one.gateway.get(await one.waiting())

    assert (said.returncode, said.stdout[:11]) == (0, "key 1 signs")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (kept.status, newer.status) == (200, 200)
    assert again.body["id"] == named.body["id"]
