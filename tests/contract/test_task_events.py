"""`GET /v1/tasks/{id}/events`: a task is followed without polling; a real gateway, middleware and Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from google.rpc import status_pb2
from support.driven_office import Office, running_office
from support.gateway import Gateway, running_gateway
from support.operating import OPERATOR
from support.redis_server import RedisServer
from support.rest import is_problem
from support.waiting import until

from calculator.v1 import sum_pb2
from poste.domain.codes import Code

ANSWER = sum_pb2.AddResponse(result=5).SerializeToString()


class Event(NamedTuple):
    """An event as `EventSource` would give it."""

    id: str
    name: str
    data: Any


@pytest.fixture
async def office(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Office]:
    async with running_office(own_redis, tmp_path, headers=OPERATOR, max_waits=1) as one:
        yield one


@contextlib.asynccontextmanager
async def following(gateway: Gateway, place: str, **headers: str) -> AsyncIterator[AsyncIterator[Event]]:
    """Follow a task; yields its events, as they come."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        asyncio.timeout(20),
        # Of its own: that of a gateway which stops is closed before.
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.url}{place}/events", headers=sent) as response,
    ):
        assert (response.status, response.content_type) == (200, "text/event-stream")

        async def events() -> AsyncIterator[Event]:
            fields: dict[str, str] = {}
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif fields.get("data"):
                    yield Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
                    fields = {}

        yield events()


async def all_of(gateway: Gateway, place: str, **headers: str) -> list[Event]:
    async with following(gateway, place, **headers) as events:
        return [event async for event in events]


async def test_a_task_is_followed_from_its_acceptance_to_its_result(office: Office) -> None:
    """A client would have to poll to know what becomes of its call, or would miss an attempt."""
    place = await office.waiting()
    async with following(office.gateway, place) as events:
        assert (await anext(events)).name == "accepted"
        _, key, token = await office.claim()
        started = await anext(events)
        assert (started.name, started.data["attempt"]) == ("started", 1)
        await office.report(key, token, error=status_pb2.Status(code=Code.UNAVAILABLE), method="Add")
        retried = await anext(events)
        assert (retried.name, retried.data["code"]) == ("retried", "UNAVAILABLE")
        _, key, token = await office.claim_retry()
        await office.report(key, token, response=ANSWER)
        rest = [event async for event in events]

    assert [event.name for event in rest] == ["started", "ended"]
    shown = (await office.gateway.get(place)).body
    assert (rest[-1].data["state"], rest[-1].data["task"]) == ("SUCCEEDED", shown)
    history = (await office.gateway.get(f"{place}/history")).body["events"]
    assert [event.data for event in await all_of(office.gateway, place)][:-1] == history[:-1]


async def test_a_stream_goes_on_where_it_was_left_at_another_gateway(office: Office, tmp_path: Path) -> None:
    """A client whose gateway was restarted would have all events twice, or miss one."""
    place = await office.waiting()
    async with following(office.gateway, place) as events:
        accepted = await anext(events)
    _, key, token = await office.claim()
    port = int(office.mom.target.rpartition(":")[2])
    async with running_gateway(tmp_path, port) as other, following(other, place, Last_Event_ID=accepted.id) as events:
        started = await anext(events)
        assert started.name == "started"
        await office.report(key, token, response=ANSWER)
        last = [event async for event in events]
        assert [event.name for event in last] == ["ended"]

    seen = [accepted, started, *last]
    assert seen == await all_of(office.gateway, place)
    assert await all_of(office.gateway, place, Last_Event_ID=started.id) == last
    done = await office.gateway.get(f"{place}/events", Last_Event_ID=last[0].id)
    assert (done.status, done.body) == (204, None)


async def test_a_gateway_that_stops_ends_its_streams(office: Office, tmp_path: Path) -> None:
    """A gateway would wait for its grace to be over, or its client for ever."""
    place = await office.waiting()
    port = int(office.mom.target.rpartition(":")[2])
    async with contextlib.AsyncExitStack() as stack:
        other = await stack.enter_async_context(running_gateway(tmp_path, port))
        async with following(other, place) as events:
            await anext(events)
            stopping = asyncio.create_task(stack.aclose())
            assert [event async for event in events] == []
        await stopping


async def test_followers_are_bounded_and_give_their_places_back(office: Office) -> None:
    """One client could take all places of those that wait; or those of clients that left would be lost for good."""
    place = await office.waiting()
    async with following(office.gateway, place) as events:
        await anext(events)
        is_problem(await office.gateway.get(f"{place}/events"), 503, "gateway-busy", "RESOURCE_EXHAUSTED")

    async def has_room() -> bool:
        return (await office.gateway.get(place, Prefer="wait=1")).status == 200

    await until(has_room)


async def test_what_can_not_be_followed_is_told_before_anything_is_sent(office: Office) -> None:
    """A client would read a stream of nothing."""
    place = await office.waiting()
    is_problem(await office.gateway.get("/v1/tasks/none/events"), 404, "no-such-task", "NOT_FOUND")
    wrong = await office.gateway.get(f"{place}/events", Last_Event_ID="yesterday")
    is_problem(wrong, 400, "invalid-request", "INVALID_ARGUMENT")
    assert wrong.body["errors"] == [{"field": "Last-Event-ID", "reason": "must be the id of an event of this task"}]


async def test_a_record_that_is_lost_meanwhile_is_told(office: Office) -> None:
    """A client would follow for ever a task that there is no more."""
    place = await office.waiting()
    async with following(office.gateway, place) as events:
        await anext(events)
        await office.forget()
        (last,) = [event async for event in events]

    assert (last.name, last.data["type"]) == ("problem", "/problems/record-lost")
    assert last.data["instance"] == place


async def test_the_time_to_a_calls_turn_is_measured(office: Office) -> None:
    """A client would be told to ask again in a second, however long the queue is."""
    place = [await office.waiting() for _ in range(40)][-1]

    async def told() -> bool:
        _, key, token = await office.claim()
        await office.report(key, token, response=ANSWER)
        # A pace that can be measured: all at once would be over before it is.
        await asyncio.sleep(0.2)
        return int((await office.gateway.get(place)).headers["Retry-After"]) > 1

    await until(told)
    assert int((await office.gateway.post("/v1/sum", {"a": 1, "b": 2})).headers["Retry-After"]) > 1
