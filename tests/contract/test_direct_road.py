"""The direct road by REST: what a service that is up answers, and when a call takes the other road."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from support import shop
from support.gateway import (
    FakeMom,
    answer,
    fail,
    fail_richly,
    hang,
    running_gateway,
    serving_mom,
    serving_shop,
    staged,
)
from support.rest import ORDER, PLACE, QUOTE, RECEIPT, complete, expect_202, is_problem
from support.waiting import until

from poste.rpc import servers
from poste.v1 import task_pb2
from poste_gateway.calls.offload import Offload

# The direct road


@pytest.mark.parametrize("path", ["/v1/quotes", "/shop.v1.OrderService/Quote", "/v1/orders:put"])
async def test_a_service_that_is_up_answers_at_once(tmp_path, path):
    """Else nothing works at all."""
    async with staged(tmp_path, answer) as stage:
        reply = await stage.gateway.post(path, ORDER)

        assert (reply.status, reply.body) == (200, RECEIPT)
        assert reply.headers["Content-Type"] == "application/json"
        assert stage.mom.tasks == {}


HTTP_OF_CODE = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


async def test_an_error_status_is_the_answer_and_never_queued(tmp_path):
    """Else a mistake of the client is kept and run for days, or comes with the wrong HTTP status."""
    chosen = []

    async def behave(_, context):
        await context.abort(grpc.StatusCode[chosen[-1]], "in its own words")

    async with staged(tmp_path, behave) as stage:
        for name, status in HTTP_OF_CODE.items():
            for path in (PLACE, QUOTE):
                chosen.append(name)
                reply = await stage.gateway.post(path, ORDER)

                slug = "status-" + name.lower().replace("_", "-")
                is_problem(reply, status, slug, name, path)
                assert reply.body["detail"] == "in its own words"
        assert stage.mom.tasks == {}


async def test_details_of_a_status_are_shown(tmp_path):
    """Else the client does not learn which field the service finds wrong."""
    status = status_pb2.Status(code=3, message="bad order")
    for message in (
        error_details_pb2.ErrorInfo(reason="SOLD_OUT", domain="shop"),
        shop.Item(sku="x", unit_price=2),
    ):
        packed = status.details.add()
        packed.type_url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
        packed.value = message.SerializeToString()
    status.details.append(any_pb2.Any(type_url="type.googleapis.com/no.Such", value=b"\x01"))
    async with staged(tmp_path, fail_richly(status)) as stage:
        reply = await stage.gateway.post(PLACE, ORDER)

        is_problem(reply, 400, "status-invalid-argument", "INVALID_ARGUMENT")
        assert reply.body["details"] == [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "SOLD_OUT",
                "domain": "shop",
                "metadata": {},
            },
            {"@type": "type.googleapis.com/shop.v1.Item", "sku": "x", "unitPrice": 2, "items": []},
            {"@type": "type.googleapis.com/no.Such", "value": "AQ=="},
        ]


async def test_what_is_for_the_services_people_is_not_told(tmp_path):
    """Else a stack trace that a handler adds to its status, as the standard has it, is read by the client."""
    status = status_pb2.Status(code=3, message="bad order")
    for message in (
        error_details_pb2.DebugInfo(stack_entries=["shop.py:7"], detail="password=secret"),
        error_details_pb2.ErrorInfo(reason="SOLD_OUT", domain="shop"),
    ):
        status.details.add().Pack(message)
    # Without a slash it is no proper Any, but its value is as readable.
    status.details.add(type_url="google.rpc.DebugInfo", value=status.details[0].value)
    async with staged(tmp_path, fail_richly(status)) as stage:
        direct = await stage.gateway.post(PLACE, ORDER)
    async with staged(tmp_path) as stage:
        call = asyncio.create_task(stage.gateway.post(PLACE, ORDER, Prefer="wait=20"))
        await complete(stage, state=task_pb2.TASK_STATE_FAILED, error=status)
        waited = await call
    async with staged(tmp_path) as stage:
        place = (await stage.gateway.post(PLACE, ORDER, Prefer="respond-async")).headers["Location"]
        await complete(stage, state=task_pb2.TASK_STATE_FAILED, error=status)
        asked = await stage.gateway.get(place)

    for error in (direct.body, waited.body, asked.body["error"]):
        assert error["detail"] == "bad order"
        assert [one["@type"] for one in error["details"]] == ["type.googleapis.com/google.rpc.ErrorInfo"]


async def test_a_strange_services_exception_is_not_told(tmp_path):
    """Else the text of an exception, with whatever is in it, leaks to the client."""

    async def crash(_, __):
        raise RuntimeError("password=secret")

    async with staged(tmp_path, crash, entry={"library": False}) as stage:
        reply = await stage.gateway.post(PLACE, ORDER)

        is_problem(reply, 500, "status-unknown", "UNKNOWN")
        assert "secret" not in reply.text


async def test_an_answer_that_json_cannot_hold_is_the_services_fault(tmp_path):
    """Else a broken service breaks the gateway."""

    async def broken(_, __):
        # The fields have other types than a Receipt's; its text is not UTF-8.
        return shop.Broken(note=b"\xff")

    async with staged(tmp_path, broken) as stage:
        for path in (PLACE, QUOTE):
            reply = await stage.gateway.post(path, ORDER)

            is_problem(reply, 500, "unreadable-answer", "INTERNAL", path)
        task = await stage.gateway.post(PLACE, ORDER, Prefer="respond-async")
        await complete(stage, state=task_pb2.TASK_STATE_SUCCEEDED, response=b"\xff")
        task = await stage.gateway.get(task.headers["Location"])
        assert (task.body["state"], task.body["error"]["type"]) == ("SUCCEEDED", "/problems/unreadable-answer")


async def test_the_request_id_goes_all_the_way(tmp_path):
    """Else a client's complaint can't be found in the service's log."""
    async with staged(tmp_path, answer) as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, X_Request_Id="abc-1")
        made = await stage.gateway.post(QUOTE, ORDER, X_Request_Id="bad id\t")

        assert reply.headers["X-Request-Id"] == "abc-1"
        assert stage.shops[0].metadata[0]["x-request-id"] == "abc-1"
        assert made.headers["X-Request-Id"] == stage.shops[0].metadata[1]["x-request-id"] != "bad id\t"


# Which road


@pytest.mark.parametrize("path", [PLACE, QUOTE])
async def test_a_service_that_was_never_there_gets_its_calls_kept(tmp_path, path):
    """Else a call is lost because the service was never started yet."""
    async with staged(tmp_path) as stage:
        expect_202(await stage.gateway.post(path, ORDER), stage)


@pytest.mark.parametrize("path", [PLACE, QUOTE])
async def test_a_refused_connection_or_an_unknown_name_is_away(tmp_path, path):
    """Else a stopped service is an error, or its calls count as perhaps run."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{unused.getsockname()[1]}"
        for target in (nobody, "dns:///no-such-host.invalid:1"):
            mom = FakeMom(shop.entry(target))
            async with serving_mom(mom) as port, running_gateway(tmp_path, port) as gateway:
                begin = time.monotonic()
                reply = await gateway.post(path, ORDER)

                assert reply.status == 202, reply.text
                assert time.monotonic() - begin < 1


@pytest.mark.parametrize("path", [PLACE, QUOTE])
async def test_a_service_that_says_not_serving_is_away(tmp_path, path):
    """Else a draining service is sent calls until it is gone."""
    async with staged(tmp_path, answer) as stage:
        await stage.shops[0].health.not_serving()
        await stage.gateway.available(availability="away")

        expect_202(await stage.gateway.post(path, ORDER), stage)
        await stage.shops[0].health.serving()
        await stage.gateway.available()
        assert (await stage.gateway.post(path, ORDER)).status == 200


@pytest.mark.parametrize("path", [PLACE, QUOTE])
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_a_call_that_is_proved_not_run_is_kept_whatever_its_method(tmp_path, path, code):
    """Else a full or draining replica turns calls into errors."""
    async with staged(tmp_path, fail(code, trailers=[("poste-not-run", "1")])) as stage:
        expect_202(await stage.gateway.post(path, ORDER), stage)


@pytest.mark.parametrize("path", [PLACE, QUOTE])
async def test_a_call_that_is_proved_not_run_goes_to_another_replica_first(tmp_path, path):
    """Else one full replica among many sends calls to the queue."""
    refuse = fail(grpc.StatusCode.UNAVAILABLE, trailers=[("poste-not-run", "1")])
    async with staged(tmp_path, refuse, answer) as stage:
        for _ in range(4):
            assert (await stage.gateway.post(path, ORDER)).status == 200
        assert stage.mom.tasks == {}


@pytest.mark.parametrize("kind", ["lost", "silent"])
async def test_a_lost_call_of_a_repeatable_method_goes_to_another_replica_then_to_the_queue(tmp_path, kind):
    """Else a read is an error because one replica died."""
    entry = {"timeout_seconds": 0.3}
    bad = fail(grpc.StatusCode.UNAVAILABLE) if kind == "lost" else hang
    async with staged(tmp_path, bad, bad, bad, entry=entry) as stage:
        expect_202(await stage.gateway.post(QUOTE, ORDER), stage)

        assert sum(len(one.ran) for one in stage.shops) == 2
    async with staged(tmp_path, bad, answer, entry=entry) as stage:
        replies = [await stage.gateway.post(QUOTE, ORDER) for _ in range(3)]

        assert [reply.status for reply in replies] == [200] * 3


@pytest.mark.parametrize("kind", ["lost", "silent"])
async def test_a_lost_call_of_any_other_method_is_never_run_twice(tmp_path, kind):
    """Else an order is placed twice."""
    bad = fail(grpc.StatusCode.UNAVAILABLE) if kind == "lost" else hang
    async with staged(tmp_path, bad, bad, entry={"timeout_seconds": 0.3}) as stage:
        reply = await stage.gateway.post(PLACE, ORDER)

        is_problem(reply, 502, "outcome-unknown", "UNKNOWN", PLACE)
        assert sum(len(one.ran) for one in stage.shops) == 1
        assert stage.mom.tasks == {}


async def test_a_service_that_dies_under_a_call_leaves_its_outcome_unknown(tmp_path):
    """Else a kill in the middle of a handler looks like a refused connection, and the call is run again."""
    async with staged(tmp_path, hang) as stage:
        call = asyncio.create_task(stage.gateway.post(PLACE, ORDER))
        await until(lambda: stage.shops[0].ran)
        await stage.shops[0].server.stop(None)

        is_problem(await call, 502, "outcome-unknown", "UNKNOWN")
        assert stage.mom.tasks == {}


async def test_the_catalogue_may_call_a_method_repeatable(tmp_path):
    """Else `redeliver: true` holds on one road only."""
    entry = {"redeliver": True}
    async with staged(tmp_path, fail(grpc.StatusCode.UNAVAILABLE), entry=entry) as stage:
        expect_202(await stage.gateway.post(PLACE, ORDER), stage)


async def test_a_full_replica_is_busy_and_its_calls_are_kept(tmp_path):
    """Else a flood of calls takes a slow service down."""
    async with staged(tmp_path, hang, entry={"max_in_flight": 1}) as stage:
        first = asyncio.create_task(stage.gateway.post(PLACE, ORDER))
        await until(lambda: stage.shops[0].ran)

        expect_202(await stage.gateway.post(PLACE, ORDER), stage)
        await stage.gateway.available(availability="busy")
        first.cancel()
        # The client is gone; its call goes on, so the replica is busy still.
        expect_202(await stage.gateway.post(PLACE, ORDER), stage)


async def test_calls_spread_over_the_replicas(tmp_path):
    """Else one replica of many does all the work."""
    async with staged(tmp_path, answer, answer) as stage:
        for _ in range(10):
            assert (await stage.gateway.post(QUOTE, ORDER)).status == 200

        assert [len(one.ran) for one in stage.shops] == [5, 5]


async def test_a_silent_replica_is_left_alone_for_a_while_then_tried_again(tmp_path):
    """Else every call waits for a hung replica's timeout; or it is never used again."""
    hung = True

    async def behave(request, context):
        return await (hang if hung else answer)(request, context)

    async with staged(tmp_path, behave, entry={"timeout_seconds": 0.2}) as stage:
        expect_202(await stage.gateway.post(QUOTE, ORDER), stage)
        assert len(stage.shops[0].ran) == 1

        expect_202(await stage.gateway.post(QUOTE, ORDER), stage)
        assert len(stage.shops[0].ran) == 1
        hung = False
        await stage.gateway.available()
        assert (await stage.gateway.post(QUOTE, ORDER)).status == 200


async def test_a_deadline_that_a_handler_tells_of_is_no_silence(tmp_path):
    """Else one call to a slow backend keeps all calls off a service that answers at once."""
    entry = {"timeout_seconds": 5}
    async with staged(tmp_path, fail(grpc.StatusCode.DEADLINE_EXCEEDED), entry=entry) as stage:
        for _ in range(2):
            expect_202(await stage.gateway.post(QUOTE, ORDER), stage)

        assert len(stage.shops[0].ran) == 2


async def test_a_large_message_is_read_beside_the_loop(tmp_path, monkeypatch):
    """Else one client with one large body stops the gateway for all, for as long as its JSON takes."""
    threads = []
    run = Offload.run

    async def seen(self, work, **more):
        def noted():
            threads.append(threading.get_ident())
            return work()

        return await run(self, noted, **more)

    monkeypatch.setattr(Offload, "run", seen)
    async with staged(tmp_path, answer) as stage:
        assert (await stage.gateway.post(QUOTE, ORDER)).status == 200
        assert threads == []
        assert (await stage.gateway.post(QUOTE, {"items": [{"sku": ""}] * 70_000})).status == 200

    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_a_service_that_returns_is_called_directly_within_a_second(tmp_path):
    """Else it stays invisible for long after it came back."""
    async with staged(tmp_path, answer) as stage:
        port = stage.shops[0].port
        await stage.shops[0].server.stop(None)
        await stage.gateway.available(availability="away")
        expect_202(await stage.gateway.post(QUOTE, ORDER), stage)
        async with serving_shop(answer, port):
            begin = time.monotonic()
            await stage.gateway.available()
            assert time.monotonic() - begin < 1.5
            assert (await stage.gateway.post(QUOTE, ORDER)).status == 200


async def test_the_end_of_an_old_connection_is_no_ones_business(tmp_path, monkeypatch):
    """Servers end connections by their age: each time calls would be kept, or refused, though the service is there."""
    monkeypatch.setattr(servers, "_MAX_CONNECTION_AGE_MS", 100)
    connections = set()

    async def note(request, context):
        connections.add(context.peer())
        return await answer(request, context)

    async with staged(tmp_path, note) as stage:
        seen = set()
        while len(connections) < 20:
            seen.add((await stage.gateway.post(QUOTE, ORDER, Prefer="no-queue")).status)

    assert seen == {200}


@pytest.mark.parametrize(
    ("headers", "longest"),
    [
        ({}, 30),
        ({"Grpc-Timeout": "5S"}, 5),
        ({"Grpc-Timeout": "4500m"}, 4.5),
        ({"Grpc-Timeout": "7000000u"}, 7),
        ({"Connect-Timeout-Ms": "5000"}, 5),
        ({"Connect-Timeout-Ms": "5000", "Grpc-Timeout": "1M"}, 5),
        ({"Grpc-Timeout": "5S", "Prefer": "wait=20"}, 5),
        ({"Grpc-Timeout": "20S", "Prefer": "wait=5"}, 5),
        ({"Grpc-Timeout": "99999999H"}, 30),
        ({"Connect-Timeout-Ms": "9999999999"}, 30),
    ],
)
async def test_the_shortest_time_that_is_asked_for_is_what_the_handler_has(tmp_path, headers, longest):
    """Else handlers work for clients that have given up, or one client has more time than its operator grants."""
    left = []

    async def behave(request, context):
        left.append(context.time_remaining())
        return await answer(request, context)

    async with staged(tmp_path, behave) as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, **headers)

        assert reply.status == 200
        # Deadlines are rounded up on the wire.
        assert longest - 3 < left[0] <= longest + 0.1


@pytest.mark.parametrize("header", [{"Grpc-Timeout": "200m"}, {"Connect-Timeout-Ms": "200"}])
async def test_a_call_whose_clients_time_is_over_ends_as_one_that_timed_out(tmp_path, header):
    """Else a client's deadline is not kept, a call runs twice, or its replica is believed to be silent."""
    async with staged(tmp_path, hang) as stage:
        # It may run again: it is queued. It may not: what became of it is not known. It may not be queued: refused.
        expect_202(await stage.gateway.post(QUOTE, ORDER, **header), stage)
        is_problem(await stage.gateway.post(PLACE, ORDER, **header), 502, "outcome-unknown", "UNKNOWN", PLACE)
        refused = await stage.gateway.post(QUOTE, ORDER, Prefer="no-queue", **header)

        is_problem(refused, 503, "service-away", "UNAVAILABLE", QUOTE)
        assert len(stage.mom.tasks) == 1
        await stage.gateway.available()
