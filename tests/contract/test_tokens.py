"""Tokens (JWT) of an issuer: who is let in by one, and who is not. A real gateway, and an issuer at a real port."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import itertools
import json
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from structlog.testing import capture_logs
from support import issuer as tokens
from support import shop
from support.driven_office import SUM, Office, running_office
from support.gateway import Stage, answer, running_gateway, staged
from support.issuer import Issuer, issuing
from support.keyring import Keyring
from support.operating import OPERATOR
from support.redis_server import RedisServer
from support.rest import ORDER, PLACE, is_problem
from support.self_signed import make_certificate
from support.waiting import until

from poste.domain import carried
from poste.domain.errors import StartError
from poste.queue import record
from poste.runtime.metrics import credentials_wrong_total, issuer_keys_stale
from poste.runtime.settings import GatewaySettings
from poste_gateway.access import audit, issuer_keys
from poste_gateway.access.identity import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
METHOD = f"/{shop.NAME}/Place"
GOOD = {
    "jwt_issuer": "https://issuer.example",
    "jwt_audience": "poste",
    "jwt_jwks_url": "https://issuer.example/jwks.json",
}


@dataclass
class Trusting:
    """A gateway that takes tokens, their issuer, and a key of the same gateway."""

    stage: Stage
    issuer: Issuer
    key: Any
    log: Path

    async def ask(self, header: Any, verb: str = "POST", path: str = PLACE) -> Any:
        return await self.stage.gateway.ask(verb, path, ORDER if verb == "POST" else None, **header)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trusting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trusting]:
    folder = tmp_path_factory.mktemp("trusting")
    ring = Keyring(folder / "client.keys")
    key, log = ring.add("ann"), folder / "audit.log"
    async with issuing() as issuer:
        issuer.add("old", "RS256")
        issuer.add("ed", "EdDSA")
        more = tokens.settings(issuer, client_keys_file=ring.path, audit_file=log)
        async with staged(folder, answer, headers=OPERATOR, **more) as stage:
            yield Trusting(stage, issuer, key, log)


@pytest.mark.parametrize("kid", ["one", "old", "ed"])
async def test_a_token_lets_its_client_call(trusting: Trusting, kid: str) -> None:
    """Who has an identity provider would need keys beside it; or a handler could not tell whose call it is."""
    said = await trusting.ask(trusting.issuer.bearer(kid))
    metadata = trusting.stage.shops[0].metadata[-1]

    assert said.status == 200
    assert metadata["poste-client"] == "jwt:ann"
    assert "authorization" not in metadata


async def test_a_token_is_taken_on_every_surface(trusting: Trusting) -> None:
    """Generated clients would be shut out, or calls that are kept."""
    header, gateway = trusting.issuer.bearer(), trusting.stage.gateway
    connect = await gateway.post(METHOD, ORDER, Connect_Protocol_Version="1", **header)
    web_headers = {"Content-Type": "application/grpc-web+proto", **header}
    async with gateway.session.post(gateway.url + METHOD, data=bytes(5), headers=web_headers) as reply:
        by_web = await reply.read()
    kept = await gateway.post(PLACE, ORDER, Prefer="respond-async", **header)
    batch = await gateway.post("/v1/tasks:batch", [{"method": f"{shop.NAME}/Place", "request": ORDER}], **header)
    read = await gateway.get(kept.headers["Location"], **header)

    assert (connect.status, kept.status, batch.status, read.status) == (200, 202, 200, 200)
    assert b"grpc-status: 0" in by_web


def _made(head: dict[str, Any], claims: Any, sign: Callable[[bytes], bytes] = lambda _: b"") -> str:
    """A token as the library would not make it."""
    parts = [json.dumps(head).encode(), claims if isinstance(claims, bytes) else json.dumps(claims).encode()]
    said = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return b".".join((said, base64.urlsafe_b64encode(sign(said)).rstrip(b"="))).decode()


def _by_the_public_key(issuer: Issuer) -> str:
    public = issuer.keys["old"][0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = {"alg": "HS256", "kid": "old", "typ": "JWT"}
    return _made(head, issuer.claims(), lambda said: hmac.digest(public, said, hashlib.sha256))


def _by_a_key_of_its_own(issuer: Issuer, **head: Any) -> str:
    """What somebody else signed, under the name of the issuer's key, with his own key in the head."""
    other = Issuer(issuer.name)
    other.url = "https://attacker.example/jwks.json"
    return other.sign(head={"jku": other.url, "jwk": other.public()["keys"][0], **head})


def _infinite(issuer: Issuer) -> str:
    claims = json.dumps(issuer.claims(exp=1)).replace('"exp": 1', '"exp": 1e999')
    key, _ = issuer.keys["ed"]
    return _made({"alg": "EdDSA", "kid": "ed"}, claims.encode(), key.sign)


def _now(seconds: float) -> int:
    return int(time.time() + seconds)


#: What is tried, and what is said of it.
BAD: dict[str, tuple[Callable[[Issuer], str], str]] = {
    "alg none": (lambda one: _made({"alg": "none", "kid": "one"}, one.claims()), "an algorithm that is not taken"),
    "alg None": (lambda one: _made({"alg": "None", "typ": "JWT", "kid": "one"}, one.claims()), "an algorithm that"),
    "no alg": (lambda one: _made({"kid": "one"}, one.claims()), "an algorithm that"),
    "the public key as a secret": (_by_the_public_key, "an algorithm that is not taken"),
    "another key's algorithm": (lambda one: one.sign("ed", head={"kid": "old"}), "an algorithm that is not taken"),
    "no signature": (lambda one: one.sign().rpartition(".")[0] + ".", "has a wrong signature"),
    "another signature": (_by_a_key_of_its_own, "has a wrong signature"),
    "another payload": (
        lambda one: ".".join((one.sign().split(".")[0], one.sign(sub="eve").split(".")[1], one.sign().split(".")[2])),
        "has a wrong signature",
    ),
    "another issuer": (lambda one: one.sign(iss="https://issuer.example/other"), "is of another issuer"),
    "no issuer": (lambda one: one.sign(iss=None), "lacks the claim iss"),
    "another audience": (lambda one: one.sign(aud=["account", "poste2"]), "is for another audience"),
    "no audience": (lambda one: one.sign(aud=None), "is for another audience"),
    "expired": (lambda one: one.sign(exp=_now(-60)), "has expired"),
    "no expiry": (lambda one: one.sign(exp=None), "lacks the claim exp"),
    "an expiry that is a word": (lambda one: one.sign(exp="tomorrow"), "can't be read"),
    "an infinite expiry": (_infinite, "can't be read"),
    "good later": (lambda one: one.sign(nbf=_now(60)), "is not valid yet"),
    "made later": (lambda one: one.sign(iat=_now(60)), "is not valid yet"),
    "for other ends": (lambda one: one.sign(head={"typ": "logout+jwt"}), "no access token's"),
    "a critical extension": (lambda one: one.sign(head={"crit": ["x"], "x": 1}), "can't be read"),
    "a list for a key": (lambda one: _made({"alg": "ES256", "kid": ["one"]}, one.claims()), "can't be read"),
    "no key": (lambda one: _made({"alg": "ES256"}, one.claims()), "names none of its issuer's keys"),
    "no client": (lambda one: one.sign(sub=None), "lacks a claim sub of 1 to 255"),
    "a client of two lines": (lambda one: one.sign(sub="ann\nposte-client: root"), "lacks a claim sub"),
    "a client beyond ASCII": (lambda one: one.sign(sub="ä"), "lacks a claim sub"),
    "a deep head": (lambda _: base64.urlsafe_b64encode(b"[" * 4500).decode().rstrip("=") + ".e30.", "can't be read"),
    "no JSON": (lambda _: "abcd.efgh.ijkl", "can't be read"),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_token_that_is_not_good_is_refused_by_what_is_wrong_with_it(trusting: Trusting, case: str) -> None:
    """Whoever knows how tokens look would be let in as whom he likes; or who has a stale one not know that it is."""
    make, why = BAD[case]
    ran, counted = len(trusting.stage.shops[0].ran), credentials_wrong_total._value.get()
    said = await trusting.ask({"Authorization": f"Bearer {make(trusting.issuer)}"})

    is_problem(said, 401, "credentials-needed", "UNAUTHENTICATED")
    assert why in said.body["detail"]
    assert said.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token", error_description="The token ')
    assert len(trusting.stage.shops[0].ran) == ran
    # An expired one is no guess.
    assert credentials_wrong_total._value.get() == counted + (case != "expired")


async def test_a_token_without_end_is_refused(trusting: Trusting) -> None:
    """One request would take the memory or the time of many."""
    said = await trusting.ask({"Authorization": f"Bearer {trusting.issuer.sign(more='x' * 100_000)}"})

    assert said.status == 431


async def test_made_up_keys_have_the_issuer_asked_once(trusting: Trusting) -> None:
    """Anybody could have this gateway ask the issuer for its keys as often as he likes."""
    trusting.issuer.keys["made up"] = ec.generate_private_key(ec.SECP256R1()), "ES256"
    made = [trusting.issuer.sign(head={"kid": f"made up {number}"}) for number in range(30)]
    del trusting.issuer.keys["made up"]
    before = trusting.issuer.looks
    said = await asyncio.gather(*(trusting.ask({"Authorization": f"Bearer {one}"}) for one in made))

    assert {(one.status, one.body["detail"]) for one in said} == {
        (401, "The token names none of its issuer's keys (kid).")
    }
    assert trusting.issuer.looks <= before + 1


async def test_a_token_gives_the_roles_that_it_names(trusting: Trusting) -> None:
    """Every user of the issuer would be an operator; or nobody could tell what their tokens lack."""
    issuer = trusting.issuer
    bare = await trusting.ask(issuer.bearer(scope=None))
    other = await trusting.ask(issuer.bearer(scope="call read xposte:call poste:callx"))
    reader = await trusting.ask(issuer.bearer(scope="poste:read"), "GET", "/v1/services")
    pausing = await trusting.ask(issuer.bearer(), "POST", f"/v1/queues/{shop.NAME}/pause")

    for said in (bare, other, pausing):
        is_problem(said, 403, "not-allowed", "PERMISSION_DENIED")
        assert said.headers["WWW-Authenticate"].startswith('Bearer error="insufficient_scope"')
    assert reader.status == 200


async def test_what_an_operator_does_by_a_token_is_written_with_its_issuer(trusting: Trusting) -> None:
    """Who did it could be anybody of that name."""
    header = trusting.issuer.bearer(sub="ops", scope="poste:catalogue")
    done = await trusting.ask(header, "POST", f"/v1/queues/{shop.NAME}/pause")
    (*_, entry) = audit.entries(trusting.log)

    assert done.status == 200
    assert entry["who"] == "jwt:ops of https://issuer.example/realm"


async def test_a_token_begins_no_session_at_the_page(trusting: Trusting) -> None:
    """It would outlive the token by half a day."""
    header = trusting.issuer.bearer(scope=" ".join(f"poste:{role}" for role in Role))
    is_problem(await trusting.ask(header, "POST", "/ui/codes"), 403, "not-allowed", "PERMISSION_DENIED")


async def test_the_document_says_that_tokens_are_taken(trusting: Trusting) -> None:
    """A generated client would have no place for one."""
    document = (await trusting.stage.gateway.get("/openapi.json")).body

    assert document["security"] == [{"Key": []}, {"Token": []}]
    assert document["components"]["securitySchemes"]["Token"]["bearerFormat"] == "JWT"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office(own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    folder = tmp_path_factory.mktemp("office")
    ring = Keyring(folder / "client.keys")
    key = ring.add("ann")
    async with issuing() as issuer:
        more = tokens.settings(issuer, client_keys_file=ring.path, jwt_max_task_ttl_seconds=60, jwt_max_waiting_calls=9)
        async with running_office(own_redis, folder, headers=OPERATOR, **more) as one:
            yield one, issuer, key


async def test_a_task_is_its_tokens_client_s(office: tuple[Office, Issuer, Any]) -> None:
    """An issuer that lets users choose their names would have them read the tasks of keys' clients, or operators'."""
    one, issuer, key = office
    mine = await one.waiting(**issuer.bearer())
    theirs = await one.waiting(**key)
    named = {"Idempotency_Key": "same", "Prefer": "respond-async"}
    by_token, by_key = [
        await one.gateway.post("/v1/sum", {"a": 1, "b": 1}, **named, **who) for who in (issuer.bearer(), key)
    ]

    async def status(path: str, header: Any) -> int:
        return int((await one.gateway.get(path, **header)).status)

    assert await status(mine, issuer.bearer(jti="another token")) == 200
    assert await status(mine, OPERATOR) == 200
    for path, others in (
        (mine, (key, issuer.bearer(sub="ann2"), issuer.bearer(sub="Ann"))),
        (theirs, (issuer.bearer(), issuer.bearer(sub="operators"))),
    ):
        assert [await status(path, header) for header in others] == [404] * len(others)
    assert (by_token.status, by_key.status) == (202, 202)
    assert by_token.body["id"] != by_key.body["id"]
    assert one.gateway.ids.read(by_token.body["id"]).task_ttl_seconds == 60
    listed = await one.gateway.get("/v1/tasks", **issuer.bearer())
    assert {task["id"] for task in listed.body["tasks"]} == {mine.removeprefix("/v1/tasks/"), by_token.body["id"]}


async def test_each_client_of_tokens_has_its_quota(office: tuple[Office, Issuer, Any]) -> None:
    """Of an issuer's many users one would fill a queue for all; or all of them together had what one may have."""
    one, issuer, _ = office
    call = {"method": f"{SUM}/Add", "request": {"a": 1, "b": 1}}
    outcomes = []
    for sub, tokens_of_it in (("many", "first"), ("few", "first"), ("many", "second")):
        bearer = issuer.bearer(sub=sub, jti=tokens_of_it)
        reply = await one.gateway.post("/v1/tasks:batch", [call] * (6 if sub == "many" else 1), **bearer)
        outcomes.append(sum("task" in result for result in reply.body["results"]))

    assert outcomes == [6, 1, 3]


async def test_two_clients_of_one_owner_list_their_own_tasks_alone(office: tuple[Office, Issuer, Any]) -> None:
    """Of an issuer's ten thousand users some have the same tag in their tasks' ids: one would find another's tasks."""
    one, issuer, _ = office
    named: dict[str, int] = {}
    for number in itertools.count():
        other = named.setdefault(one.gateway.ids.owner_of(f"jwt:{number}"), number)
        if other != number:
            break
    mine = await one.waiting(**issuer.bearer(sub=str(number)))
    found = [
        [task["id"] for task in (await one.gateway.get("/v1/tasks", **issuer.bearer(sub=str(who)))).body["tasks"]]
        for who in (number, other)
    ]

    assert found == [[mine.removeprefix("/v1/tasks/")], []]


async def test_the_record_keeps_a_tokens_client_however_long(office: tuple[Office, Issuer, Any]) -> None:
    """A call that waited would reach its handler as nobody's."""
    one, issuer, _ = office
    subject = "x" * 255
    at = await one.waiting(**issuer.bearer(sub=subject))
    key = one.gateway.ids.read(at.removeprefix("/v1/tasks/")).key
    kept = await one.client.hget(one.keys.record(key), record.HEADERS)

    assert ("poste-client", f"jwt:{subject}") in carried.read(kept.decode())


@contextlib.asynccontextmanager
async def told(folder: Path, issuer: Issuer) -> AsyncIterator[Stage]:
    """Run a gateway that has the issuer's keys, and was not asked for newer ones yet."""
    with capture_logs() as logs:
        async with staged(folder, answer, **tokens.settings(issuer), headers=OPERATOR) as stage:
            await until(lambda: [one for one in logs if one["event"] == "issuer's keys read"], what="the issuer's keys")
            yield stage


async def test_a_new_key_is_good_at_once_and_one_that_is_gone_is_not(tmp_path: Path) -> None:
    """Clients would be refused until the gateway hears of a rotation; or a key that leaked stay good."""
    async with issuing() as issuer, told(tmp_path, issuer) as stage:
        before = issuer.bearer()
        first = await stage.gateway.post(PLACE, ORDER, **before)
        issuer.add("two")
        del issuer.keys["one"]
        new, old = [await stage.gateway.post(PLACE, ORDER, **header) for header in (issuer.bearer("two"), before)]

    assert [said.status for said in (first, new, old)] == [200, 200, 401]


async def test_a_token_is_good_until_it_expires(tmp_path: Path) -> None:
    """What was verified once would be good for ever."""
    more = {"jwt_skew_seconds": 0, "jwt_rate": "1000/1"}
    async with (
        issuing() as issuer,
        staged(tmp_path, answer, **tokens.settings(issuer, **more), headers=OPERATOR) as stage,
    ):
        brief = issuer.bearer(exp=_now(4))
        first = await stage.gateway.post(PLACE, ORDER, **brief)

        async def out() -> bool:
            return int((await stage.gateway.post(PLACE, ORDER, **brief)).status) == 401

        await until(out, what="the token is out")

    assert first.status == 200


@pytest.mark.parametrize("answers", [
    {"status": 503},
    {"status": 302, "headers": {"Location": "/elsewhere"}},
    {"text": "<html>"},
    {"text": '{"keys": []}'},
    {"text": " " * 10_000_000 + json.dumps(Issuer().public())},
    None,
])  # fmt: skip
async def test_what_the_issuers_server_answers_is_bounded_and_no_set_is_none(
    tmp_path: Path, answers: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway would not start, clients be told that their good tokens are wrong, or other keys be believed."""
    monkeypatch.setattr(issuer_keys, "_FETCH_SECONDS", 1.0)
    async with issuing() as issuer:
        if answers is None:
            issuer.answering.clear()
        issuer.answers = answers
        async with staged(tmp_path, answer, **tokens.settings(issuer), headers=OPERATOR) as stage:
            away = await stage.gateway.post(PLACE, ORDER, **issuer.bearer())
            issuer.answers = None
            issuer.answering.set()

            async def in_() -> bool:
                return int((await stage.gateway.post(PLACE, ORDER, **issuer.bearer())).status) == 200

            await until(in_, what="the token is in")

    is_problem(away, 503, "issuer-away", "UNAVAILABLE")
    assert away.headers["Retry-After"] == "1"


async def test_keys_are_kept_while_their_issuer_is_away(tmp_path: Path) -> None:
    """All clients would be out while the issuer is; or those with a new key be told that their tokens are wrong."""
    async with issuing() as issuer, told(tmp_path, issuer) as stage:
        issuer.answers = {"status": 500}
        issuer.add("two")
        before = issuer_keys_stale._value.get()
        unknown, known = [await stage.gateway.post(PLACE, ORDER, **issuer.bearer(kid)) for kid in ("two", "one")]

    assert (unknown.status, known.status) == (503, 200)
    assert (before, issuer_keys_stale._value.get()) == (0, 1)


async def test_a_client_s_tokens_share_its_rate(tmp_path: Path) -> None:
    """Who asks the issuer for a new token before each request would have no rate."""
    more = tokens.settings
    async with (
        issuing() as issuer,
        staged(tmp_path, answer, **more(issuer, jwt_rate="2/1000"), headers=OPERATOR) as stage,
    ):
        headers = [issuer.bearer(jti=str(number)) for number in range(3)]
        said = [await stage.gateway.post(PLACE, ORDER, **header) for header in headers]
        other = await stage.gateway.post(PLACE, ORDER, **issuer.bearer(sub="other"))

    assert [one.status for one in said] == [200, 200, 429]
    assert other.status == 200


async def test_keys_of_a_file_are_read_again_when_it_changes(tmp_path: Path) -> None:
    """A rotation would need a restart; or a file that is half written shut all clients out."""
    issuer, file = Issuer(), tmp_path / "jwks.json"

    def write(text: str) -> None:
        file.with_suffix(".new").write_text(text)
        file.with_suffix(".new").replace(file)

    write(json.dumps(issuer.public()))
    more = {**tokens.settings(issuer), "jwt_jwks_url": None, "jwt_jwks_file": file}
    async with staged(tmp_path, answer, **more, headers=OPERATOR) as stage:

        async def status(kid: str) -> int:
            return int((await stage.gateway.post(PLACE, ORDER, **issuer.bearer(kid))).status)

        issuer.add("two")
        before = [await status("one"), await status("two")]
        with capture_logs() as logs:
            write("{")
            await until(lambda: [one for one in logs if one["event"] == "issuer's keys refused"], what="a word of it")
        broken = await status("one")
        write(json.dumps(issuer.public()))

        async def in_() -> bool:
            return await status("two") == 200

        await until(in_, what="the new key is in")

    assert (before, broken) == ([200, 401], 200)


async def test_the_issuers_server_is_verified(tmp_path: Path) -> None:
    """Who is between would put his own key in the place of the issuer's."""
    certificate, key = make_certificate(tmp_path / "tls")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    async with issuing(tls) as issuer:
        for settings, expected in (
            (tokens.settings(issuer, jwt_ca_file=certificate), 200),
            (tokens.settings(issuer), 503),
        ):
            async with staged(tmp_path, answer, **settings, headers=OPERATOR) as stage:
                said = await stage.gateway.post(PLACE, ORDER, **issuer.bearer())
            assert said.status == expected


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"jwt_audience": None}, "needs POSTE_JWT_AUDIENCE"),
        ({"jwt_jwks_url": None}, "needs POSTE_JWT_JWKS_URL or POSTE_JWT_JWKS_FILE"),
        ({"jwt_jwks_file": "jwks.json"}, "one of the two"),
        ({"jwt_jwks_url": None, "jwt_jwks_file": "jwks.json", "jwt_ca_file": "ca.crt"}, "verifies no server"),
        ({"jwt_issuer": None}, "POSTE_JWT_AUDIENCE without POSTE_JWT_ISSUER"),
        ({"jwt_jwks_url": "http://issuer.example/jwks.json"}, "must be an https URL"),
        ({"jwt_algorithms": "RS256,HS256"}, "HS256"),
        ({"jwt_algorithms": "none"}, "none"),
        ({"jwt_algorithms": ""}, "must name one at least"),
        ({"jwt_roles": "call,purge"}, "purge"),
        ({"jwt_skew_seconds": 3600}, "less than or equal to 300"),
    ],
)
async def test_settings_that_would_let_others_in_are_refused(more: dict[str, Any], why: str) -> None:
    """A slip of the operator's would take tokens that are for others, or that anybody can make."""
    chosen = tokens.settings(Issuer()) | {"jwt_jwks_url": "https://issuer.example/jwks.json"} | more
    given = {name: value for name, value in chosen.items() if value is not None}
    with pytest.raises((StartError, ValueError), match=why):
        GatewaySettings(**given)


async def test_tokens_are_enough_to_listen_beyond_loopback() -> None:
    """A gateway for tokens alone would need keys, or to let everybody in."""
    assert GatewaySettings(host="0.0.0.0", **GOOD).client_keys_file is None  # noqa: S104


@pytest.mark.parametrize(
    ("content", "more", "why"),
    [
        ("{", {}, "POSTE_JWT_JWKS_FILE=.*: it is no JWK Set"),
        ("[]", {}, "it is no JWK Set"),
        (
            json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}, 1, {"kty": "?"}]}),
            {},
            "no key that verifies",
        ),
        (json.dumps(Issuer().public(private=True)), {}, "no key that verifies"),
        (json.dumps(Issuer().public()), {"jwt_algorithms": ("RS256",)}, "it has no key that verifies RS256"),
        (json.dumps(Issuer().public()), {"jwt_rate": "many"}, "POSTE_JWT_RATE=many: must be how many"),
        (None, {}, "No such file"),
    ],
)
async def test_what_can_not_be_used_is_told_at_the_start(
    tmp_path: Path, content: str | None, more: Any, why: str
) -> None:
    """No token would ever be taken, and nobody know why; or a secret that lies in the set be one that verifies."""
    file = tmp_path / "jwks.json"
    if content is not None:
        file.write_text(content)
    settings = {**tokens.settings(Issuer()), "jwt_jwks_url": None, "jwt_jwks_file": file, **more}
    with pytest.raises(StartError, match=why):
        async with running_gateway(tmp_path, 1, wait=False, **settings):
            pass


async def test_without_the_extra_the_gateway_says_what_to_install() -> None:
    """Its operator would read the name of a module."""
    program = "import sys; sys.modules['jwt'] = None\nfrom poste_gateway.__main__ import main\nsys.exit(main())\n"
    settings = {f"POSTE_{name.upper()}": str(value) for name, value in tokens.settings(Issuer(), **GOOD).items()}
    variables = {**settings, "PYTHONPATH": ":".join(sys.path)}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "pip install 'poste[jwt]'" in done.stderr + done.stdout
