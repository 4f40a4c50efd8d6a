"""A route is served as its annotation means it, or not at all, which is logged for its author; other routes stay."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.api import annotations_pb2, http_pb2, httpbody_pb2
from google.protobuf import descriptor_pb2
from structlog.testing import capture_logs
from support import described
from support.gateway import FakeMom, running_gateway, serving_mom
from support.waiting import until
from support.worker import FakeMom as WorkersMom
from support.worker import running_worker
from support.worker import serving_mom as serving_workers_mom
from testing.v1 import feed_pb2, feed_pb2_grpc, ledger_pb2_grpc

from poste.rpc.catalogue import Method, describe
from poste.rpc.servers import Health, bind, new_server
from poste_mom.catalogue import catalogue_file
from poste_mom.messages import catalogue

NAME = "raw.v1.RawService"
THING, BODY = ".raw.v1.Thing", ".google.api.HttpBody"


def entry(rule: http_pb2.HttpRule, *targets: str, takes: str = THING, gives: str = THING) -> Any:
    """A service of one method, annotated so."""
    file = descriptor_pb2.FileDescriptorProto(name="raw.proto", package="raw.v1", syntax="proto3")
    file.dependency.extend([httpbody_pb2.DESCRIPTOR.name, annotations_pb2.DESCRIPTOR.name])
    thing = file.message_type.add(name="Thing")
    described.field(thing, "name")
    described.field(thing, "body", BODY)
    described.service(file, "RawService", {"Call": (takes, gives)})
    file.service[0].method[0].options.Extensions[annotations_pb2.http].CopyFrom(rule)
    pool = described.pool_of(httpbody_pb2.DESCRIPTOR, annotations_pb2.DESCRIPTOR, file)
    return described.entry(pool, NAME, *targets)


def method_of(catalogued: Any) -> Method:
    return describe(catalogued).methods["Call"]


RULE = http_pb2.HttpRule


@pytest.mark.parametrize(
    ("rule", "types", "said"),
    [
        (RULE(post="/v1/raw", body="*", response_body="size"), {}, "no field size"),
        (RULE(post="/v1/raw", body="*", response_body="body.data"), {}, "no field body.data"),
        (RULE(post="/v1/{content_type}", body="*"), {"takes": BODY}, "google.api.HttpBody"),
        (RULE(post="/v1/raw", body="size"), {}, "no field size"),
        (RULE(post="/v1/raw", body="name.first"), {}, "no message"),
        (RULE(post="/v1/{name}", body="name"), {}, "captured by the path"),
        (RULE(get="/v1/raw", body="*"), {}, "a GET has no body"),
        (RULE(custom={"kind": "purge", "path": "/v1/raw"}, body="*"), {}, "no verb"),
        (RULE(custom={"kind": "CONNECT", "path": "/v1/raw"}), {}, "no verb"),
        (RULE(custom={"kind": "GET\r\nX", "path": "/v1/raw"}), {}, "no verb"),
        (RULE(get="/v1/{body}"), {}, "is a message"),
        (RULE(get="/v1/{body.data.x}"), {}, "leads through what is no message"),
        (RULE(get="/v1/**/{name}"), {}, "only literals"),
        (RULE(get="/v1/raw?name={name}"), {}, "no segment"),
        (RULE(get="/v1/raw/"), {}, "empty"),
        (RULE(get="/v1/tasks/{name}"), {}, "Poste's own"),
    ],
)
def test_what_can_not_be_served_as_it_is_meant_is_not_routed_and_said(rule, types, said):
    """Else a client that keeps to the annotation gets something else than it says."""
    rule.additional_bindings.add(get="/v1/fine")
    method = method_of(entry(rule, **types))

    assert [route.path for route in method.routes] == [f"/{NAME}/Call", "/v1/fine"]
    (passed_over,) = method.passed_over
    assert said in passed_over.reason
    assert passed_over.path.startswith("/v1/")


def test_two_of_its_own_routes_that_are_the_same_are_one():
    """Else which method a call reaches depends on the order in which they are read."""
    more = [RULE(get="/v1/{name=*}"), RULE(post="/v1/{name}")]
    method = method_of(entry(RULE(get="/v1/{name}", additional_bindings=more)))

    assert [f"{route.verb} {route.path}" for route in method.routes[1:]] == ["GET /v1/{name}", "POST /v1/{name}"]
    assert [one.reason for one in method.passed_over] == [f"the route is {NAME}/Call's"]


def test_no_method_has_routes_without_end():
    """Else one method takes a gateway's memory."""
    more = [RULE(get=f"/v1/more/{number}") for number in range(150)]
    method = method_of(entry(RULE(get="/v1/one", additional_bindings=more)))

    assert (len(method.routes), len(method.passed_over)) == (101, 51)


async def test_the_worker_is_told_and_says_it_once():
    """Else the author of the annotation hears of it from clients, whose calls are 404."""
    service = describe(entry(RULE(post="/v1/raw", body="*", response_body="size")))
    mom = WorkersMom()
    mom.settings = catalogue.registered(service)
    with capture_logs() as logs:
        async with (
            serving_workers_mom(mom) as target,
            running_worker(ledger_pb2_grpc.LedgerServiceServicer(), mom=target),
        ):
            await until(lambda: any(line["event"] == "route not served" for line in logs), what="the line")

    (line,) = [line for line in logs if line["event"] == "route not served"]
    assert (line["method"], line["route"], line["log_level"]) == ("Call", "POST /v1/raw", "warning")
    assert "response_body" in line["reason"]


async def test_a_method_that_takes_a_stream_is_told_by_the_worker():
    """Else its author looks for what is wrong with a method that can't be called by REST."""

    class Feed(feed_pb2_grpc.FeedServiceServicer):
        async def Talk(self, requests: Any, _: Any) -> Any:  # noqa: N802 - the proto's name
            async for request in requests:
                yield feed_pb2.WatchResponse(number=request.count)

    with capture_logs() as logs:
        async with serving_workers_mom(WorkersMom()) as target, running_worker(Feed(), mom=target):
            await until(lambda: any(line["event"] == "registered" for line in logs), what="its registration")

    told = [line for line in logs if line["event"].startswith("method not callable by REST")]
    assert [(line["method"], line["log_level"]) for line in told] == [("Talk", "warning")]


def test_of_a_catalogue_files_services_the_middleware_says_it(tmp_path):
    """Else it is logged nowhere, for no replica need ever register."""
    tmp_path.joinpath("raw.binpb").write_bytes(entry(RULE(get="/v1/raw", body="*")).file_descriptor_set)
    file = tmp_path / "catalogue.toml"
    file.write_text(f'[services."{NAME}"]\ndescriptors = "raw.binpb"\n')
    with capture_logs() as logs:
        catalogue_file.read(file)

    assert [(line["event"], line["route"]) for line in logs] == [("route not served", "GET /v1/raw")]


async def test_the_default_route_serves_such_a_method_in_json(tmp_path):
    """Else it can't be called at all."""
    server = new_server()
    echo = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, {"Call": echo}),))
    health = Health(server, NAME)
    port = bind(server, "127.0.0.1", 0)
    await server.start()
    await health.serving()
    mom = FakeMom(entry(RULE(get="/v1/raw", body="*"), f"127.0.0.1:{port}", takes=BODY, gives=BODY))
    body = {"contentType": "text/plain", "data": "aGk=", "extensions": []}
    try:
        async with serving_mom(mom) as mom_port, running_gateway(tmp_path, mom_port) as gateway:
            await gateway.available(name=NAME)

            assert (await gateway.post("/v1/raw", body)).status == 404
            reply = await gateway.post(f"/{NAME}/Call", body)
            assert (reply.status, reply.body) == (200, body)
    finally:
        await server.stop(None)
