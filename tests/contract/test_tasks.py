"""Tasks by REST: what is said of a call that was kept, until its record's time is over."""

from __future__ import annotations

import asyncio
import time

import pytest
from google.rpc import status_pb2
from support import shop
from support.gateway import (
    FakeMom,
    fail_richly,
    running_gateway,
    serving_mom,
    staged,
)
from support.rest import ORDER, PLACE, QUOTE, RECEIPT, complete, is_problem, key_of
from support.waiting import until

from poste.v1 import task_pb2


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
    """Else an operator can't distinguish a poisonous call from a flaky service."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(PLACE, ORDER)
        error = status_pb2.Status(code=14, message="gave up")
        stage.mom.tasks[await key_of(stage, reply)].ClearField("expire_time")
        stage.mom.change(await key_of(stage, reply), state=task_pb2.TASK_STATE_DEAD, dead_reason=reason, error=error)

        task = (await stage.gateway.get(reply.headers["Location"])).body
        assert (task["state"], task["reason"], task["error"]["type"]) == ("DEAD", name, f"/problems/{problem}")
        assert "expireTime" not in task


async def test_a_task_that_ends_without_an_answer_is_not_to_be_asked_for_again(tmp_path):
    """Else a client that waited is asked to come back for what will never change."""
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
        await until(lambda: any(wait > 0 for wait in stage.mom.waits))
        assert not look.done()
        stage.mom.change(key, state=task_pb2.TASK_STATE_EXPIRED)

        seen = await look
        assert (seen.body["state"], seen.headers["Preference-Applied"]) == ("EXPIRED", "wait=30")
        # What can't be understood is passed over.
        assert "Preference-Applied" not in (await stage.gateway.get(place, Prefer="wait=x")).headers


async def test_a_look_survives_the_middlewares_absence(tmp_path):
    """Else a restart of the middleware breaks every long poll."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(PLACE, ORDER)
        look = asyncio.create_task(stage.gateway.get(reply.headers["Location"], Prefer="wait=3"))
        await until(lambda: any(wait > 0 for wait in stage.mom.waits))
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
            await until(lambda: any(wait > 0 for wait in mom.waits))
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
    """Else any client can make ids up."""
    (tmp_path / "other").mkdir()
    async with staged(tmp_path / "other") as other:
        reply = await other.gateway.post(PLACE, ORDER)
    async with staged(tmp_path) as stage:
        is_problem(await stage.gateway.get(reply.headers["Location"]), 404, "no-such-task", "NOT_FOUND")


async def test_when_to_ask_again_is_the_time_to_the_calls_turn(tmp_path):
    """Else a client asks a hundred times for what takes minutes, or finds its result hours later."""
    async with staged(tmp_path) as stage:
        stage.mom.turns = {shop.NAME: 41.2}
        reply = await stage.gateway.post(PLACE, ORDER)
        assert (reply.status, reply.headers["Retry-After"]) == (202, "42")
        place, key = reply.headers["Location"], await key_of(stage, reply)
        stage.mom.change(key, turn_seconds=7.0)
        assert (await stage.gateway.get(place)).headers["Retry-After"] == "7"
        stage.mom.change(key, turn_seconds=1e9)
        assert (await stage.gateway.get(place)).headers["Retry-After"] == "3600"
        # It is not known any more: a pause, by how long it has waited.
        stage.mom.turns = {}
        assert (await stage.gateway.post(PLACE, ORDER)).headers["Retry-After"] == "1"
        stage.mom.tasks[key].ClearField("turn_seconds")
        created = int(time.time()) - 200
        stage.mom.tasks[key].create_time.FromSeconds(created)
        assert 20 <= int((await stage.gateway.get(place)).headers["Retry-After"]) < 30
        stage.mom.tasks[key].create_time.FromSeconds(created - 10_000)
        assert (await stage.gateway.get(place)).headers["Retry-After"] == "60"
        stage.mom.change(key, state=task_pb2.TASK_STATE_RUNNING, attempt=1)
        assert (await stage.gateway.get(place)).headers["Retry-After"] == "1"
        stage.mom.change(key, state=task_pb2.TASK_STATE_CANCELLED)
        assert "Retry-After" not in (await stage.gateway.get(place)).headers


async def test_a_wait_ends_when_there_is_no_record_any_more(tmp_path):
    """It would ask again at once, thousands of times in a second, for as long as its client waits."""
    async with staged(tmp_path) as stage:
        reply = await stage.gateway.post(QUOTE, ORDER, Prefer="respond-async")
        looking = asyncio.create_task(stage.gateway.get(reply.headers["Location"], Prefer="wait=30"))
        calling = asyncio.create_task(stage.gateway.post(QUOTE, ORDER, Prefer="respond-async, wait=30"))
        await until(lambda: len(stage.mom.waits) == 2 and len(stage.mom.tasks) == 2)
        stage.mom.tasks.clear()
        stage.mom._wake()
        async with asyncio.timeout(10):
            is_problem(await looking, 500, "record-lost", "DATA_LOSS", reply.headers["Location"])
            called = await calling

        assert called.status == 202
        assert len(stage.mom.waits) == 2
