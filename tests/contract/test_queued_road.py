"""The queued road by REST: what a client may wish for, and what it is answered about the keeping of its call."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from google.rpc import status_pb2
from support import shop
from support.gateway import (
    FakeMom,
    answer,
    hang,
    running_gateway,
    serving_mom,
    staged,
)
from support.keyring import Keyring
from support.rest import ORDER, PLACE, QUOTE, RECEIPT, complete, expect_202, is_problem, key_of
from support.waiting import until

from poste.runtime import metrics
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import task_pb2

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


async def test_a_wait_holds_on_the_queued_road(tmp_path):
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


async def test_a_wait_may_end_once_the_call_is_queued(tmp_path):
    """A client that is ended while it waits would have lost the id of a call that is kept."""
    wish = "wait=20, respond-when-queued"
    async with staged(tmp_path) as stage:
        async with asyncio.timeout(10):
            reply = await stage.gateway.post(QUOTE, ORDER, Prefer=wish)

        expect_202(reply, stage)
        assert reply.headers["Preference-Applied"] == wish
    async with staged(tmp_path, answer) as stage:
        assert (await stage.gateway.post(QUOTE, ORDER, Prefer=wish)).status == 200


async def test_a_wait_for_a_method_that_cannot_be_repeated_is_spent_at_the_queue(tmp_path):
    """Else its answer is given up in the middle, and its outcome is unknown."""
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
        ("Poste-Task-TTL", "0"),
        ("Poste-Task-TTL", "2592001"),
        ("Poste-Task-TTL", "x"),
        ("Poste-Task-TTL", "1.5"),
        ("Poste-Task-TTL", "1, 2"),
        ("Poste-Task-TTL", "+5"),
        ("Poste-Result-TTL", "-1"),
        ("Poste-Result-TTL", "9" * 5000),
        ("Poste-Result-TTL", ""),
        ("Grpc-Timeout", "5"),
        ("Grpc-Timeout", "0S"),
        ("Grpc-Timeout", "123456789S"),
        ("Grpc-Timeout", "1.5S"),
        ("Grpc-Timeout", "5s"),
        ("Grpc-Timeout", ""),
        ("Connect-Timeout-Ms", "0"),
        ("Connect-Timeout-Ms", "-1"),
        ("Connect-Timeout-Ms", "5S"),
        ("Connect-Timeout-Ms", "9" * 11),
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


# The queued road's answers


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
    """Else a client does not learn that it may repeat its call, or is sent the word of a loss that was none."""
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


@pytest.mark.parametrize("result", [pb.ENQUEUE_RESULT_QUEUE_FULL, pb.ENQUEUE_RESULT_OVER_QUOTA])
async def test_a_loss_followed_by_a_refusal_is_unknown_still(tmp_path, result):
    """Else a call that the first, lost answer accepted is reported as refused, and the client repeats it."""
    ring = Keyring(tmp_path / "client.keys")
    key = ring.add("few", max_waiting_calls=1)
    async with staged(tmp_path, client_keys_file=ring.path, headers=key) as stage:
        stage.mom.losses = [False]
        stage.mom.results = [result]

        is_problem(await stage.gateway.post(PLACE, ORDER), 502, "acceptance-unknown", "UNKNOWN")


@pytest.mark.parametrize(
    ("result", "name", "code"),
    [
        (pb.ENQUEUE_RESULT_QUEUE_FULL, "queue-full", "RESOURCE_EXHAUSTED"),
        (pb.ENQUEUE_RESULT_CLOCK_OFF, "not-accepted", "UNAVAILABLE"),
        (pb.ENQUEUE_RESULT_STORE_UNAVAILABLE, "not-accepted", "UNAVAILABLE"),
        (pb.ENQUEUE_RESULT_NOT_CATALOGUED, "not-accepted", "UNAVAILABLE"),
        (pb.ENQUEUE_RESULT_BAD_QUOTA, "not-accepted", "UNAVAILABLE"),
    ],
)
async def test_a_call_that_is_not_kept_is_refused_and_says_so(tmp_path, result, name, code):
    """Else a client believes that a call is kept which is not."""
    async with staged(tmp_path) as stage:
        stage.mom.results = [result] * 1000
        reply = await stage.gateway.post(PLACE, ORDER)

        is_problem(reply, 503, name, code, PLACE)
        assert reply.headers["Retry-After"]
        assert "nothing was accepted" in reply.body["detail"].lower()
        assert "Location" not in reply.headers


async def test_a_call_outlasts_the_exchange_of_who_keeps_it(tmp_path):
    """Else each new version of the middleware or its store costs calls: its new place takes a second or two to find."""
    async with staged(tmp_path) as stage:
        # Asked for again after 50 ms each time: more than a second, and less than three.
        stage.mom.results = [pb.ENQUEUE_RESULT_STORE_UNAVAILABLE] * 22

        assert (await stage.gateway.post(PLACE, ORDER)).status == 202


@pytest.mark.parametrize("kind", ["gone", "cut off"])
async def test_with_no_one_to_keep_it_nothing_is_accepted(tmp_path, kind):
    """Else the client waits for ever, or reads what is not true."""
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
        # A read can be lost with the connection and do no harm; a call lost so would rightly be said to be unknown.
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
    """Else every kept call costs an RPC, and the queued road is four times slower."""
    async with staged(tmp_path) as stage:
        stage.mom.gate.clear()
        count = metrics.failovers(shop.NAME, "away")._value
        before = count.get()
        calls = [asyncio.create_task(stage.gateway.post(PLACE, ORDER)) for _ in range(60)]
        # All but what went with the first RPCs waits.
        await until(lambda: count.get() == before + 60)
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
        await until(lambda: stage.mom.knocks == 1)
        call.cancel()
        stage.mom.gate.set()

        await until(lambda: len(stage.mom.tasks) == 1)
