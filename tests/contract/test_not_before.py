"""`Poste-Not-Before`: a call that is kept, and does not run before its time; a real gateway, middleware and Redis."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.cli import environment, poste
from support.driven_office import SUM, Office, running_office
from support.operating import OPERATOR, secret_file
from support.redis_server import RedisServer
from support.rest import is_problem
from support.waiting import until

from calculator.v1 import sum_pb2
from poste.client import Client
from poste.domain.policy import DEFAULT_TASK_TTL_SECONDS, MAX_DELAY_SECONDS

ANSWER = sum_pb2.AddResponse(result=5).SerializeToString()
ADD = {"a": 2, "b": 3}
QUEUE = f"/v1/queues/{SUM}"
HOUR = "3600"


@pytest.fixture
async def office(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Office]:
    token = secret_file(tmp_path / "operator.token")
    async with running_office(own_redis, tmp_path, headers=OPERATOR, operator_token_file=token) as one:
        yield one


async def figures(office: Office) -> tuple[int, int]:
    """How many may run now, and how many not yet."""
    (queue,) = (await office.gateway.get(QUEUE)).body["queues"]
    return queue["queued"], queue["scheduled"]


async def pass_time(office: Office) -> None:
    """Let the time come before which nothing was to run."""
    for key in await office.client.zrange(office.keys.scheduled, 0, -1):
        await office.client.zadd(office.keys.scheduled, {key: 1})


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def is_ahead(task: dict[str, Any], seconds: int) -> bool:
    """Whether a call was put off by so long: its header is read a little before its id is made."""
    ahead = instant(task["notBeforeTime"]) - instant(task["createTime"])
    return abs(ahead.total_seconds() - seconds) < 30


async def test_a_call_for_later_waits_for_its_time_and_then_behind_what_waits(office: Office) -> None:
    """It would run at once; or who puts calls off by a second would have them run before all that wait."""
    reply = await office.gateway.post("/v1/sum", ADD, Poste_Not_Before=HOUR)

    assert reply.status == 202
    assert int(reply.headers["Retry-After"]) in range(3500, 3601)
    place = reply.headers["Location"]
    shown = (await office.gateway.get(place)).body
    assert shown["state"] == "QUEUED"
    assert is_ahead(shown, 3600)
    assert shown["notBeforeTime"] == reply.body["notBeforeTime"]
    for told in (shown, reply.body):
        ttl = instant(told["expireTime"]) - instant(told["notBeforeTime"])
        assert abs(ttl.total_seconds() - DEFAULT_TASK_TTL_SECONDS) < 1
    assert await figures(office) == (0, 1)
    events = (await office.gateway.get(f"{place}/history")).body["events"]
    assert events == [{"time": events[0]["time"], "event": "accepted", "notBeforeTime": shown["notBeforeTime"]}]

    now = await office.waiting()
    await pass_time(office)

    async def due() -> bool:
        return await figures(office) == (2, 0)

    await until(due)
    for path in (now, place):
        said, key, token = await office.claim()
        assert said == "run"
        await office.report(key, token, response=ANSWER)
        assert (await office.gateway.get(path)).body["response"] == {"result": 5}


async def test_a_time_is_an_instant_or_seconds_and_one_that_is_over_is_now(office: Office) -> None:
    """Each client would have to have the one clock, or the one spelling, that happens to be understood."""
    then = datetime.now(UTC) + timedelta(days=2)
    for spelt in (then.isoformat(), then.strftime("%Y-%m-%dT%H:%M:%SZ"), then.strftime("%Y-%m-%dT%H:%M:%S+00:00")):
        shown = (await office.gateway.post("/v1/sum", ADD, Poste_Not_Before=spelt)).body
        assert abs(instant(shown["notBeforeTime"]) - then) < timedelta(seconds=1)
    for over in ("0", "1969-12-31T23:59:59Z", "2001-01-01T00:00:00Z"):
        reply = await office.gateway.post("/v1/sum", ADD, Poste_Not_Before=over)
        assert (reply.status, reply.headers["Retry-After"]) == (202, "1")
    assert await figures(office) == (3, 3)


@pytest.mark.parametrize(
    "wrong", ["", "soon", "-1", "1.5", "2026-01-02T03:04:05", str(MAX_DELAY_SECONDS + 10), "9999-01-01T00:00:00Z"]
)
async def test_what_is_no_time_is_refused(office: Office, wrong: str) -> None:
    """A call whose time was not understood would run at once, or never."""
    reply = await office.gateway.post("/v1/sum", ADD, Poste_Not_Before=wrong)

    is_problem(reply, 400, "invalid-request", "INVALID_ARGUMENT", "/v1/sum")
    assert reply.body["errors"][0]["field"] == "Poste-Not-Before"
    assert await figures(office) == (0, 0)


async def test_a_call_that_is_never_kept_is_not_for_later(office: Office) -> None:
    """It would be taken, and be lost, or run at once."""
    reply = await office.gateway.post("/v1/sum", ADD, Poste_Not_Before=HOUR, Prefer="no-queue")

    is_problem(reply, 400, "invalid-request", "INVALID_ARGUMENT", "/v1/sum")
    assert reply.body["errors"][0]["field"] == "Poste-Not-Before"


async def test_a_call_for_later_is_cancelled_and_one_with_its_key_is_the_same(office: Office) -> None:
    """What is not to run any more would run on its day; a repeat would run a second time, or at once."""
    headers = {"Poste_Not_Before": HOUR, "Idempotency_Key": "k1"}
    first = await office.gateway.post("/v1/sum", ADD, **headers)
    repeat = await office.gateway.post("/v1/sum", ADD, **{**headers, "Poste_Not_Before": "60"})

    assert repeat.headers["Idempotent-Replayed"] == "true"
    assert repeat.body["notBeforeTime"] == first.body["notBeforeTime"]
    assert await figures(office) == (0, 1)
    cancelled = await office.gateway.ask("DELETE", first.headers["Location"])
    assert cancelled.body["state"] == "CANCELLED"
    assert await figures(office) == (0, 0)


async def test_calls_of_a_batch_have_each_their_time(office: Office) -> None:
    """Who plans a day's calls would have to send each by itself."""
    call = {"method": f"{SUM}/Add", "request": ADD}
    calls = [
        call,
        {**call, "notBefore": 3600},
        {**call, "notBefore": "2001-01-01T00:00:00Z"},
        {**call, "notBefore": {}},
    ]
    results = (await office.gateway.post("/v1/tasks:batch", calls)).body["results"]

    assert ["notBeforeTime" in one["task"] for one in results[:3]] == [False, True, True]
    assert results[3]["error"]["errors"][0]["field"] == "notBefore"
    assert await figures(office) == (2, 1)
    # What the header says is for those that say nothing.
    results = (await office.gateway.post("/v1/tasks:batch", calls[:2], Poste_Not_Before="7200")).body["results"]
    assert [is_ahead(one["task"], seconds) for one, seconds in zip(results, (7200, 3600), strict=True)] == [True, True]


async def test_the_age_of_what_waits_is_counted_from_its_time(office: Office) -> None:
    """An alert would wake an operator for a call that was planned a month ago and is due now."""
    await office.gateway.post("/v1/sum", ADD, Poste_Not_Before="100")
    (key,) = (one.decode() for one in await office.client.zrange(office.keys.scheduled, 0, -1))
    now_ms = round(time.time() * 1000)
    await office.client.hset(office.keys.record(key), mapping={"c": now_ms - 86_400_000, "B": now_ms - 1000})
    await pass_time(office)

    async def age() -> Any:
        return (await office.gateway.get(QUEUE)).body["queues"][0]["oldestAgeSeconds"]

    await until(age)
    assert await age() < 3600


async def called(office: Office, *arguments: str) -> Any:
    env = environment(POSTE_URL=office.gateway.url)
    return await asyncio.to_thread(poste, "call", f"{SUM}/Add", *arguments, env=env)


async def test_a_program_and_a_user_say_it_in_their_own_words(office: Office) -> None:
    """The client library or `poste call` could not plan a call."""
    async with Client(office.gateway.url) as client:
        kept = await client.call(f"{SUM}/Add", ADD, not_before=datetime.now(UTC) + timedelta(hours=1))
        task = await client.task(kept.id)
    assert task.not_before_time is not None
    assert task.not_before_time - task.create_time > timedelta(minutes=59)

    said = await called(office, "a=2", "b=3", "--not-before", "2h", "--json")
    assert said.returncode == 3
    assert is_ahead(json.loads(said.stdout), 7200)
    wrong = await called(office, "--not-before", "soon")
    assert (wrong.returncode, "soon" in wrong.stderr) == (2, True)
    assert await figures(office) == (0, 2)
