"""`Idempotency-Key` by REST: what is answered to a call that has one, and to each that has the same."""

from __future__ import annotations

import asyncio
import functools
import time

import pytest
from google.rpc import status_pb2
from support import shop
from support.driven_office import running_office
from support.gateway import answer, fail_richly, staged
from support.rest import ORDER, PLACE, QUOTE, RECEIPT, complete, expect_202, is_problem, key_of
from support.waiting import until

from poste.v1 import mom_service_pb2 as pb
from poste.v1 import task_pb2

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
OTHER = {**ORDER, "aString": "another"}
RESPONSE = shop.Receipt(number=7, total=2.5, note="ä").SerializeToString()


async def test_a_call_with_a_key_is_kept_though_its_service_is_up(tmp_path):
    """Else a run whose answer is lost is on no record, and its repeat runs it again."""
    async with staged(tmp_path, answer) as stage:
        call = asyncio.create_task(stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY))
        await complete(stage, state=task_pb2.TASK_STATE_SUCCEEDED, response=RESPONSE)
        reply = await call

        assert (reply.status, reply.body) == (200, RECEIPT)
        assert "Idempotent-Replayed" not in reply.headers
        assert stage.shops[0].ran == []


async def test_the_client_of_a_call_whose_service_is_away_does_not_wait(tmp_path):
    """Else it hangs for the method's whole timeout, where without a key it has the task at once."""
    async with staged(tmp_path) as stage:
        async with asyncio.timeout(10):
            reply = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY)

        expect_202(reply, stage)


async def test_a_repeat_is_answered_from_the_first_ones_record(tmp_path):
    """Else a client that repeats a call for want of an answer has it run twice, or never gets the answer."""
    async with staged(tmp_path) as stage:
        first = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY)
        queued = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=f'"{KEY}"', Poste_Result_TTL="60")
        stage.mom.change(await key_of(stage, first), state=task_pb2.TASK_STATE_RUNNING, attempt=1)
        running = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY)
        unwaited = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY, Prefer="respond-async")
        waiting = asyncio.create_task(stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY, Prefer="wait=20"))
        await until(lambda: any(stage.mom.waits))
        await complete(stage, state=task_pb2.TASK_STATE_SUCCEEDED, response=RESPONSE)
        ended = [await waiting, await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY)]

        assert first.status == queued.status == unwaited.status == 202
        assert first.body == queued.body
        assert unwaited.body["state"] == "RUNNING"
        is_problem(running, 409, "idempotency-key-in-use", "ABORTED", PLACE)
        place = first.headers["Location"]
        assert {one.headers["Location"] for one in (queued, running, unwaited)} == {place}
        assert {(one.status, one.text) for one in ended} == {(200, ended[0].text)}
        assert ended[0].body == RECEIPT
        assert {one.headers.get("Idempotent-Replayed") for one in (queued, unwaited, *ended)} == {"true"}
        assert "Idempotent-Replayed" not in first.headers
        assert len(stage.mom.tasks) == 1


async def test_an_error_is_replayed_as_an_answer_is(tmp_path):
    """Else a repeat of what failed gets another answer than the first call did, or runs again."""
    status = status_pb2.Status(code=9, message="closed on sundays")
    async with staged(tmp_path, fail_richly(status)) as stage:
        direct = await stage.gateway.post(PLACE, ORDER)
        call = asyncio.create_task(stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY))
        await complete(stage, state=task_pb2.TASK_STATE_FAILED, error=status)
        first, repeat = await call, await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY)

        assert first.body == repeat.body == direct.body
        assert ("Idempotent-Replayed" in first.headers, repeat.headers["Idempotent-Replayed"]) == (False, "true")


async def test_an_unknown_outcome_is_said_to_each_that_asks_again(tmp_path):
    """Else the second one runs what may have run: what a key is to prevent."""
    async with staged(tmp_path) as stage:
        first = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY)
        dead = {"state": task_pb2.TASK_STATE_DEAD, "dead_reason": task_pb2.DEAD_REASON_OUTCOME_UNKNOWN}
        stage.mom.change(await key_of(stage, first), **dead)
        repeat = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY)

        assert (repeat.status, repeat.body["id"], repeat.body["reason"]) == (202, first.body["id"], "outcome-unknown")
        assert repeat.body["error"]["type"] == "/problems/outcome-unknown"
        assert "Retry-After" not in repeat.headers


async def test_a_key_names_one_request_of_one_method(tmp_path):
    """Else a client that mixes its keys up is answered for another call, or calls of two methods meet."""
    async with staged(tmp_path) as stage:
        await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY)
        other = await stage.gateway.post(PLACE, OTHER, Idempotency_Key=KEY)
        method = await stage.gateway.post(QUOTE, OTHER, Idempotency_Key=KEY)
        spelt = await stage.gateway.post(PLACE, {"a_string": "ä", "a_double": 2.5}, Idempotency_Key=KEY)

        is_problem(other, 422, "idempotency-key-reused", "INVALID_ARGUMENT", PLACE)
        assert method.status == 202
        assert "Idempotent-Replayed" not in method.headers
        assert spelt.headers["Idempotent-Replayed"] == "true"
        assert len(stage.mom.tasks) == 2


async def test_calls_that_come_at_once_have_one_task(tmp_path):
    """Else two that race, in one batch or in two, both run."""
    async with staged(tmp_path) as stage:
        replies = await asyncio.gather(
            *(stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY, Prefer="respond-async") for _ in range(20))
        )

        assert {reply.status for reply in replies} == {202}
        assert len({reply.headers["Location"] for reply in replies}) == 1
        assert sum("Idempotent-Replayed" not in reply.headers for reply in replies) == 1


async def test_a_lost_answer_of_the_middleware_is_no_other_call(tmp_path):
    """Else a call that was confirmed late is answered as another's repeat, or as unknown though it is known."""
    async with staged(tmp_path) as stage:
        stage.mom.losses = [True]
        first = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY)
        stage.mom.losses = [False]
        repeat = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY)
        stage.mom.losses = [False]
        other = await stage.gateway.post(PLACE, OTHER, Idempotency_Key=KEY)

        expect_202(first, stage)
        assert "Idempotent-Replayed" not in first.headers
        assert (repeat.status, repeat.headers["Idempotent-Replayed"]) == (202, "true")
        assert other.status == 422


async def test_a_key_whose_record_is_gone_names_a_new_call(tmp_path, own_redis):
    """Else the id of the old task is answered with the new one's state and events, and cancels it."""
    async with running_office(own_redis, tmp_path) as office:
        ask = functools.partial(office.gateway.ask, "POST", "/v1/sum", {"a": 2, "b": 3}, Idempotency_Key=KEY)
        old = await ask(Poste_Result_TTL="1")
        assert (await ask()).headers["Location"] == old.headers["Location"]
        await office.forget()
        # Until then its record counts as lost.
        created = office.gateway.ids.read(old.body["id"]).create_ms
        await until(lambda: time.time() * 1000 > created + 1000)
        new = await ask()
        place = old.headers["Location"]
        replies = [await office.gateway.ask(verb, place) for verb in ("GET", "DELETE")]
        replies += [await office.gateway.get(place + path) for path in ("/history", "/events")]
        replies.append(await office.gateway.get(place, Prefer="wait=1"))

        assert await key_of(office, new) == await key_of(office, old)
        assert new.headers["Location"] != place
        for reply in replies:
            is_problem(reply, 410, "gone", "NOT_FOUND")
        assert (await office.gateway.get(new.headers["Location"])).body["state"] == "QUEUED"


@pytest.mark.parametrize(
    "value", ["", '""', '"', "a b", "a,b", 'a"b', '"a"b', '"a";b=1', "x" * 256, "ü", '"a\\b"', "a;b"]
)
async def test_a_key_that_is_none_is_named(tmp_path, value):
    """Else a client believes that its call has a key."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=value)

        is_problem(reply, 400, "invalid-request", "INVALID_ARGUMENT", PLACE)
        assert [one["field"] for one in reply.body["errors"]] == ["Idempotency-Key"]
        assert stage.mom.tasks == {}


@pytest.mark.parametrize(("entry", "prefer"), [({}, "no-queue"), ({"away": 2}, "")])
async def test_a_call_that_is_never_kept_can_have_no_key(tmp_path, entry, prefer):
    """Else it runs directly, and a repeat runs it again."""
    async with staged(tmp_path, answer, entry=entry) as stage:
        reply = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY, Prefer=prefer)

        is_problem(reply, 400, "invalid-request", "INVALID_ARGUMENT", PLACE)
        assert "is kept" in reply.body["detail"]
        assert stage.shops[0].ran == []


@pytest.mark.parametrize("library", [True, False])
async def test_nothing_runs_while_no_record_can_be_written(tmp_path, library):
    """Else what ran then is forgotten, and a repeat runs it again: by the catalogue, or by what is newer there."""
    async with staged(tmp_path, answer, entry={"library": library}) as stage:
        stage.mom.results = [pb.ENQUEUE_RESULT_NO_CONSUMER]
        reply = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY)

        is_problem(reply, 503, "service-away", "UNAVAILABLE", PLACE)
        assert stage.shops[0].ran == []


async def test_a_method_may_require_a_key(tmp_path):
    """Else a client that knows nothing of keys makes payments that it can't repeat."""
    methods = {"Place": {"requires_idempotency_key": True}}
    async with staged(tmp_path, answer, entry={"methods": methods}) as stage:
        without = await stage.gateway.post(PLACE, ORDER)
        other_method = await stage.gateway.post(QUOTE, ORDER)
        given = await stage.gateway.post(PLACE, ORDER, Idempotency_Key=KEY, Prefer="respond-async")
        of_many = await stage.gateway.post(
            "/v1/tasks:batch",
            [{"method": f"{shop.NAME}/Place"}, {"method": f"{shop.NAME}/Place", "idempotencyKey": "b"}],
        )
        listed = (await stage.gateway.get("/v1/services")).body["services"][0]["methods"]

        is_problem(without, 400, "invalid-request", "INVALID_ARGUMENT", PLACE)
        assert without.body["errors"][0]["field"] == "Idempotency-Key"
        assert (other_method.status, given.status) == (200, 202)
        refused, kept = of_many.body["results"]
        assert refused["error"]["errors"][0]["field"] == "idempotencyKey"
        assert kept["task"]["state"] == "QUEUED"
        assert {one["name"] for one in listed if one["requiresIdempotencyKey"]} == {"Place"}
        assert stage.shops[0].ran == ["Quote"]
