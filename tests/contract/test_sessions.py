"""The page's sessions: signed in once, by a cookie that no other page can use. Real gateways that share their files."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support import shop
from support.gateway import Stage, answer, running_gateway, staged
from support.keyring import Keyring
from support.operating import OPERATOR, TOKEN
from support.rest import ORDER, PLACE, is_problem
from support.waiting import until

from poste.domain import id_keys
from poste_gateway.access import audit
from poste_gateway.access.client_keys import digest
from poste_gateway.access.sessions import SESSION_SECONDS, Sessions

pytestmark = pytest.mark.asyncio(loop_scope="module")
#: What a browser says of a request that the gateway's own page makes.
OWN = {"Sec_Fetch_Site": "same-origin"}
QUEUE = f"/v1/queues/{shop.NAME}"


class Signed:
    """Gateways that ask for keys, behind one name, and a browser that is signed in."""

    def __init__(self, stage: Stage, ring: Keyring, folder: Path) -> None:
        self.stage, self.gateway, self.ring, self.folder = stage, stage.gateway, ring, folder
        self.keys = {
            "operators": OPERATOR,
            "reads": ring.add("reads", "read"),
            "leaves": ring.add("leaves", "read"),
            "ann": ring.add("ann", "read", "look", "catalogue"),
        }

    async def sign_in(self, name: str, **headers: str) -> Morsel[str]:
        """Sign in by a key; returns the cookie."""
        key = self.keys[name]["Authorization"].removeprefix("Bearer ")
        reply = await self.gateway.post("/ui/session", {"key": key}, **{**OWN, **headers})
        assert reply.status == 200, reply.text
        return cookie_of(reply)


def cookie_of(reply: Any) -> Morsel[str]:
    (cookie,) = SimpleCookie(reply.headers["Set-Cookie"]).values()
    return cookie


def shown(cookie: Morsel[str], value: str = "") -> dict[str, str]:
    return {"Cookie": f"theme=dark; {cookie.key}={value or cookie.value}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def signed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Signed]:
    folder = tmp_path_factory.mktemp("signed")
    ring = Keyring(folder / "client.keys")
    files = {"client_keys_file": ring.path, "audit_file": folder / "audit.log"}
    entry = {"request_headers": {"names": ["cookie", "x-tenant"]}}
    async with staged(folder, answer, entry=entry, headers=OPERATOR, **files) as stage:
        stage.gateway.headers = {}
        signed = Signed(stage, ring, folder)

        async def read() -> bool:
            return (await stage.gateway.get("/v1/services", **signed.keys["ann"])).status == 200

        await until(read, what="the keys are read")
        yield signed


async def test_a_session_does_what_its_key_may_and_no_more(signed: Signed) -> None:
    """The page could do nothing; or whoever may read would operate by it."""
    ann = await signed.sign_in("ann")
    reads = await signed.sign_in("reads")
    looked = await signed.gateway.ask("HEAD", "/ui/events", **shown(ann), **OWN)
    typed = await signed.gateway.get("/v1/services", **shown(ann), Sec_Fetch_Site="none")
    paused = await signed.gateway.post(f"{QUEUE}/pause", **shown(ann), **OWN)
    refused = await signed.gateway.post(f"{QUEUE}/pause", **shown(reads), **OWN)
    entries = [(one["who"], one["what"]) for one in audit.entries(signed.folder / "audit.log")]

    assert [one.status for one in (looked, typed, paused)] == [200, 200, 200]
    is_problem(refused, 403, "not-allowed", "PERMISSION_DENIED")
    assert [one for one in entries if one[0] == "ann"] == [
        ("ann", "POST /ui/session"),
        ("ann", "HEAD /ui/events"),
        ("ann", f"POST {QUEUE}/pause"),
    ]
    assert "reads" not in [who for who, _ in entries]


async def test_the_cookie_is_for_no_script_no_other_site_and_no_plain_wire(signed: Signed) -> None:
    """A script could read it, another site's page have it sent, or who listens to a plain connection use it."""
    plain = await signed.sign_in("reads")
    name = f"poste-session-{signed.gateway.port}"
    # What a page says that came by TLS, which ended before the gateway.
    secure = await signed.sign_in("reads", Origin=f"https://127.0.0.1:{signed.gateway.port}")

    for cookie in (plain, secure):
        kept = cookie["httponly"], cookie["samesite"], cookie["path"], cookie["domain"], cookie["max-age"]
        assert kept == (True, "Strict", "/", "", str(SESSION_SECONDS))
    assert (plain.key, plain["secure"]) == (name, "")
    assert (secure.key, secure["secure"]) == (f"__Host-{name}", True)
    assert plain.value != secure.value
    assert (await signed.gateway.get("/v1/services", **shown(secure), **OWN)).status == 200


async def test_no_cache_gives_others_what_a_session_opens(signed: Signed) -> None:
    """A proxy's cache would: it knows that of `Authorization`, and not of a cookie."""
    cookie = await signed.sign_in("ann")
    asked = ("/v1/services", "/openapi.json", "/v1/tasks/x")
    by_session = [(await signed.gateway.get(path, **shown(cookie))).headers.get("Cache-Control") for path in asked]
    by_key = await signed.gateway.get("/v1/services", **signed.keys["ann"])

    assert by_session == ["private", "private, no-cache", "private, no-store"]
    assert "Cache-Control" not in by_key.headers


@pytest.mark.parametrize(
    ("verb", "headers", "own"),
    [
        ("POST", {"Sec_Fetch_Site": "same-origin"}, True),
        ("POST", {"Sec_Fetch_Site": "same-site"}, False),
        ("POST", {"Sec_Fetch_Site": "cross-site"}, False),
        ("POST", {"Sec_Fetch_Site": "none"}, False),
        ("POST", {"Sec_Fetch_Site": "same-site", "Origin": "http://{host}"}, False),
        ("POST", {"Origin": "http://{host}"}, True),
        ("POST", {"Origin": "https://{host}"}, True),
        ("POST", {"Origin": "http://127.0.0.1:1"}, False),
        ("POST", {"Origin": "http://evil.example"}, False),
        ("POST", {"Origin": "null"}, False),
        ("POST", {}, False),
        ("GET", {"Sec_Fetch_Site": "same-site"}, False),
        ("GET", {"Origin": "http://evil.example"}, False),
        ("GET", {}, True),
    ],
)
async def test_no_other_page_acts_by_a_session(
    signed: Signed, verb: str, headers: Mapping[str, str], own: bool
) -> None:
    """Another site, or another port or name of this one, would have an operator's browser pause, purge and forget."""
    cookie = await signed.sign_in("operators")
    sent = {name: value.format(host=f"127.0.0.1:{signed.gateway.port}") for name, value in headers.items()}
    path = f"{QUEUE}/resume" if verb == "POST" else "/v1/services"
    before = len(signed.stage.shops[0].ran)
    done = await signed.gateway.ask(verb, path, **shown(cookie), **sent)
    called = await signed.gateway.ask("POST", PLACE, ORDER, **shown(cookie), **sent)
    came = await signed.gateway.ask("POST", "/ui/session", {"key": TOKEN}, **sent)

    assert (done.status != 403) is own
    if verb == "POST":
        assert (called.status, came.status) == ((200, 200) if own else (403, 403))
        assert len(signed.stage.shops[0].ran) == before + own
    if not own:
        is_problem(done, 403, "cross-origin", "PERMISSION_DENIED")
        assert "Set-Cookie" not in came.headers


async def test_cors_lets_no_page_send_or_see_what_a_session_opens(tmp_path: Path) -> None:
    """A page of an origin that may call services would do so, and operate, as its reader."""
    origin = "https://shop.example"
    async with staged(tmp_path, answer, cors_origins=(origin,)) as stage:
        cookie = cookie_of(await stage.gateway.post("/ui/session", {"key": TOKEN}, **OWN))
        sent = {**shown(cookie), "Origin": origin, "Sec_Fetch_Site": "cross-site"}
        refused = await stage.gateway.post(f"{QUEUE}/pause", **sent)
        called = await stage.gateway.post(PLACE, ORDER, **sent)
        preflight = await stage.gateway.ask("OPTIONS", PLACE, Access_Control_Request_Method="POST", **sent)

    assert refused.status == 403
    # Clients need no key there, and it is no one's call.
    assert called.status == 200
    for reply in (refused, called, preflight):
        assert "Access-Control-Allow-Credentials" not in reply.headers
    assert "cookie" not in preflight.headers["Access-Control-Allow-Headers"].lower()


async def test_a_session_ends_with_its_key_and_with_its_time(signed: Signed) -> None:
    """Who left would operate on until the evening; or for ever."""
    cookie = await signed.sign_in("leaves")
    first = await signed.gateway.get("/v1/services", **shown(cookie))
    keys = id_keys.read((signed.folder / "id.key").read_bytes())
    long_ago = Sessions(keys, lambda: time.time() - SESSION_SECONDS).begin(digest(TOKEN.encode()))
    over = await signed.gateway.get("/v1/services", **shown(cookie, long_ago))
    altered = await signed.gateway.get("/v1/services", **shown(cookie, f"{cookie.value[:-1]}A"))
    signed.ring.remove("leaves")

    async def out() -> bool:
        return (await signed.gateway.get("/v1/services", **shown(cookie))).status == 401

    await until(out, what="the revoked key's session ended")
    assert first.status == 200
    for reply in (over, altered):
        is_problem(reply, 401, "credentials-needed", "UNAUTHENTICATED")


async def test_every_gateway_reads_what_one_gave_out(signed: Signed) -> None:
    """Behind what balances them an operator would be signed in at one of three gateways."""
    async with running_gateway(
        signed.folder, 1, wait=False, client_keys_file=signed.ring.path, catalogue_copy=signed.folder / "other.copy"
    ) as other:
        cookie = await signed.sign_in("ann")
        there = await other.get("/ui/session", **shown(cookie))
        named = {**shown(cookie), "Host": f"127.0.0.1:{signed.gateway.port}"}
        listed = await other.get("/v1/services", **named)
        code = (await signed.gateway.post("/ui/codes", **signed.keys["ann"])).body["code"]
        by_code = await other.post("/ui/session", {"code": code}, **OWN)

    assert there.status == 405
    assert listed.status == 200
    assert (by_code.status, by_code.body) == (200, {"name": "ann"})


async def test_a_code_signs_in_once_and_a_session_makes_none(signed: Signed) -> None:
    """A link that was used would sign its next finder in; or a session go on beyond its end by codes of its own."""
    made = await signed.gateway.post("/ui/codes", **signed.keys["ann"])
    tries = [await signed.gateway.post("/ui/session", {"code": made.body["code"]}, **OWN) for _ in range(2)]
    cookie = cookie_of(tries[0])
    by_session = await signed.gateway.post("/ui/codes", **shown(cookie), **OWN)
    as_key = await signed.gateway.get("/v1/services", Authorization=f"Bearer {made.body['code']}")

    assert made.body["seconds"] == 600
    assert made.headers["Cache-Control"] == "no-store"
    assert [one.status for one in tries] == [200, 401]
    assert (await signed.gateway.get("/v1/services", **shown(cookie))).status == 200
    assert (by_session.status, as_key.status) == (401, 401)


async def test_who_signs_out_is_forgotten_by_the_browser(signed: Signed) -> None:
    """The next one at that browser would be signed in."""
    await signed.sign_in("operators")
    gone = await signed.gateway.ask("DELETE", "/ui/session", **OWN)
    elsewhere = await signed.gateway.ask("DELETE", "/ui/session", Sec_Fetch_Site="same-site")
    cookie = cookie_of(gone)

    assert (gone.status, cookie.value, cookie["max-age"]) == (204, "", "0")
    assert elsewhere.status == 403


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"key": ""}', b'{"key": 1}', b'{"key": "a", "code": "b"}', b'{"token": "a"}']
)
async def test_what_is_no_key_is_named(signed: Signed, body: bytes) -> None:
    """A program of somebody's would get a 500, or be signed in by nothing."""
    is_problem(await signed.gateway.ask("POST", "/ui/session", body, **OWN), 400, "invalid-request", "INVALID_ARGUMENT")


@pytest.mark.parametrize("given", [{"key": "poste_wrong"}, {"key": "\ud800"}, {"code": "x"}, {"code": "é" * 120}])
async def test_a_wrong_key_signs_nobody_in(signed: Signed, given: Mapping[str, str]) -> None:
    """It would."""
    reply = await signed.gateway.post("/ui/session", given, **OWN)

    is_problem(reply, 401, "credentials-needed", "UNAUTHENTICATED")
    assert "Set-Cookie" not in reply.headers


async def test_a_gateway_without_operators_signs_nobody_in(tmp_path: Path) -> None:
    """The page would say that the token is wrong where there is none."""
    async with staged(tmp_path, operator_token_file=None) as stage:
        reply = await stage.gateway.post("/ui/session", {"key": TOKEN}, **OWN)

    is_problem(reply, 403, "operators-only", "PERMISSION_DENIED")


async def test_no_service_is_told_a_session(signed: Signed) -> None:
    """A service whose catalogue entry forwards cookies would be an operator's browser."""
    cookie = await signed.sign_in("operators")
    ran = signed.stage.shops[0].metadata
    for more in ("; lang=sv", ""):
        sent = {"Cookie": f"{cookie.key}={cookie.value}{more}", "X_Tenant": "acme"}
        assert (await signed.gateway.post(PLACE, ORDER, **sent, **OWN)).status == 200

    assert [one.get("cookie") for one in ran[-2:]] == ["lang=sv", None]
    assert ran[-1]["x-tenant"] == "acme"
