"""Connect and gRPC-Web as their specifications have them, byte by byte: what public clients don't send, too.

That public clients understand the gateway is proved in tests/integration/test_rpc_clients.py.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2
from support import shop
from support.gateway import Gateway, Stage, answer, fail_richly, hang, staged
from support.rest import complete, is_problem

from poste.v1 import kept_call_pb2, task_pb2

#: Those that only call share a gateway.
pytestmark = pytest.mark.asyncio(loop_scope="module")
PLACE, PUT, QUOTE = (f"/{shop.NAME}/{method}" for method in ("Place", "Put", "Quote"))
ORDER = shop.Order(a_double=2.5, a_string="ä").SerializeToString()
RECEIPT = shop.Receipt(number=7, total=2.5, note="ä")
CONNECT = {"Connect-Protocol-Version": "1"}
PROTO, JSON = {"Content-Type": "application/proto"}, {"Content-Type": "application/json"}
WEB = "application/grpc-web+proto"


class Raw(NamedTuple):
    """An answer as it came."""

    status: int
    headers: Any
    body: bytes

    @property
    def error(self) -> Any:
        """The error of Connect's."""
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.body)


async def send(gateway: Gateway, verb: str, path: str, body: bytes | None = None, **headers: str) -> Raw:
    async with gateway.session.request(verb, gateway.url + path, data=body, headers=headers) as reply:
        return Raw(reply.status, reply.headers, await reply.read())


def enveloped(message: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(message)) + message


def envelopes(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        flags, length = struct.unpack_from(">BI", body)
        found.append((flags, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


def trailers_of(frame: bytes) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in frame.decode().split("\r\n") if line)


def details_of(error: Any) -> dict[str, bytes]:
    return {one["type"]: base64.b64decode(one["value"] + "==") for one in error["details"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("protocols")
    async with staged(folder, answer, cors_origins="https://a.example", max_body_bytes=100_000) as stage:
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def away(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("away")) as stage:
        yield stage


async def test_unary_calls_of_connect_are_answered_in_their_own_encoding(up: Stage) -> None:
    """A generated client of Connect's could not read what its service answers."""
    gateway = up.gateway
    binary = await send(gateway, "POST", QUOTE, ORDER, **PROTO)
    text = await send(gateway, "POST", QUOTE, b'{"aDouble": 2.5, "aString": "\xc3\xa4"}', **CONNECT, **JSON)
    empty = await send(gateway, "POST", QUOTE, b"", **PROTO, **CONNECT)

    assert (binary.status, binary.headers["Content-Type"]) == (200, "application/proto")
    assert shop.Receipt.FromString(binary.body) == RECEIPT
    assert (text.status, text.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(text.body) == {"number": "7", "total": 2.5, "note": "ä"}
    assert shop.Receipt.FromString(empty.body) == shop.Receipt(number=7)


async def test_what_generated_clients_leave_out_of_json_is_not_missed(up: Stage) -> None:
    """A sum of 0 could not be asked for: generated clients leave out what is 0, and know fields that are newer."""
    wanted = f"/{shop.NAME}/Want"
    lenient = await send(up.gateway, "POST", QUOTE, b'{"mainItem": {"unitPrice": 1}, "newer": [1]}', **CONNECT, **JSON)
    strict = await up.gateway.post(QUOTE, {"mainItem": {"unitPrice": 1}, "newer": [1]})
    wrong = await send(up.gateway, "POST", wanted, b'{"items": [{"unitPrice": "x"}]}', **CONNECT, **JSON)

    assert lenient.status == 200, lenient.body
    assert {one["field"] for one in strict.body["errors"]} == {"mainItem.sku", "newer"}
    assert (wrong.status, wrong.error["code"]) == (400, "invalid_argument")
    bad = error_details_pb2.BadRequest.FromString(details_of(wrong.error)["google.rpc.BadRequest"])
    assert [one.field for one in bad.field_violations] == ["items[0].unitPrice"]


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("connect=v1&encoding=json&message=%7B%22aDouble%22%3A2.5%7D", 2.5),
        ("message=%7B%7D&encoding=json", 0),
        ("connect=v1&encoding=proto&base64=1&message=" + base64.urlsafe_b64encode(ORDER).decode().rstrip("="), 2.5),
        ("connect=v1&encoding=proto&base64=1&compression=identity&x=y&message=" + "CQAAAAAAAARA", 2.5),
        ("connect=v1&encoding=proto&base64=1&message=", 0),
        ("connect=v1&encoding=json&base64=2&message=%7B%7D", 0),
    ],
)
async def test_a_method_for_reading_is_called_by_get(up: Stage, query: str, total: float) -> None:
    """What caches and browsers could keep would have to be asked for by POST."""
    got = await send(up.gateway, "GET", f"{QUOTE}?{query}")
    head = await send(up.gateway, "HEAD", f"{QUOTE}?{query}")

    assert got.status == 200, got.body
    codec = "proto" if "encoding=proto" in query else "json"
    assert got.headers["Content-Type"] == f"application/{codec}"
    receipt = shop.Receipt.FromString(got.body) if codec == "proto" else json.loads(got.body)
    assert (receipt.total if codec == "proto" else receipt["total"]) == total
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        (QUOTE, "connect=v2&encoding=json&message={}", 400, "invalid_argument"),
        (QUOTE, "connect=v1&encoding=json", 400, "invalid_argument"),
        (QUOTE, "connect=v1&message={}", 415, "invalid_argument"),
        (QUOTE, "connect=v1&encoding=xml&message=1", 415, "invalid_argument"),
        (QUOTE, "connect=v1&encoding=json&message={", 400, "invalid_argument"),
        (QUOTE, "connect=v1&encoding=json&message=%ff", 400, "invalid_argument"),
        (QUOTE, "connect=v1&encoding=proto&base64=1&message=+/", 400, "invalid_argument"),
        (QUOTE, "connect=v1&encoding=proto&base64=1&message=_w", 400, "invalid_argument"),
        (QUOTE, "connect=v1&encoding=json&compression=gzip&base64=1&message=AA", 501, "unimplemented"),
        # It has side effects: its path takes POST alone.
        (PLACE, "connect=v1&encoding=json&message={}", 405, "unimplemented"),
        ("/shop.v1.NoService/Quote", "connect=v1&encoding=json&message={}", 501, "unimplemented"),
    ],
)
async def test_what_is_wrong_with_a_get_is_told_as_connect_tells_it(
    up: Stage, path: str, query: str, status: int, code: str
) -> None:
    """A client would be told nothing that it understands, or 500."""
    refused = await send(up.gateway, "GET", f"{path}?{query}")

    assert (refused.status, refused.error["code"]) == (status, code), refused.body
    assert refused.error["message"]


@pytest.mark.parametrize("path", ["/reports?encoding=utf-8", "/shop.v1.NoService/Quote?encoding=json&message={}"])
async def test_a_query_that_might_be_anyones_makes_no_call_of_connect(up: Stage, path: str) -> None:
    """A client of REST whose path is wrong would get 501, in an error that it does not know."""
    is_problem(await up.gateway.get(path), 404, "no-such-route", "NOT_FOUND")


@pytest.mark.parametrize("message", [b"\xff", b"\xed\xa0\x80", b"%00", b"\xc3\xa4"])
@pytest.mark.parametrize("encoding", [b"json", b"proto", b"proto&base64=1"])
async def test_bytes_that_no_query_has_are_the_clients_mistake(up: Stage, message: bytes, encoding: bytes) -> None:
    """What a client writes by hand would be a 500."""
    reader, writer = await asyncio.open_connection("127.0.0.1", up.gateway.port)
    path = b"%b?connect=v1&encoding=%b&message=%b" % (QUOTE.encode(), encoding, message)
    writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path)
    said = await reader.read()
    writer.close()
    assert said.startswith(b"HTTP/1.1 400 "), said


async def test_what_is_wrong_with_a_call_is_told_in_its_protocols_form(up: Stage) -> None:
    """A client would take an error for an answer, or find no code in it."""
    gateway, many = up.gateway, b"x" * 200_000

    async def told(path: str, body: bytes, **headers: str) -> tuple[int, str]:
        refused = await send(gateway, "POST", path, body, **headers)
        return refused.status, refused.error["code"]

    assert await told(QUOTE, b"\xff", **PROTO) == (400, "invalid_argument")
    assert await told(QUOTE, b"{}", **JSON, **{"Connect-Protocol-Version": "2"}) == (400, "invalid_argument")
    assert await told(QUOTE, gzip.compress(ORDER), **PROTO, **{"Content-Encoding": "gzip"}) == (501, "unimplemented")
    assert await told(QUOTE, ORDER, **PROTO, **{"Connect-Timeout-Ms": "0"}) == (400, "invalid_argument")
    assert await told(QUOTE, many, **PROTO) == (400, "invalid_argument")
    assert await told(QUOTE, ORDER, **PROTO, **{"Trace-Bin": "!"}) == (400, "invalid_argument")
    assert await told("/shop.v1.NoService/Do", b"", **PROTO) == (501, "unimplemented")
    assert await told("/shop.v1.NoService/Do", b"{}", **JSON, **CONNECT) == (501, "unimplemented")
    # A unary method by a stream's type, and the other way round.
    assert await told(QUOTE, enveloped(ORDER), **{"Content-Type": "application/connect+proto"}) == (
        415,
        "invalid_argument",
    )
    assert await told(f"/{shop.NAME}/Follow", b"", **PROTO) == (415, "invalid_argument")


@pytest.mark.parametrize(
    "kind", ["application/grpc", "application/connect+xml", "application/x-protobuf", "text/plain"]
)
async def test_types_that_are_not_known_are_refused(up: Stage, kind: str) -> None:
    """What is of no known protocol would be read as one of them."""
    refused = await up.gateway.post(QUOTE, b"{}", Content_Type=kind)

    is_problem(refused, 415, "not-json", "INVALID_ARGUMENT", QUOTE)
    annotated = await up.gateway.post("/v1/quotes", ORDER, Content_Type="application/proto")
    is_problem(annotated, 415, "not-json", "INVALID_ARGUMENT", "/v1/quotes")


@pytest.mark.parametrize("text", [False, True])
async def test_calls_of_grpc_web(up: Stage, text: bool) -> None:
    """A client of gRPC-Web would have to go through a proxy of its own."""
    kind = "application/grpc-web-text+proto" if text else WEB
    ends = base64.b64encode if text else bytes
    reads = base64.b64decode if text else bytes
    body = enveloped(ORDER)
    # As a client that streams spells it: piece by piece, each with its own padding.
    sent = ends(body[:4]) + ends(body[4:])
    done = await send(up.gateway, "POST", QUOTE, sent, **{"Content-Type": kind, "X-Grpc-Web": "1"})
    wrong = await send(up.gateway, "POST", QUOTE, ends(enveloped(b"\xff")), **{"Content-Type": kind})
    missing = await send(up.gateway, "POST", "/shop.v1.No/Do", sent, **{"Content-Type": kind})

    assert (done.status, done.headers["Content-Type"]) == (200, kind)
    (_, message), (flags, trailers) = envelopes(reads(done.body))
    assert shop.Receipt.FromString(message) == RECEIPT
    assert (flags, trailers_of(trailers)) == (0x80, {"grpc-status": "0"})
    for refused, code in ((wrong, 3), (missing, 12)):
        ((flags, trailers),) = envelopes(reads(refused.body))
        told = trailers_of(trailers)
        assert (refused.status, flags, told["grpc-status"]) == (200, 0x80, str(code))
        status = status_pb2.Status.FromString(base64.b64decode(told["grpc-status-details-bin"]))
        assert (status.code, status.message) == (code, told["grpc-message"])


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"\0\0\0", {}),
        (enveloped(ORDER) + b"x", {}),
        (enveloped(ORDER)[:-1], {}),
        (enveloped(ORDER) * 2, {}),
        (enveloped(ORDER, 1), {}),
        (enveloped(ORDER, 0x80), {}),
        (b"\0\xff\xff\xff\xff", {}),
        (enveloped(ORDER, 1), {"Grpc-Encoding": "gzip"}),
    ],
)
async def test_frames_that_are_none_are_refused(up: Stage, body: bytes, headers: dict[str, str]) -> None:
    """Half a message would be called, or a client's mistake be the gateway's."""
    ran = len(up.shops[0].ran)
    refused = await send(up.gateway, "POST", QUOTE, body, **{"Content-Type": WEB, **headers})

    ((_, trailers),) = envelopes(refused.body)
    assert trailers_of(trailers)["grpc-status"] in ("3", "12")
    assert len(up.shops[0].ran) == ran


async def test_a_kept_call_is_unavailable_with_its_task(away: Stage) -> None:
    """A client would take what is kept for lost, and make the call twice."""
    for headers, body in ((PROTO, ORDER), ({**JSON, **CONNECT}, b'{"aDouble": 2.5, "aString": "\xc3\xa4"}')):
        kept = await send(away.gateway, "POST", PLACE, body, **headers)

        assert (kept.status, kept.error["code"]) == (503, "unavailable")
        task = kept_call_pb2.KeptCall.FromString(details_of(kept.error)["poste.v1.KeptCall"])
        assert task.location == kept.headers["Location"] == f"/v1/tasks/{task.id}"
        assert task.expire_time.seconds > 0
        assert kept.error["details"][0]["debug"]["id"] == task.id
        looked = await away.gateway.get(task.location)
        assert looked.body["state"] == "QUEUED"
        request = away.mom.requests[away.gateway.ids.read(task.id).key].request
        assert shop.Order.FromString(request) == shop.Order(a_double=2.5, a_string="ä")
    web = await send(away.gateway, "POST", PLACE, enveloped(ORDER), **{"Content-Type": WEB})
    ((_, trailers),) = envelopes(web.body)
    told = trailers_of(trailers)
    status = status_pb2.Status.FromString(base64.b64decode(told["grpc-status-details-bin"]))
    assert (told["grpc-status"], status.details[0].TypeName()) == ("14", "poste.v1.KeptCall")
    # Nor is a GET kept, as by REST.
    read = await send(away.gateway, "GET", f"{QUOTE}?connect=v1&encoding=json&message=%7B%7D")
    assert (read.status, read.error["code"]) == (503, "unavailable")
    info = error_details_pb2.ErrorInfo.FromString(details_of(read.error)["google.rpc.ErrorInfo"])
    assert (info.reason, info.domain) == ("SERVICE_AWAY", "poste")
    assert error_details_pb2.RetryInfo.FromString(
        details_of(read.error)["google.rpc.RetryInfo"]
    ).retry_delay.seconds == int(read.headers["Retry-After"])


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [("CANCELLED", 499, "canceled"), ("EXPIRED", 504, "deadline_exceeded"), ("DEAD", 409, "aborted")],
)
async def test_a_task_that_ended_without_a_result_is_not_waited_for(
    tmp_path: Path, state: str, status: int, code: str
) -> None:
    """A client that waits for whatever is unavailable would wait for what is over."""
    async with staged(tmp_path) as stage:
        stage.mom.gate.clear()
        waiting = stage.gateway.session.post(
            stage.gateway.url + PLACE, data=ORDER, headers={**PROTO, "Prefer": "wait=10"}
        )

        async def ended() -> None:
            stage.mom.gate.set()
            await complete(stage, state=getattr(task_pb2, f"TASK_STATE_{state}"))

        async with asyncio.TaskGroup() as group:
            group.create_task(ended())
            reply = await waiting
            said = Raw(reply.status, reply.headers, await reply.read())
    assert (said.status, said.error["code"]) == (status, code)


async def test_errors_of_a_service_keep_their_details(tmp_path: Path) -> None:
    """A typed client could not read what its service says about an error."""
    status = status_pb2.Status(code=8, message="too much: 100 %\n")
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.seconds = 7
    status.details.add().Pack(retry)
    status.details.add(type_url="type.googleapis.com/no.such.Type", value=b"\x01")
    status.details.add().Pack(error_details_pb2.DebugInfo(detail="secret"))
    async with staged(tmp_path, fail_richly(status)) as stage:
        failed = await send(stage.gateway, "POST", PLACE, ORDER, **PROTO)
        web = await send(stage.gateway, "POST", PLACE, enveloped(ORDER), **{"Content-Type": WEB})

    assert (failed.status, failed.error["code"]) == (429, "resource_exhausted")
    assert failed.error["message"] == status.message
    assert details_of(failed.error) == {
        "google.rpc.RetryInfo": retry.SerializeToString(),
        "no.such.Type": b"\x01",
    }
    ((_, trailers),) = envelopes(web.body)
    assert trailers_of(trailers)["grpc-message"] == "too much: 100 %25%0A"


async def test_the_codes_and_their_statuses(tmp_path: Path) -> None:
    """A client that goes by the status of HTTP would take one error for another."""
    table = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "ABORTED": 409, "UNIMPLEMENTED": 501, "DATA_LOSS": 500}

    async def behave(request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode[request.a_string], "so")

    async with staged(tmp_path, behave) as stage:
        for name, status in table.items():
            failed = await send(stage.gateway, "POST", QUOTE, shop.Order(a_string=name).SerializeToString(), **PROTO)
            assert (failed.status, failed.error["code"], failed.error["message"]) == (status, name.lower(), "so")


async def test_a_deadline_ends_a_call_and_does_not_keep_it(tmp_path: Path) -> None:
    """What its client gave up would run later, and no one would know of it."""
    async with staged(tmp_path, hang) as stage:
        over = await send(stage.gateway, "POST", PUT, ORDER, **PROTO, **{"Connect-Timeout-Ms": "100"})
        kept = await stage.gateway.post("/v1/orders:put", {}, Connect_Timeout_Ms="100")

        assert (over.status, over.error["code"]) == (504, "deadline_exceeded")
        # By REST it is kept, as ever: its client learns of the task.
        assert (kept.status, len(stage.mom.tasks)) == (202, 1)


async def test_metadata_has_its_own_name(up: Stage) -> None:
    """What a client says beside its message would not reach the handler; or what speaks to others would."""
    headers = {"Tenant": "acme", "Cookie": "a=b", "Prefer": "no-queue", "X-Forwarded-Proto": "https", "Dnt": "1"}
    done = await send(up.gateway, "POST", QUOTE, ORDER, **PROTO, **headers, **{"Grpc-Metadata-Cost": "1"})
    by_rest = await up.gateway.post(QUOTE, {}, Tenant="acme")
    much = {"Much": "x" * 5000, "More": "x" * 5000}
    refused = await send(up.gateway, "POST", QUOTE, ORDER, **PROTO, **much)

    told, by_rest_told = up.shops[0].metadata[-2:]
    assert (done.status, by_rest.status) == (200, 200)
    assert (told["tenant"], told["cost"]) == ("acme", "1")
    assert not {"cookie", "prefer", "x-forwarded-proto", "dnt", "host", "content-type-x"} & told.keys()
    assert "tenant" not in by_rest_told
    assert (refused.status, refused.error["code"]) == (400, "invalid_argument")


async def test_pages_of_other_origins(up: Stage) -> None:
    """A page that speaks Connect could send no metadata, and read none."""
    origin = {"Origin": "https://a.example"}
    preflight = {**origin, "Access-Control-Request-Method": "POST"}
    asked = "connect-protocol-version,content-type,tenant,grpc-status"
    allowed = await send(up.gateway, "OPTIONS", QUOTE, **preflight, **{"Access-Control-Request-Headers": asked})
    get = {**origin, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "tenant"}
    read = await send(up.gateway, "OPTIONS", f"{QUOTE}?connect=v1&encoding=json&message=%7B%7D", **get)
    rest = await send(up.gateway, "OPTIONS", QUOTE, **preflight, **{"Access-Control-Request-Headers": "tenant"})

    names = allowed.headers["Access-Control-Allow-Headers"].split(", ")
    assert {"connect-protocol-version", "tenant"} <= set(names)
    assert "grpc-status" not in names
    assert read.headers["Access-Control-Allow-Methods"] == "GET, POST"
    assert "tenant" in read.headers["Access-Control-Allow-Headers"].split(", ")
    assert "tenant" not in rest.headers["Access-Control-Allow-Headers"].split(", ")
