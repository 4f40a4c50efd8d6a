"""Annotated routes through a gateway: what tests/docs/test_http_rules.py has of each by itself, over HTTP."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from support import annotated, described
from support.annotated import ANSWER, BODY, EMPTY, REQUEST
from support.gateway import FakeMom, Gateway, running_gateway, serving_mom

from poste.protojson.plans import class_of
from poste.rpc.catalogue import Service, describe
from poste.rpc.servers import Health, bind, new_server
from poste.v1 import catalogue_pb2, task_pb2

METHODS: dict[str, tuple[str, str, list[str]]] = {
    "Get": (REQUEST, ANSWER, ["GET /v1/{name=shelves/*}", "DELETE /v1/shelves/{uuid}", "POST /v1/{x=**}:act body=*"]),
    "Own": (REQUEST, ANSWER, ["GET /{x=**}", "GET /v1/tasks/{uuid}", "GET /v1/kept/{uuid}"]),
    "Options": (REQUEST, ANSWER, ["OPTIONS /v1/shelves/{uuid}"]),
    "Post": (REQUEST, ANSWER, ["POST /v1/books body=book"]),
    "Nothing": (EMPTY, EMPTY, ["POST /v1/nothing body=*", "GET /v1/nothing"]),
    "Text": (REQUEST, ANSWER, ["POST /v1/text body=* response_body=text"]),
    "Number": (REQUEST, ANSWER, ["POST /v1/number body=* response_body=number"]),
    "Names": (REQUEST, ANSWER, ["POST /v1/names body=* response_body=names"]),
    "Books": (REQUEST, ANSWER, ["POST /v1/books:list body=* response_body=books"]),
    "Labels": (REQUEST, ANSWER, ["POST /v1/labels body=* response_body=labels"]),
    "Book": (REQUEST, ANSWER, ["POST /v1/book body=* response_body=book"]),
    "Page": (REQUEST, ANSWER, ["GET /v1/page/{name} response_body=content"]),
    "Raw": (BODY, BODY, ["POST /v1/raw body=*"]),
    "Upload": (REQUEST, ANSWER, ["PUT /v1/upload/{name} body=content"]),
    "Any": (REQUEST, ANSWER, ["* /v1/any/{name}", "GET /api.v2/users"]),
    "Within": (
        REQUEST,
        ANSWER,
        [
            "GET /v1/within/{at.seconds}",
            "GET /v1/within/{wrapped_string.value}",
            "POST /v1/within body=wrapped_string.value",
            "GET /v1/within/one/{wrapped_string}",
        ],
    ),
}
ENTRY = annotated.entry_of(METHODS)
SERVICE = describe(ENTRY)
Answer = class_of(SERVICE.methods["Get"].output)
Behave = Callable[[str, Any], Any]


@contextlib.asynccontextmanager
async def serving(service: Service, behave: Behave) -> AsyncIterator[str]:
    """Serve every method of a service; yields the target."""
    server = new_server()

    def handler(name: str) -> Any:
        async def handle(request: Any, _: grpc.aio.ServicerContext[Any, Any]) -> Any:
            return behave(name, request)

        takes: Any = class_of(service.methods[name].input)
        return grpc.unary_unary_rpc_method_handler(
            handle,  # type: ignore[arg-type]  # its stubs know no coroutine
            request_deserializer=takes.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    handlers = {name: handler(name) for name in service.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, handlers),))
    health = Health(server, service.name)
    port = bind(server, "127.0.0.1", 0)
    await server.start()
    await health.serving()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def echo(_: str, request: Any) -> Any:
    """Answer with what was asked, and with something in each field."""
    if request.DESCRIPTOR.full_name != "rules.v1.Request":
        return request
    answer = Answer(said=request, text=request.text, number=1 << 40, names=["a", "b"])
    answer.books.add(title="T")
    answer.labels["a"] = 1
    answer.content.content_type, answer.content.data = "text/html; charset=utf-8", b"<h1>Hi</h1>"
    return answer


@contextlib.asynccontextmanager
async def gateway_of(folder: Path, behave: Behave = echo, **settings: Any) -> AsyncIterator[tuple[Gateway, FakeMom]]:
    """Run a gateway before the service."""
    async with serving(SERVICE, behave) as target:
        entry = catalogue_pb2.CatalogueService()
        entry.CopyFrom(ENTRY)
        entry.targets.append(target)
        mom = FakeMom(entry)
        async with serving_mom(mom) as mom_port, running_gateway(folder, mom_port, **settings) as gateway:
            await gateway.available(name=annotated.NAME)
            yield gateway, mom


def said(reply: Any) -> dict[str, Any]:
    """What the handler was asked, of a request's fields that are texts and not empty."""
    return {
        name: value for name, value in reply.body["said"].items() if isinstance(value, str) and value not in ("", "0")
    }


async def test_calls_by_every_verb(tmp_path: Path) -> None:
    """Else an annotated service is called by POST alone, or a HEAD has a body, an OPTIONS no answer, a 405 no Allow."""
    async with gateway_of(tmp_path, cors_origins="https://app.example") as (gateway, _):
        got = await gateway.get("/v1/shelves/a%2Fb?revision=7&x=1+1")
        assert got.status == 200, got.text
        assert {name: said(got)[name] for name in ("name", "revision", "x")} == {
            "name": "shelves/a%2Fb",
            "revision": "7",
            "x": "1 1",
        }
        assert said(await gateway.ask("DELETE", "/v1/shelves/a%2Fb"))["uuid"] == "a/b"
        assert said(await gateway.post("/v1/a/b:act", {"text": "t"}))["x"] == "a/b"
        head = await gateway.ask("HEAD", "/v1/shelves/1")
        assert (head.status, head.text) == (200, "")
        assert int(head.headers["Content-Length"]) > 100
        assert said(await gateway.ask("OPTIONS", "/v1/shelves/1"))["uuid"] == "1"
        asked = {"Origin": "https://app.example", "Access_Control_Request_Method": "DELETE"}
        preflight = await gateway.ask("OPTIONS", "/v1/shelves/1", **asked)
        assert (preflight.status, preflight.headers["Access-Control-Allow-Methods"]) == (204, "GET, DELETE, OPTIONS")
        wrong = await gateway.ask("PATCH", "/v1/shelves/1")
        assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, DELETE, OPTIONS, HEAD")
        assert (await gateway.ask("PATCH", "/v1/nowhere")).status == 405
        assert (await gateway.post("/v1/nowhere")).status == 405


async def test_what_is_postes_own_stays_so(tmp_path: Path) -> None:
    """Else a service that takes every path has all tasks, and one that asks for too much loses all it has."""
    async with gateway_of(tmp_path) as (gateway, _):
        assert (await gateway.get("/v1/tasks/x")).body["type"] == "/problems/no-such-task"
        assert (await gateway.get("/v1/tasks/a/b/c")).status == 404
        assert (await gateway.get("/metrics")).status == 404
        assert (await gateway.get("/readyz")).text == "ready\n"
        assert (await gateway.get("/v1/%74asks/x")).body["type"] == "/problems/no-such-task"
        assert said(await gateway.get("/v2/anything/else"))["x"] == "v2/anything/else"
        assert said(await gateway.get("/v1/kept/1"))["uuid"] == "1"
        assert (await gateway.post(f"/{annotated.NAME}/Own", {"x": "1"})).status == 200
        methods = {one["name"]: one for one in (await gateway.get("/v1/services")).body["services"][0]["methods"]}
        assert methods["Own"]["notServed"] == [{"route": "GET /v1/tasks/{uuid}", "reason": "the path is Poste's own"}]
        assert methods["Own"]["routes"] == [f"POST /{annotated.NAME}/Own", "GET /{x=**}", "GET /v1/kept/{uuid}"]


async def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    """Else a client's mistake is passed over, or it has to guess which of its parameters is meant."""
    async with gateway_of(tmp_path) as (gateway, _):
        wrong = await gateway.get("/v1/shelves/1?revision=x&other=1&name=2&book=3")
        assert wrong.status == 400
        assert [error["field"] for error in wrong.body["errors"]] == ["other", "name", "book"]
        revision = await gateway.get("/v1/shelves/1?revision=x")
        assert [error["field"] for error in revision.body["errors"]] == ["revision"]
        for path in ("/v1/shelves/%ff", "/v1/shelves/1?x=%ff", "/v1/shelves/1?x=%zz", "/v1/shelves/1?=1"):
            async with gateway.session.get(aiohttp.client.URL(gateway.url + path, encoded=True)) as reply:
                assert (reply.status, (await reply.json())["type"]) == (400, "/problems/invalid-request"), path
        default = await gateway.post(f"/{annotated.NAME}/Get?x=1", {})
        assert [error["field"] for error in default.body["errors"]] == ["x"]
        body = await gateway.ask("DELETE", "/v1/shelves/1", {"x": "1"})
        assert "takes no body" in body.body["detail"]


async def test_a_hostile_query_is_bounded(tmp_path: Path) -> None:
    """Else one line of eight thousand characters holds all others up, or a name nested too deeply is a 500."""
    async with gateway_of(tmp_path) as (gateway, _):
        many = await gateway.get("/v1/shelves/1?" + "&".join(["manyInt32=1"] * 600))
        assert len(many.body["said"]["manyInt32"]) == 600
        # Of what is wrong, so much is said.
        wrong = await gateway.get("/v1/shelves/1?" + "&".join(f"a{number}" for number in range(800)))
        assert (wrong.status, len(wrong.body["errors"])) == (400, 20)
        for depth in (100, 900):
            deep = await gateway.get("/v1/shelves/1?" + ".".join(["request"] * depth) + ".x=1")
            assert (deep.status, "deeply" in deep.body["detail"]) == (400, True)
        assert (await gateway.get("/v1/shelves/1?" + "&" * 1001)).status == 400
        assert (await gateway.get("/" + "a:/" * 2600)).status in (200, 400)


async def test_an_empty_body_says_nothing(tmp_path: Path) -> None:
    """Else a method that takes nothing must be sent `{}` all the same."""
    async with gateway_of(tmp_path) as (gateway, _):
        for path in ("/v1/nothing", f"/{annotated.NAME}/Nothing", "/v1/books"):
            for headers in ({}, {"Content-Type": "application/x-www-form-urlencoded"}):
                async with gateway.session.post(gateway.url + path, headers=headers) as reply:
                    assert reply.status == 200, await reply.text()
        assert (await gateway.get("/v1/nothing")).body == {}
        assert (await gateway.post("/v1/nothing", b"{}", Content_Type="text/plain")).status == 415


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/text", "hello"),
        ("/v1/number", str(1 << 40)),
        ("/v1/names", ["a", "b"]),
        ("/v1/labels", {"a": "1"}),
        ("/v1/book", None),
    ],
)
async def test_an_answer_of_one_field_is_its_json_on_either_road(tmp_path: Path, path: str, expected: Any) -> None:
    """Else a client that keeps to the annotation gets an object for a field; or does so when it is queued."""
    async with gateway_of(tmp_path) as (gateway, mom):
        reply = await gateway.post(path, {"text": "hello"})
        assert (reply.status, reply.headers["Content-Type"], reply.body) == (200, "application/json", expected)

        queued = await gateway.post(path, {"text": "hello"}, Prefer="respond-async")
        assert queued.status == 202
        (key,) = mom.tasks
        response = echo("", class_of(SERVICE.methods["Text"].input)(text="hello")).SerializeToString()
        mom.change(key, state=task_pb2.TASK_STATE_SUCCEEDED, response=response)
        assert (await gateway.get(queued.headers["Location"])).body["response"] == expected


async def test_a_list_of_messages_is_an_array(tmp_path: Path) -> None:
    """Else what is written of one field alone lacks its default values, or a large one is not written at all."""

    def many(_: str, __: Any) -> Any:
        return Answer(books=[{"title": f"T{number}"} for number in range(3000)])

    async with gateway_of(tmp_path, many) as (gateway, _):
        reply = await gateway.post("/v1/books:list", {})
        assert (reply.status, len(reply.body)) == (200, 3000)
        assert reply.body[7] == {
            **dict.fromkeys(("name", "author"), ""),
            "id": "0",
            "title": "T7",
            "quotes": [],
        }


async def test_bodies_that_are_no_json(tmp_path: Path) -> None:
    """Else a picture comes as base64, or is refused; or a service's page reads what this origin keeps."""
    async with gateway_of(tmp_path) as (gateway, mom):
        page = await gateway.get("/v1/page/1")
        assert (page.status, page.text) == (200, "<h1>Hi</h1>")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Content-Security-Policy"].startswith("sandbox")
        raw = bytes(range(256)) * 100
        sent = {"data": raw, "headers": {"Content-Type": "image/png"}}
        async with gateway.session.post(gateway.url + "/v1/raw", **sent) as reply:
            assert (reply.status, reply.headers["Content-Type"], await reply.read()) == (200, "image/png", raw)
        async with gateway.session.put(gateway.url + "/v1/upload/n", **sent) as reply:
            content = (await reply.json())["said"]["content"]
            assert (content["contentType"], base64.b64decode(content["data"])) == ("image/png", raw)
        # On the default route it is JSON, and so it is in a task.
        body = {"contentType": "text/plain", "data": "aGk=", "extensions": []}
        assert (await gateway.post(f"/{annotated.NAME}/Raw", body)).body == body
        queued = await gateway.ask("POST", "/v1/raw", b"hi", Content_Type="text/plain", Prefer="respond-async")
        (key,) = mom.tasks
        mom.change(key, state=task_pb2.TASK_STATE_SUCCEEDED, response=mom.requests[key].request)
        assert (await gateway.get(queued.headers["Location"])).body["response"] == body


@pytest.mark.parametrize("kind", ["", "text", "text/plain\r\nX: y", "text/ü", "a/" + "b" * 600])
async def test_a_type_that_is_none_is_not_sent(tmp_path: Path, kind: str) -> None:
    """Else a service writes into the head of an answer, or breaks it."""

    def behave(_: str, request: Any) -> Any:
        request.content_type = kind
        return request

    async with gateway_of(tmp_path, behave) as (gateway, _):
        reply = await gateway.ask("POST", "/v1/raw", b"hi", Content_Type="text/plain")
        assert (reply.status, reply.headers["Content-Type"]) == (200, "application/octet-stream")
        assert "X" not in reply.headers


async def test_a_read_is_never_queued(tmp_path: Path) -> None:
    """Else a browser that reads something is asked to come back for it."""
    mom = FakeMom(ENTRY)
    async with serving_mom(mom) as port, running_gateway(tmp_path, port) as gateway:
        for headers in ({}, {"Prefer": "respond-async"}):
            away = await gateway.get("/v1/shelves/1", **headers)
            assert (away.status, away.body["type"]) == (503, "/problems/service-away")
            assert "a GET never is" in away.body["detail"]
        assert (await gateway.ask("DELETE", "/v1/shelves/1")).status == 202
        assert mom.requests[next(iter(mom.requests))].method == "Get"


async def test_a_read_by_a_route_of_any_verb_is_never_queued(tmp_path: Path) -> None:
    """Else what only reads is kept and run later, for its method's annotation names no verb."""
    mom = FakeMom(ENTRY)
    async with serving_mom(mom) as port, running_gateway(tmp_path, port) as gateway:
        for verb in ("GET", "HEAD"):
            away = await gateway.ask(verb, "/v1/any/1", Prefer="respond-async")
            assert away.status == 503
        assert "a GET never is" in (await gateway.get("/v1/any/1")).body["detail"]
        assert (await gateway.ask("DELETE", "/v1/any/1")).status == 202


async def test_a_path_like_a_default_route_is_taken_by_other_verbs(tmp_path: Path) -> None:
    """Else an API with a dot in its version is not served, though a default route takes POST alone."""
    async with gateway_of(tmp_path) as (gateway, _):
        assert said(await gateway.get("/api.v2/users?x=1"))["x"] == "1"
    for verb in ("POST", "*"):
        (method,) = describe(annotated.entry(f"{verb} /api.v2/users")).methods.values()
        assert [one.reason for one in method.passed_over] == ["the path is the default route of a method"]


async def test_a_route_into_what_is_one_value_is_not_served(tmp_path: Path) -> None:
    """Else it is taken, and answers each call with a 500."""
    async with gateway_of(tmp_path) as (gateway, _):
        assert (await gateway.get("/v1/within/one/a")).body["said"]["wrappedString"] == "a"
        methods = {one["name"]: one for one in (await gateway.get("/v1/services")).body["services"][0]["methods"]}
        reasons = [one["reason"] for one in methods["Within"]["notServed"]]
        assert len(reasons) == 3
        assert "google.protobuf.Timestamp, which is one value in JSON" in reasons[0]


def test_a_service_of_the_test_is_as_it_is_meant() -> None:
    """Else these tests would be of routes that are not served."""
    lost = [one.path for method in SERVICE.methods.values() for one in method.passed_over]
    within = ["/v1/within/{at.seconds}", "/v1/within/{wrapped_string.value}", "/v1/within"]
    assert lost == ["/v1/tasks/{uuid}", *within]
    assert described.message_class(SERVICE.pool, "rules.v1.Answer") is not None
