"""The REST contract, row by row: against a real middleware's port and real services, with a chosen behaviour."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
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
from support.waiting import until

from poste.rpc import servers
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import task_pb2
from poste_gateway import aside

ORDER = {"aDouble": 2.5, "aString": "ä"}
RECEIPT = {"number": "7", "total": 2.5, "note": "ä"}
PLACE = "/v1/orders"
QUOTE = "/v1/quotes"


def is_problem(reply, status: int, name: str, code: str, instance: str | None = None) -> None:
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json"), reply.text
    assert reply.body["type"] == f"/problems/{name}"
    assert reply.body["status"] == status
    assert reply.body["code"] == code
    assert reply.body["title"]
    assert reply.body["detail"]
    if instance is not None:
        assert reply.body["instance"] == instance


async def key_of(stage, reply) -> str:
    return stage.gateway.ids.read(reply.body["id"]).key


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
    """Else the field that the service finds wrong is not told."""
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


def expect_202(reply, stage) -> None:
    assert reply.status == 202, reply.text
    task = reply.body
    assert reply.headers["Location"] == f"/v1/tasks/{task['id']}"
    assert reply.headers["Retry-After"] == "1"
    assert task["state"] == "QUEUED"
    assert (task["service"], task["attempt"]) == (shop.NAME, 0)
    assert {"createTime", "expireTime", "method"} < task.keys()
    assert "response" not in task
    assert "error" not in task
    kept = stage.mom.requests[stage.gateway.ids.read(task["id"]).key]
    assert shop.Order.FromString(kept.request) == shop.Order(a_double=2.5, a_string="ä")
    assert (kept.service, kept.method) == (shop.NAME, task["method"])


@pytest.mark.parametrize("path", [PLACE, QUOTE])
async def test_a_service_that_was_never_there_gets_its_calls_kept(tmp_path, path):
    """Else a call is lost because nobody started the service yet."""
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
    """Else one call to a slow backend keeps everybody's calls off a service that answers at once."""
    entry = {"timeout_seconds": 5}
    async with staged(tmp_path, fail(grpc.StatusCode.DEADLINE_EXCEEDED), entry=entry) as stage:
        for _ in range(2):
            expect_202(await stage.gateway.post(QUOTE, ORDER), stage)

        assert len(stage.shops[0].ran) == 2


async def test_a_large_message_is_read_beside_the_loop(tmp_path, monkeypatch):
    """Else one client with one large body stops the gateway for everybody, for as long as its JSON takes."""
    threads = []
    run = aside.run

    async def seen(work, *args, **more):
        threads.append(await run(threading.get_ident))
        return await run(work, *args, **more)

    monkeypatch.setattr(aside, "run", seen)
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


# Preferences


@pytest.mark.parametrize("path", [PLACE, QUOTE])
async def test_respond_async_is_kept_at_once(tmp_path, path):
    """Else a client that does not want to wait has to."""
    async with staged(tmp_path, answer) as stage:
        reply = await stage.gateway.post(path, ORDER, Prefer="respond-async")

        expect_202(reply, stage)
        assert reply.headers["Preference-Applied"] == "respond-async"
        assert stage.shops[0].ran == []


async def test_a_wait_holds_on_the_direct_road(tmp_path):
    """Else a client that waits 1 s gets its answer after 30."""
    async with staged(tmp_path, hang) as stage:
        begin = time.monotonic()
        reply = await stage.gateway.post(QUOTE, ORDER, Prefer="wait=1")

        expect_202(reply, stage)
        assert reply.headers["Preference-Applied"] == "wait=1"
        assert 1 <= time.monotonic() - begin < 3
        # Its short patience says nothing on the service.
        await stage.gateway.available()
    async with staged(tmp_path, answer) as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, Prefer="wait=1")

        assert (reply.status, reply.body) == (200, RECEIPT)
        assert reply.headers["Preference-Applied"] == "wait=1"


async def complete(stage, **fields) -> None:
    await until(lambda: stage.mom.tasks)
    for key in stage.mom.tasks:
        stage.mom.change(key, **fields)


async def test_a_wait_holds_on_the_durable_road(tmp_path):
    """Else a client has to poll although it said that it would wait."""
    receipt = shop.Receipt(number=7, total=2.5, note="ä").SerializeToString()
    async with staged(tmp_path) as stage:
        call = asyncio.create_task(stage.gateway.post(QUOTE, ORDER, Prefer="wait=20"))
        await complete(stage, state=task_pb2.TASK_STATE_SUCCEEDED, response=receipt)
        reply = await call

        assert (reply.status, reply.body) == (200, RECEIPT)
    async with staged(tmp_path) as stage:
        call = asyncio.create_task(stage.gateway.post(QUOTE, ORDER, Prefer="wait=20"))
        error = status_pb2.Status(code=5, message="no such order")
        await complete(stage, state=task_pb2.TASK_STATE_FAILED, error=error)

        reply = await call
        is_problem(reply, 404, "status-not-found", "NOT_FOUND", QUOTE)
        assert reply.body["detail"] == "no such order"
    async with staged(tmp_path) as stage:
        expect_202(await stage.gateway.post(QUOTE, ORDER, Prefer="wait=1"), stage)


async def test_a_wait_for_a_method_that_cannot_be_repeated_is_spent_at_the_queue(tmp_path):
    """Else its answer is given up in the middle, and nobody knows what became of it."""
    async with staged(tmp_path, answer) as stage:
        call = asyncio.create_task(stage.gateway.post(PLACE, ORDER, Prefer="wait=20"))
        await complete(stage, state=task_pb2.TASK_STATE_SUCCEEDED, response=b"")

        assert (await call).status == 200
        assert stage.shops[0].ran == []
        # A wait beyond the method's own timeout may go direct.
        assert (await stage.gateway.post(PLACE, ORDER, Prefer="wait=40")).status == 200
        assert stage.shops[0].ran == ["Place"]


@pytest.mark.parametrize(
    ("entry", "prefer"), [({}, "no-queue"), ({"away": 2}, ""), ({"away": 2}, "respond-async"), ({"away": 2}, "wait=1")]
)
async def test_a_call_that_may_not_be_kept_is_refused_while_its_service_is_away(tmp_path, entry, prefer):
    """Else a read is answered a day later."""
    async with staged(tmp_path, entry=entry) as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, Prefer=prefer)

        is_problem(reply, 503, "service-away", "UNAVAILABLE", QUOTE)
        assert reply.headers["Retry-After"]
        assert "respond-async" not in reply.headers.get("Preference-Applied", "")
        assert stage.mom.tasks == {}
    async with staged(tmp_path, answer, entry=entry) as stage:
        assert (await stage.gateway.post(QUOTE, ORDER, Prefer=prefer)).status == 200


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Prefer", "wait=x"),
        ("Prefer", "wait=-1"),
        ("Prefer", "wait"),
        ("Prefer", "wait=1.5"),
        ("Prefer", 'wait="5'),
        ("Prefer", "respond-async, wait=\u0665"),
        ("Poste-Task-TTL", "0"),
        ("Poste-Task-TTL", "2592001"),
        ("Poste-Task-TTL", "x"),
        ("Poste-Task-TTL", "1.5"),
        ("Poste-Task-TTL", "1, 2"),
        ("Poste-Task-TTL", "+5"),
        ("Poste-Result-TTL", "-1"),
        ("Poste-Result-TTL", "9" * 5000),
        ("Poste-Result-TTL", ""),
    ],
)
async def test_a_bad_header_is_refused_by_name_on_either_road(tmp_path, header, value):
    """Else a typing error shows first on the day that the service is away."""
    for behaviours in ((), (answer,)):
        async with staged(tmp_path, *behaviours) as stage:
            reply = await stage.gateway.post(QUOTE, ORDER, **{header: value})

            is_problem(reply, 400, "invalid-request", "INVALID_ARGUMENT", QUOTE)
            assert [error["field"] for error in reply.body["errors"]] == [header]
            assert stage.mom.tasks == {}


async def test_times_to_live_go_with_the_call(tmp_path):
    """Else a client's TTL is not kept."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, Poste_Task_TTL="60", Poste_Result_TTL="2592000")
        default = await stage.gateway.post(QUOTE, ORDER)

        kept = stage.mom.requests[await key_of(stage, reply)]
        assert (kept.task_ttl_seconds, kept.result_ttl_seconds) == (60, 2592000)
        kept = stage.mom.requests[await key_of(stage, default)]
        assert (kept.task_ttl_seconds, kept.result_ttl_seconds) == (86400, 3600)


# The durable road's answers


async def test_a_lost_acceptance_is_asked_for_again_under_the_same_key(tmp_path):
    """Else one lost reply is two tasks, or an error for a call that is kept."""
    async with staged(tmp_path) as stage:
        stage.mom.losses = [True, False, True]
        expect_202(await stage.gateway.post(PLACE, ORDER), stage)

        assert len(stage.mom.tasks) == 1
        stage.mom.results = [pb.ENQUEUE_RESULT_UNKNOWN, pb.ENQUEUE_RESULT_UNKNOWN]
        expect_202(await stage.gateway.post(PLACE, ORDER), stage)


async def test_an_acceptance_that_stays_unknown_is_told_as_that(tmp_path):
    """Else 'nothing was accepted' is a lie now and then."""
    async with staged(tmp_path) as stage:
        stage.mom.losses = [True] * 1000
        begin = time.monotonic()
        reply = await stage.gateway.post(PLACE, ORDER)

        is_problem(reply, 502, "acceptance-unknown", "UNKNOWN", PLACE)
        assert time.monotonic() - begin < 10
        found = await stage.gateway.get(reply.headers["Location"])
        assert (found.status, found.body["state"]) == (200, "QUEUED")


async def test_an_acceptance_that_was_unknown_is_decided_in_the_end(tmp_path):
    """Else a client never learns that it may repeat its call, or is told of a loss where nothing was lost."""
    async with staged(tmp_path) as stage:
        stage.mom.losses = [False] * 1000
        place = (await stage.gateway.post(PLACE, ORDER)).headers["Location"]

        stage.mom.clock_ahead_seconds = 0
        early = await stage.gateway.get(place)
        is_problem(early, 502, "acceptance-unknown", "UNKNOWN")
        assert early.headers["Retry-After"]
        stage.mom.clock_ahead_seconds = 40
        is_problem(await stage.gateway.get(place), 404, "not-kept", "NOT_FOUND")
        stage.mom.clock_ahead_seconds = 4000
        late = await stage.gateway.get(place)
        is_problem(late, 410, "gone", "NOT_FOUND")
        assert "was not accepted, or" in late.body["detail"]


async def test_a_loss_followed_by_a_refusal_is_unknown_still(tmp_path):
    """Else a call that the first, lost answer accepted is told to be refused, and the client repeats it."""
    async with staged(tmp_path) as stage:
        stage.mom.losses = [False]
        stage.mom.results = [pb.ENQUEUE_RESULT_QUEUE_FULL]

        is_problem(await stage.gateway.post(PLACE, ORDER), 502, "acceptance-unknown", "UNKNOWN")


@pytest.mark.parametrize(
    ("result", "name", "code"),
    [
        (pb.ENQUEUE_RESULT_QUEUE_FULL, "queue-full", "RESOURCE_EXHAUSTED"),
        (pb.ENQUEUE_RESULT_CLOCK_OFF, "not-accepted", "UNAVAILABLE"),
        (pb.ENQUEUE_RESULT_STORE_UNAVAILABLE, "not-accepted", "UNAVAILABLE"),
        (pb.ENQUEUE_RESULT_NOT_CATALOGUED, "not-accepted", "UNAVAILABLE"),
    ],
)
async def test_a_call_that_is_not_kept_is_refused_and_says_so(tmp_path, result, name, code):
    """Else a client believes in a call that nobody has."""
    async with staged(tmp_path) as stage:
        stage.mom.results = [result] * 1000
        reply = await stage.gateway.post(PLACE, ORDER)

        is_problem(reply, 503, name, code, PLACE)
        assert reply.headers["Retry-After"]
        assert "nothing was accepted" in reply.body["detail"].lower()
        assert "Location" not in reply.headers


@pytest.mark.parametrize("kind", ["gone", "cut off"])
async def test_with_no_one_to_keep_it_nothing_is_accepted(tmp_path, kind):
    """Else the client waits for ever, or is told a lie."""
    mom = FakeMom(shop.entry())
    async with contextlib.AsyncExitStack() as stack:
        serving = serving_mom(mom)
        port = await serving.__aenter__()
        gateway = await stack.enter_async_context(running_gateway(tmp_path, port))
        task = await gateway.post(PLACE, ORDER)
        if kind == "gone":
            await serving.__aexit__(None, None, None)
        else:
            mom.away = True
        # A look can be lost with the connection and do no harm; a call lost so would rightly be said to be unknown.
        is_problem(await gateway.get(task.headers["Location"]), 503, "lookup-away", "UNAVAILABLE")
        begin = time.monotonic()
        reply = await gateway.post(PLACE, ORDER)

        is_problem(reply, 503, "not-accepted", "UNAVAILABLE", PLACE)
        assert "Nothing was accepted" in reply.body["detail"]
        assert time.monotonic() - begin < 5
        is_problem(await gateway.ask("DELETE", task.headers["Location"]), 503, "lookup-away", "UNAVAILABLE")
        is_problem(await gateway.get("/v1/queues"), 503, "lookup-away", "UNAVAILABLE")
        services = (await gateway.get("/v1/services")).body["services"]
        assert [(one["name"], one["queued"]) for one in services] == [(shop.NAME, None)]
        assert (await gateway.get("/readyz")).status == 200
        if kind == "gone":
            await stack.enter_async_context(serving_mom(mom, port))
        mom.away = False

        async def kept() -> bool:
            return (await gateway.post(PLACE, ORDER)).status == 202

        await until(kept)


async def test_a_call_goes_direct_though_the_middleware_is_away(tmp_path):
    """Else the post office takes the services down with it."""
    async with staged(tmp_path, answer) as stage:
        stage.mom.away = True

        assert (await stage.gateway.post(QUOTE, ORDER)).status == 200


async def test_calls_that_wait_go_together(tmp_path):
    """Else every kept call costs an RPC, and the durable road is four times slower."""
    async with staged(tmp_path) as stage:
        stage.mom.gate.clear()
        calls = [asyncio.create_task(stage.gateway.post(PLACE, ORDER)) for _ in range(60)]
        # All but what went with the first RPCs waits.
        await asyncio.sleep(0.5)
        stage.mom.gate.set()
        replies = await asyncio.gather(*calls)

        assert {reply.status for reply in replies} == {202}
        assert len({reply.body["id"] for reply in replies}) == 60
        assert len(stage.mom.batches) <= 10


async def test_a_client_that_leaves_does_not_undo_its_call(tmp_path):
    """Else an accepted call vanishes with its connection."""
    async with staged(tmp_path) as stage:
        stage.mom.gate.clear()
        call = asyncio.create_task(stage.gateway.post(PLACE, ORDER))
        await asyncio.sleep(0.2)
        call.cancel()
        stage.mom.gate.set()

        await until(lambda: len(stage.mom.tasks) == 1)


# Tasks


async def test_a_task_tells_its_life(tmp_path):
    """Else a client can't see what became of its call."""
    receipt = shop.Receipt(number=7, total=2.5, note="ä").SerializeToString()
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, Poste_Task_TTL="60")
        place, key = reply.headers["Location"], await key_of(stage, reply)

        queued = await stage.gateway.get(place)
        assert (queued.status, queued.headers["Cache-Control"]) == (200, "no-store")
        assert queued.body == reply.body
        assert queued.body["createTime"].endswith("Z")
        stage.mom.change(key, state=task_pb2.TASK_STATE_RUNNING, attempt=1)
        running = await stage.gateway.get(place)
        assert (running.body["state"], running.body["attempt"]) == ("RUNNING", 1)
        stage.mom.change(key, state=task_pb2.TASK_STATE_SUCCEEDED, response=receipt)
        for _ in range(3):
            ended = await stage.gateway.get(place)
            assert (ended.body["state"], ended.body["response"]) == ("SUCCEEDED", RECEIPT)
            assert "error" not in ended.body


async def test_a_failed_task_has_the_error_of_the_direct_road(tmp_path):
    """Else a client has to know two kinds of errors."""
    status = status_pb2.Status(code=9, message="closed on sundays")
    async with staged(tmp_path, fail_richly(status)) as stage:
        direct = await stage.gateway.post(PLACE, ORDER)
        reply = await stage.gateway.post(PLACE, ORDER, Prefer="respond-async")
        stage.mom.change(await key_of(stage, reply), state=task_pb2.TASK_STATE_FAILED, error=status)

        task = (await stage.gateway.get(reply.headers["Location"])).body
        assert task["state"] == "FAILED"
        assert task["error"] == {**direct.body, "instance": reply.headers["Location"]}


@pytest.mark.parametrize(
    ("reason", "name", "problem"),
    [
        (task_pb2.DEAD_REASON_ATTEMPTS, "attempts", "status-unavailable"),
        (task_pb2.DEAD_REASON_CRASHES, "crashes", "status-unavailable"),
        (task_pb2.DEAD_REASON_OUTCOME_UNKNOWN, "outcome-unknown", "outcome-unknown"),
    ],
)
async def test_a_dead_task_says_why(tmp_path, reason, name, problem):
    """Else an operator can't tell a poisonous call from a flaky service."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(PLACE, ORDER)
        error = status_pb2.Status(code=14, message="gave up")
        stage.mom.tasks[await key_of(stage, reply)].ClearField("expire_time")
        stage.mom.change(await key_of(stage, reply), state=task_pb2.TASK_STATE_DEAD, dead_reason=reason, error=error)

        task = (await stage.gateway.get(reply.headers["Location"])).body
        assert (task["state"], task["reason"], task["error"]["type"]) == ("DEAD", name, f"/problems/{problem}")
        assert "expireTime" not in task


async def test_a_task_that_ends_without_an_answer_is_not_to_be_asked_for_again(tmp_path):
    """Else a client that waited is told to come back for what will never change."""
    async with staged(tmp_path) as stage:
        call = asyncio.create_task(stage.gateway.post(QUOTE, ORDER, Prefer="wait=20"))
        await complete(stage, state=task_pb2.TASK_STATE_EXPIRED)
        reply = await call

        assert (reply.status, reply.body["state"]) == (202, "EXPIRED")
        assert "Retry-After" not in reply.headers


async def test_a_wait_in_vain_is_not_begun_anew(tmp_path):
    """A middleware that is cut off would make a client wait several times as long as it said."""
    async with staged(tmp_path) as stage:
        place = (await stage.gateway.post(PLACE, ORDER)).headers["Location"]
        stage.mom.silent = True
        found = await stage.gateway.get(place, Prefer="wait=1")

        assert (found.status, found.body["state"]) == (200, "QUEUED")
        assert [wait > 0 for wait in stage.mom.waits] == [True, False]


async def test_a_look_can_wait_for_the_end(tmp_path):
    """Else clients poll."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(PLACE, ORDER)
        place, key = reply.headers["Location"], await key_of(stage, reply)
        look = asyncio.create_task(stage.gateway.get(place, Prefer="wait=30"))
        await asyncio.sleep(0.2)
        assert not look.done()
        stage.mom.change(key, state=task_pb2.TASK_STATE_EXPIRED)

        seen = await look
        assert (seen.body["state"], seen.headers["Preference-Applied"]) == ("EXPIRED", "wait=30")
        is_problem(await stage.gateway.get(place, Prefer="wait=x"), 400, "invalid-request", "INVALID_ARGUMENT")


async def test_a_look_survives_the_middlewares_absence(tmp_path):
    """Else a restart of the middleware breaks every long poll."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(PLACE, ORDER)
        look = asyncio.create_task(stage.gateway.get(reply.headers["Location"], Prefer="wait=3"))
        await asyncio.sleep(0.2)
        stage.mom.away = True
        stage.mom._wake()

        assert (await look).body["state"] == "QUEUED"


async def test_long_polls_end_when_the_gateway_stops(tmp_path):
    """Else a stop takes as long as the longest poll."""
    mom = FakeMom(shop.entry())
    async with serving_mom(mom) as port:
        async with running_gateway(tmp_path, port) as gateway:
            reply = await gateway.post(PLACE, ORDER)
            session, gateway.session = gateway.session, type(gateway.session)()
            look = asyncio.create_task(gateway.get(reply.headers["Location"], Prefer="wait=50"))
            await asyncio.sleep(0.3)
            begin = time.monotonic()
            await session.close()
        seen = await look
        await gateway.session.close()
        assert (seen.status, seen.body["state"]) == (200, "QUEUED")
        assert time.monotonic() - begin < 10


async def test_cancelling(tmp_path):
    """Else a call that is not wanted any more is run all the same."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(PLACE, ORDER)
        place = reply.headers["Location"]
        for _ in range(2):
            cancelled = await stage.gateway.ask("DELETE", place)
            assert (cancelled.status, cancelled.body["state"]) == (200, "CANCELLED")
        reply = await stage.gateway.post(PLACE, ORDER)
        place, key = reply.headers["Location"], await key_of(stage, reply)
        stage.mom.change(key, state=task_pb2.TASK_STATE_RUNNING)
        asked = await stage.gateway.ask("DELETE", place)
        assert (asked.status, asked.body["state"], asked.body["cancelRequested"]) == (200, "RUNNING", True)
        stage.mom.change(key, state=task_pb2.TASK_STATE_SUCCEEDED, response=b"")
        late = await stage.gateway.ask("DELETE", place)
        is_problem(late, 409, "task-ended", "FAILED_PRECONDITION", place)
        assert "SUCCEEDED" in late.body["detail"]


async def test_the_status_never_lies(tmp_path):
    """Else 'not found' means lost, expired, or never sent."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(PLACE, ORDER, Poste_Result_TTL="60")
        place = reply.headers["Location"]
        stage.mom.tasks.clear()
        for verb in ("GET", "DELETE"):
            is_problem(await stage.gateway.ask(verb, place), 500, "record-lost", "DATA_LOSS", place)
        stage.mom.clock_ahead_seconds = 61
        for verb in ("GET", "DELETE"):
            is_problem(await stage.gateway.ask(verb, place), 410, "gone", "NOT_FOUND", place)
        changed = place[:-1] + ("A" if place[-1] != "A" else "B")
        for path in (changed, place + "=", place + "x", "/v1/tasks/x", "/v1/tasks/a/b", "/v1/tasks/%00", "/v1/tasks/ä"):
            for verb in ("GET", "DELETE"):
                is_problem(await stage.gateway.ask(verb, path), 404, "no-such-task", "NOT_FOUND")


async def test_ids_of_another_key_were_never_issued(tmp_path):
    """Else anybody can make ids up."""
    (tmp_path / "other").mkdir()
    async with staged(tmp_path / "other") as other:
        reply = await other.gateway.post(PLACE, ORDER)
    async with staged(tmp_path) as stage:
        is_problem(await stage.gateway.get(reply.headers["Location"]), 404, "no-such-task", "NOT_FOUND")


# What else the gateway answers


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
                oldest_age_seconds=1.5,
                consumers=1,
                enqueued=9,
                ended=4,
            ),
            pb.Queue(name="old.Service"),
        ]
        [service] = (await stage.gateway.get("/v1/services")).body["services"]
        assert (service["name"], service["availability"], service["queued"]) == (shop.NAME, "up", 4)
        assert service["replicas"] == {"ready": 1, "known": 1}
        assert [one["name"] for one in service["methods"]] == ["Place", "Put", "Quote", "Get", "Want"]
        assert service["methods"][2] == {
            "name": "Quote",
            "path": "/shop.v1.OrderService/Quote",
            "routes": ["POST /shop.v1.OrderService/Quote", "POST /v1/quotes"],
            "idempotent": True,
            "away": "queue",
            "timeoutSeconds": 30,
        }
        assert not service["methods"][0]["idempotent"]

        queues = (await stage.gateway.get("/v1/queues")).body["queues"]
        expected = {
            "queue": shop.NAME,
            "service": shop.NAME,
            "queued": 3,
            "running": 2,
            "delayed": 1,
            "dead": 4,
            "oldestAgeSeconds": 1.5,
            "paused": False,
            "consumers": 1,
            "enqueued": 9,
            "ended": 4,
        }
        assert queues[1] == expected
        assert queues[0]["oldestAgeSeconds"] is None
        assert (await stage.gateway.get(f"/v1/queues/{shop.NAME}")).body == {"queues": [expected]}
        is_problem(await stage.gateway.get("/v1/queues/none.Such"), 404, "no-such-queue", "NOT_FOUND")


@pytest.mark.parametrize(
    ("path", "verbs"),
    [
        (PLACE, "POST, OPTIONS"),
        ("/shop.v1.OrderService/Place", "POST, OPTIONS"),
        ("/v1/tasks/x", "GET, DELETE, HEAD, OPTIONS"),
        ("/v1/services", "GET, HEAD, OPTIONS"),
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
        "/v1/orders/5",
        "/v1/tasks",
        "/v1/tasks/",
        "//v1/orders",
        "/shop.v1.OrderService/Follow",
        "/shop.v1.OrderService",
        "/problems/none",
    ],
)
async def test_an_unknown_path_is_404(tmp_path, path):
    """Else a typing error looks like something else."""
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
        for body in (b"", b"\xff", b"[]", b"{", b'{"aDouble": 1, "aDouble": 2}', b'{"aDouble": NaN}', b"[" * 900):
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
    """Else any web page may call the services of whoever looks at it."""
    preflight = {"Origin": "https://a.example", "Access_Control_Request_Method": "POST"}
    async with staged(tmp_path, answer) as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, Origin="https://a.example")
        assert "Access-Control-Allow-Origin" not in reply.headers
    async with staged(tmp_path, answer, cors_origins="https://a.example, https://b.example") as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, Origin="https://a.example")
        assert reply.headers["Access-Control-Allow-Origin"] == "https://a.example"
        assert "Location" in reply.headers["Access-Control-Expose-Headers"]
        other = await stage.gateway.post(QUOTE, ORDER, Origin="https://evil.example")
        assert "Access-Control-Allow-Origin" not in other.headers
        asked = await stage.gateway.ask("OPTIONS", QUOTE, **preflight)
        assert (asked.status, asked.headers["Access-Control-Allow-Methods"]) == (204, "POST")
        assert "Prefer" in asked.headers["Access-Control-Allow-Headers"]
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
    """Else nobody sees that calls go to the queue, and why."""
    async with staged(tmp_path) as stage:
        await stage.gateway.post(PLACE, ORDER)
        await stage.gateway.post("/nowhere/at/all", ORDER)
        text = (await stage.gateway.get("/metrics")).text

        assert f'poste_failovers_total{{reason="away",service="{shop.NAME}"}}' in text
        assert 'outcome="QUEUED",road="durable"' in text
        assert "nowhere" not in text
        assert 'poste_call_seconds_count{road="durable"' in text
