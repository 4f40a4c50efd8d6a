"""What else the gateway answers by REST: its lists, paths, problems, probes and metrics."""

from __future__ import annotations

import gzip
import socket

import pytest
from support import shop
from support.gateway import (
    FakeMom,
    answer,
    running_gateway,
    serving_mom,
    serving_shop,
    staged,
)
from support.rest import ORDER, PLACE, QUOTE, is_problem
from support.waiting import until

from poste.v1 import mom_service_pb2 as pb


async def test_the_listings(tmp_path):
    """Else neither people nor `poste ps` can see what is there."""
    async with staged(tmp_path, answer) as stage:
        stage.mom.queues = [
            pb.Queue(
                name=shop.NAME,
                queued=3,
                delayed=1,
                running=2,
                dead=4,
                kept=5,
                kept_bytes=1560,
                held_bytes=4000,
                max_held_bytes=8000,
                oldest_age_seconds=1.5,
                consumers=1,
                enqueued=9,
                replayed=2,
                ended=4,
            ),
            pb.Queue(name="old.Service"),
        ]
        [service] = (await stage.gateway.get("/v1/services")).body["services"]
        assert (service["name"], service["availability"], service["queued"]) == (shop.NAME, "up", 4)
        assert service["replicas"] == {"ready": 1, "known": 1}
        assert [one["name"] for one in service["methods"]] == ["Place", "Put", "Quote", "Get", "Want", "Follow"]
        assert service["methods"][2] == {
            "name": "Quote",
            "kind": "unary",
            "callable": True,
            "path": "/shop.v1.OrderService/Quote",
            "routes": ["POST /shop.v1.OrderService/Quote", "POST /v1/quotes"],
            "notServed": [],
            "idempotent": True,
            "away": "queue",
            "requiresIdempotencyKey": False,
            "timeoutSeconds": 30,
            "queuedTimeoutSeconds": 600,
        }
        assert not service["methods"][0]["idempotent"]

        queues = (await stage.gateway.get("/v1/queues")).body["queues"]
        expected = {
            "queue": shop.NAME,
            "service": shop.NAME,
            "queued": 3,
            "running": 2,
            "delayed": 1,
            "scheduled": 0,
            "dead": 4,
            "heldAside": 0,
            "callbacks": 0,
            "undelivered": 0,
            "kept": 5,
            "keptBytes": 1560,
            "heldBytes": 4000,
            "maxHeldBytes": 8000,
            "oldestAgeSeconds": 1.5,
            "paused": False,
            "standsStill": False,
            "consumers": 1,
            "enqueued": 9,
            "replayed": 2,
            "ended": 4,
        }
        assert queues[1] == expected
        assert queues[0]["oldestAgeSeconds"] is None
        assert (await stage.gateway.get(f"/v1/queues/{shop.NAME}")).body == {"queues": [expected]}
        is_problem(await stage.gateway.get("/v1/queues/none.Such"), 404, "no-such-queue", "NOT_FOUND")


async def test_a_method_tells_what_its_messages_are_made_of(tmp_path):
    """Else who writes a request has to find its proto; a program can't tell a number from a text."""
    async with staged(tmp_path) as stage:
        found = (await stage.gateway.get(f"/v1/services/{shop.NAME}/methods/Place")).body
        [listed] = [
            one
            for one in (await stage.gateway.get("/v1/services")).body["services"][0]["methods"]
            if one["name"] == "Place"
        ]
        for path, kind in (
            ("none.Such/methods/Place", "no-such-service"),
            (f"{shop.NAME}/methods/No", "no-such-route"),
        ):
            is_problem(await stage.gateway.get(f"/v1/services/{path}"), 404, kind, "NOT_FOUND")
        wrong = await stage.gateway.ask("POST", f"/v1/services/{shop.NAME}/methods/Place")

    assert found.items() >= {"service": shop.NAME, "request": "shop.v1.Order", "response": "shop.v1.Receipt"}.items()
    assert found.items() >= listed.items()
    assert list(found["messages"]) == ["shop.v1.Order", "shop.v1.Receipt", "shop.v1.Item"]
    assert found["enums"]["shop.v1.Colour"] == ["COLOUR_UNSPECIFIED", "COLOUR_RED", "COLOUR_BLUE"]
    fields = {field["name"]: field for field in found["messages"]["shop.v1.Order"]}
    one = {"required": False, "repeated": False}
    assert fields["a_double"] == {"name": "a_double", "jsonName": "aDouble", "type": "double", **one}
    assert fields["items"] == {"name": "items", "jsonName": "items", "type": "shop.v1.Item", **one, "repeated": True}
    assert fields["counts"] == {"name": "counts", "jsonName": "counts", "type": "int32", **one, "keyType": "int64"}
    assert fields["cash"]["oneof"] == "payment"
    assert fields["at"]["type"] == "google.protobuf.Timestamp"
    assert found["messages"]["shop.v1.Item"][0]["required"]
    assert wrong.status == 405


@pytest.mark.parametrize(
    ("path", "verbs"),
    [
        (PLACE, "POST, OPTIONS"),
        ("/shop.v1.OrderService/Place", "POST, OPTIONS"),
        ("/v1/tasks/x", "GET, DELETE, HEAD, OPTIONS"),
        ("/v1/services", "GET, POST, HEAD, OPTIONS"),
        ("/v1/queues", "GET, HEAD, OPTIONS"),
        ("/readyz", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_wrong_verb_is_told_the_right_ones(tmp_path, path, verbs):
    """Else a client has to guess."""
    async with staged(tmp_path) as stage:
        for verb in ("PUT", "PATCH", "PROPFIND"):
            reply = await stage.gateway.ask(verb, path)
            is_problem(reply, 405, "wrong-verb", "UNIMPLEMENTED", path)
            assert reply.headers["Allow"] == verbs
        options = await stage.gateway.ask("OPTIONS", path)
        assert (options.status, options.headers["Allow"]) == (204, verbs)
        if "GET" in verbs:
            assert (await stage.gateway.ask("HEAD", path)).status == (await stage.gateway.get(path)).status
        else:
            assert (await stage.gateway.ask("HEAD", path)).status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/v1/sum",
        "/v1/orders/",
        "/v1/orders/5/6",
        "/v1/tasks/",
        "//v1/orders",
        "/shop.v1.OrderService",
        "/problems/none",
    ],
)
async def test_an_unknown_path_is_404(tmp_path, path):
    """Else a typing error is answered as another mistake."""
    async with staged(tmp_path) as stage:
        for verb in ("GET", "POST"):
            if verb == "GET" or not path.startswith("/problems"):
                is_problem(await stage.gateway.ask(verb, path), 404, "no-such-route", "NOT_FOUND")


async def test_every_problem_has_a_page(tmp_path):
    """Else `type` leads nowhere."""
    async with staged(tmp_path) as stage:
        for name in ("outcome-unknown", "status-not-found", "gone"):
            page = await stage.gateway.get(f"/problems/{name}")
            assert page.status == 200
            assert page.headers["Content-Type"].startswith("text/plain")
            assert len(page.text) > 50


@pytest.mark.parametrize("up", [True, False])
async def test_a_bad_body_is_refused_on_either_road(tmp_path, up):
    """Else a bad call is kept, and fails a day later; or it is a 500."""
    async with staged(tmp_path, *([answer] if up else []), max_body_bytes=1000) as stage:
        gateway = stage.gateway
        for body in (b" ", b"\xff", b"[]", b"{", b'{"aDouble": 1, "aDouble": 2}', b'{"aDouble": NaN}', b"[" * 900):
            is_problem(await gateway.post(PLACE, body), 400, "invalid-request", "INVALID_ARGUMENT", PLACE)
        reply = await gateway.post(PLACE, {"items": [{"sku": 5}], "other": 1})
        assert {error["field"] for error in reply.body["errors"]} == {"items[0].sku", "other"}
        assert "items[0].sku" in reply.body["detail"]
        reply = await gateway.post("/shop.v1.OrderService/Want", b"{}")
        assert [error["field"] for error in reply.body["errors"]] == ["customerName", "items"]

        large = await gateway.post(PLACE, b'{"aString": "' + b"x" * 1000 + b'"}')
        is_problem(large, 413, "body-too-large", "INVALID_ARGUMENT", PLACE)

        async def chunks():
            for _ in range(100):
                yield b" " * 100

        async with gateway.session.post(
            gateway.url + PLACE, data=chunks(), headers={"Content-Type": "application/json"}
        ) as chunked:
            assert chunked.status == 413
            assert chunked.content_type == "application/problem+json"

        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""):
            reply = await gateway.post(PLACE, b"{}", Content_Type=kind)
            is_problem(reply, 415, "not-json", "INVALID_ARGUMENT", PLACE)
        for kind in ("application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"):
            reply = await gateway.post(PLACE, b"{}", Content_Type=kind)
            assert reply.status == (200 if up else 202)
        packed = await gateway.post(PLACE, gzip.compress(b"{}"), Content_Encoding="gzip")
        is_problem(packed, 415, "not-json", "INVALID_ARGUMENT", PLACE)
        assert sum(len(one.ran) for one in stage.shops) + len(stage.mom.tasks) == 3


async def test_cors_is_off_unless_an_origin_is_named(tmp_path):
    """Else any web page may call the services in the name of its reader."""
    preflight = {"Origin": "https://a.example", "Access_Control_Request_Method": "POST"}
    async with staged(tmp_path, answer) as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, Origin="https://a.example")
        assert "Access-Control-Allow-Origin" not in reply.headers
    async with staged(tmp_path, answer, cors_origins="https://a.example, https://b.example") as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, Origin="https://a.example")
        assert reply.headers["Access-Control-Allow-Origin"] == "https://a.example"
        exposed = reply.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"Location", "ETag", "Cache-Control"} <= set(exposed)
        other = await stage.gateway.post(QUOTE, ORDER, Origin="https://evil.example")
        assert "Access-Control-Allow-Origin" not in other.headers
        asked = await stage.gateway.ask("OPTIONS", QUOTE, **preflight)
        assert (asked.status, asked.headers["Access-Control-Allow-Methods"]) == (204, "POST")
        assert "Prefer" in asked.headers["Access-Control-Allow-Headers"]
        more = {"Access_Control_Request_Headers": "content-type,grpc-metadata-tenant, x-other, grpc-metadata-grpc-x"}
        asked = await stage.gateway.ask("OPTIONS", QUOTE, **preflight, **more)
        allowed = asked.headers["Access-Control-Allow-Headers"].split(", ")
        assert allowed[-2:] == ["Last-Event-ID", "grpc-metadata-tenant"]
        refused = await stage.gateway.ask("OPTIONS", QUOTE, **{**preflight, "Origin": "https://evil.example"})
        assert "Access-Control-Allow-Methods" not in refused.headers


async def test_readiness(tmp_path):
    """Else calls come before the gateway knows what to do with them, or a service that is away stops all of them."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    async with running_gateway(tmp_path, port, wait=False) as gateway:
        assert (await gateway.get("/livez")).status == 200
        assert (await gateway.get("/readyz")).status == 503
        is_problem(await gateway.post(PLACE, ORDER), 503, "not-ready", "UNAVAILABLE")
        mom = FakeMom(shop.entry())
        mom.refuses_key = True
        async with serving_mom(mom, port):

            async def refused() -> bool:
                return "key" in (await gateway.get("/readyz")).text

            await until(refused)
            mom.refuses_key = False

            async def ready() -> bool:
                return (await gateway.get("/readyz")).status == 200

            await until(ready)
        # What it knows it keeps.
        assert (await gateway.get("/readyz")).status == 200


async def test_the_catalogue_is_followed(tmp_path):
    """Else a new service needs a restart, or a change drops the connections of the others."""
    async with serving_shop(answer) as replica, staged(tmp_path) as stage:
        stage.mom.announce()
        await until(lambda: _status(stage, 404))
        broken = shop.entry(replica.target)
        broken.name = "shop.v1.BrokenService"
        broken.file_descriptor_set = b"\xff"
        stage.mom.announce(broken)
        stage.mom.announce(shop.entry(replica.target), broken)
        await stage.gateway.available()
        assert (await stage.gateway.post(QUOTE, ORDER)).status == 200
        stage.mom.announce(broken, shop.entry("127.0.0.1:1", replica.target, max_attempts=7))
        await stage.gateway.available()
        assert (await stage.gateway.post(QUOTE, ORDER)).status == 200


async def _status(stage, status: int) -> bool:
    return (await stage.gateway.post(PLACE, ORDER)).status == status


async def test_the_metrics_tell_roads_and_reasons(tmp_path):
    """Else it is not seen that calls go to the queue, nor why."""
    async with staged(tmp_path) as stage:
        await stage.gateway.post(PLACE, ORDER)
        await stage.gateway.post(PLACE, {"no such field": 1})
        await stage.gateway.post("/nowhere/at/all", ORDER)
        await stage.gateway.get("/v1/services")
        await stage.gateway.get("/v1/tasks/made-up")
        await stage.gateway.get("/v1/tasks/made-up/history")
        await stage.gateway.get(f"/v1/services/{shop.NAME}/methods/made-up")
        text = await stage.gateway.metrics()

        assert f'poste_failovers_total{{reason="away",service="{shop.NAME}"}}' in text
        assert 'outcome="QUEUED",road="queued"' in text
        assert "nowhere" not in text
        assert "made-up" not in text
        assert f'poste_call_seconds_count{{method="Place",road="queued",service="{shop.NAME}"}}' in text
        # Poste's own word; the service's would be INVALID_ARGUMENT.
        assert 'outcome="invalid-request",road="none"' in text
        for outcome, route in (
            ("no-such-route", "none"),
            ("OK", "/v1/services"),
            ("no-such-task", "/v1/tasks/*"),
            ("no-such-task", "/v1/tasks/*/history"),
            ("no-such-route", "/v1/services/*/methods/*"),
        ):
            assert f'poste_requests_total{{outcome="{outcome}",route="{route}"}}' in text, route
        # When each counter was made: a series more for each that is.
        assert "_created" not in text
