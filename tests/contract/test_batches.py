"""Many calls in one request: a real gateway, a real middleware, a real Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import shop
from support.cli import environment, poste
from support.driven_office import SUM, running_office
from support.gateway import Gateway, Stage, staged
from support.operating import OPERATOR
from support.redis_server import RedisServer
from support.rest import is_problem
from support.waiting import until

from poste.client import Client, batches
from poste_gateway.http import preferences
from poste_gateway.http.forwarded_headers import ForwardedHeaders

OTHER = "calculator.v1.SubtractionService"
ADD = f"{SUM}/Add"
BATCH = "/v1/tasks:batch"
#: By its size, and by its commas, it may be many.
LARGE_CALL = {"method": f"{shop.NAME}/Place", "request": {"aString": "," * 1000}}


@pytest.fixture
async def gateway(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Gateway]:
    """One whose services are away, and were up once; but for the other, which never was."""
    async with running_office(own_redis, tmp_path, headers=OPERATOR) as office:
        yield office.gateway


def add(a: Any = "1", b: Any = "2", **more: Any) -> dict[str, Any]:
    return {"method": ADD, "request": {"a": a, "b": b}, **more}


async def batch(gateway: Gateway, calls: Any, **headers: str) -> Any:
    return await gateway.post(BATCH, calls, **headers)


def outcomes(results: Any) -> list[str]:
    """Of each result the task's state, or the problem's name."""
    return [one["task"]["state"] if "task" in one else one["error"]["type"].rpartition("/")[2] for one in results]


async def test_each_call_is_told_in_its_place_what_became_of_it(gateway: Gateway) -> None:
    """One wrong call among thousands would keep all of them out, or nobody could tell which it was."""
    calls = [
        add(),
        {"method": f"{SUM}/No", "request": {}},
        add(a="x"),
        "no call",
        add(size=1),
        {"method": f"{OTHER}/Subtract", "request": {"a": "1", "b": "2"}},
        add(a="3"),
    ]
    reply = await batch(gateway, calls)

    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    results = reply.body["results"]
    assert outcomes(results) == [
        *("QUEUED", "no-such-route", "invalid-request", "invalid-request", "invalid-request"),
        *("service-away", "QUEUED"),
    ]
    assert results[2]["error"]["errors"][0]["field"] == "a"
    assert results[4]["error"]["errors"][0]["field"] == "size"
    for place in (0, 6):
        task = results[place]["task"]
        read = (await gateway.get(f"/v1/tasks/{task['id']}")).body
        assert (read["service"], read["method"], read["state"]) == (SUM, "Add", "QUEUED")
    called = (await gateway.get(f"/v1/tasks/{results[6]['task']['id']}/call")).body
    assert called["request"] == {"a": 3, "b": 2}
    assert (await gateway.get(f"/v1/queues/{SUM}")).body["queues"][0]["queued"] == 2


async def test_lines_are_answered_by_lines(gateway: Gateway) -> None:
    """A program that writes calls as it makes them has no array; one broken line is that call's trouble alone."""
    lines = [json.dumps(add()), "{broken", "", json.dumps(add()), '{"method": "a", "method": "b"}']
    body = "\n".join(lines).encode()
    reply = await batch(gateway, body, Content_Type="application/x-ndjson")

    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/x-ndjson")
    results = [json.loads(line) for line in reply.text.splitlines()]
    assert outcomes(results) == ["QUEUED", "invalid-request", "QUEUED", "invalid-request"]


async def test_what_is_no_batch_is_refused_whole(gateway: Gateway) -> None:
    """Some of it could be kept, and no answer say so."""
    is_problem(await batch(gateway, {"calls": []}), 400, "invalid-request", "INVALID_ARGUMENT")
    is_problem(await batch(gateway, [add()], Idempotency_Key="k"), 400, "invalid-request", "INVALID_ARGUMENT")
    is_problem(await batch(gateway, [add()], Prefer="no-queue"), 400, "invalid-request", "INVALID_ARGUMENT")
    is_problem(await batch(gateway, [1] * 10_001), 400, "invalid-request", "INVALID_ARGUMENT")
    is_problem(await batch(gateway, b"[]", Content_Type="text/plain"), 415, "not-json", "INVALID_ARGUMENT")
    assert (await gateway.get(BATCH)).status == 405
    assert (await batch(gateway, [])).body == {"results": []}
    assert (await gateway.get(f"/v1/queues/{SUM}")).body["queues"][0]["queued"] == 0


async def test_a_batch_that_is_sent_again_keeps_nothing_twice(gateway: Gateway) -> None:
    """Its answer may be lost: without a name for each call its client could only guess."""
    calls = [add(idempotencyKey=f"key-{number}") for number in range(3)]
    first = (await batch(gateway, calls)).body["results"]
    again = (await batch(gateway, [*calls, add(a="9", idempotencyKey="key-0")])).body["results"]

    assert [one["task"]["id"] for one in again[:3]] == [one["task"]["id"] for one in first]
    assert [one.get("replayed") for one in again[:3]] == [True] * 3
    assert again[3]["error"]["type"] == "/problems/idempotency-key-reused"
    assert (await gateway.get(f"/v1/queues/{SUM}")).body["queues"][0]["queued"] == 3


async def test_an_empty_key_is_a_wrong_one(gateway: Gateway) -> None:
    """A program whose keys are empty by mistake would be told that its calls are safe to send again."""
    results = (await batch(gateway, [add(idempotencyKey=""), add(idempotencyKey=None), add()])).body["results"]

    assert outcomes(results) == ["invalid-request", "invalid-request", "QUEUED"]
    assert [one["error"]["errors"][0]["field"] for one in results[:2]] == ["idempotencyKey"] * 2


async def test_headers_are_read_once_for_all_calls_of_a_method(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long `Prefer` read for each of 10,000 calls kept all other clients waiting for seconds."""

    def spied(owner: Any, name: str) -> list[Any]:
        real, came = getattr(owner, name), list[Any]()

        def read(*arguments: Any, **named: Any) -> Any:
            came.append(arguments)
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, read)
        return came

    preferences_read, headers_read = spied(preferences, "read"), spied(ForwardedHeaders, "read")
    calls = [add(idempotencyKey=f"once-{number}") if number % 2 else add() for number in range(600)]
    reply = await batch(gateway, calls, Prefer=",".join("a" * 400), Grpc_Metadata_Kind="a")

    assert outcomes(reply.body["results"]) == ["QUEUED"] * 600
    assert len(preferences_read) == 1
    # By the rules of what goes on, and of what of that is kept.
    assert 1 <= len(headers_read) <= 2


async def test_ten_thousand_calls_are_kept_and_others_are_served_meanwhile(gateway: Gateway) -> None:
    """The middleware would get one call after the other, or all at once, and no other client its turn."""

    async def all_of_them() -> Any:
        return await batch(gateway, [add(a=str(number)) for number in range(10_000)], Poste_Task_TTL="600")

    batching = asyncio.create_task(all_of_them())
    other = await gateway.post("/v1/sum", {"a": 2, "b": 3}, Prefer="respond-async")
    assert other.status == 202
    reply = await batching
    results = reply.body["results"]
    assert set(outcomes(results)) == {"QUEUED"}
    assert len({one["task"]["id"] for one in results}) == 10_000
    assert (await gateway.get(f"/v1/queues/{SUM}")).body["queues"][0]["queued"] == 10_001


async def test_nothing_is_said_to_be_kept_that_is_not(own_redis: RedisServer, tmp_path: Path) -> None:
    """Each of its calls would be waited for as long as one, or be taken for kept."""
    async with running_office(own_redis, tmp_path) as office:
        await office.mom.stop()
        reply = await batch(office.gateway, [add()] * 600 + ["no call"])
    assert set(outcomes(reply.body["results"][:600])) == {"not-accepted"}
    assert outcomes(reply.body["results"][600:]) == ["invalid-request"]


async def held(stage: Stage) -> list[asyncio.Future[Any]]:
    """Have as many large batches wait at the middleware, whose gate is closed, as are worked on at once."""
    under_way = [asyncio.ensure_future(batch(stage.gateway, [LARGE_CALL])) for _ in range(2)]
    await until(lambda: stage.mom.knocks == 2, what="two batches at the middleware")
    return under_way


async def test_few_batches_are_worked_on_at_once_and_clients_take_turns(tmp_path: Path) -> None:
    """All at once they would take all memory; in the order that they came one client would keep out all."""
    async with staged(tmp_path) as stage:
        stage.mom.gate.clear()
        under_way = await held(stage)
        # Of as many calls as there may be, and no JSON: they are read only when it is their turn.
        heavy = b"[%b]" % (b"," * 10_000)
        many = [asyncio.ensure_future(batch(stage.gateway, heavy)) for _ in range(30)]
        done, waiting = await asyncio.wait(many, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            is_problem(one.result(), 503, "gateway-busy", "RESOURCE_EXHAUSTED")
        # A small one has not to wait for those.
        assert (await batch(stage.gateway, [])).body == {"results": []}
        async with stage.gateway.other("127.0.0.2") as other:
            another = asyncio.ensure_future(batch(other, [LARGE_CALL]))
            stage.mom.gate.set()
            assert outcomes((await another).body["results"]) == ["QUEUED"]
        for one in under_way:
            assert outcomes((await one).body["results"]) == ["QUEUED"]
        statuses = [one.status for one in await asyncio.gather(*waiting)]
        assert statuses.count(400) > 2
        assert set(statuses) <= {400, 503}


async def test_no_batch_waits_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the middleware is slow, batches would wait until long after their clients had gone."""
    monkeypatch.setattr("poste_gateway.calls.batch._PATIENCE_SECONDS", 0.01)
    async with staged(tmp_path) as stage:
        stage.mom.gate.clear()
        under_way = await held(stage)
        is_problem(await batch(stage.gateway, [LARGE_CALL]), 503, "gateway-busy", "RESOURCE_EXHAUSTED")
        stage.mom.gate.set()
        assert [outcomes((await one).body["results"]) for one in under_way] == [["QUEUED"]] * 2
        assert outcomes((await batch(stage.gateway, [LARGE_CALL])).body["results"]) == ["QUEUED"]


async def test_what_is_left_is_not_sent_once_answers_are_lost(tmp_path: Path) -> None:
    """Each part of it would be asked about for as long as the first, and its client learn of nothing meanwhile."""
    async with staged(tmp_path) as stage:
        stage.mom.losses = [False] * 1000
        reply = await batch(stage.gateway, [{"method": f"{shop.NAME}/Place", "request": {"aDouble": 1}}] * 600)

    results = reply.body["results"]
    assert outcomes(results) == ["acceptance-unknown"] * 512 + ["not-accepted"] * 88
    assert all(one["location"].startswith("/v1/tasks/") for one in results[:512])


async def test_whatever_a_call_is_it_gets_an_answer(gateway: Gateway) -> None:
    """One client's oddities would be a defect of the gateway, and the other calls' answers be lost."""
    odd = [
        None,
        7,
        [],
        {},
        {"method": 7},
        {"method": ADD, "request": None},
        {"method": ADD, "request": [1]},
        {"method": ADD, "request": {"a": "\ud800", "b": "2"}},
        {"method": ADD, "request": {}, "\ud800": 1},
        {"method": "\ud800/\ud800"},
        {"method": ADD, "idempotencyKey": 7},
        {"method": ADD, "idempotencyKey": "\ud800"},
        {"method": ADD, "idempotencyKey": "\n"},
        {"method": ADD, "idempotencyKey": "k" * 300},
        add(idempotencyKey='a "named" call, and its \\ too'),
    ]
    reply = await batch(gateway, json.dumps(odd).encode())

    results = reply.body["results"]
    assert reply.status == 200
    assert all(one["error"]["status"] in (400, 404) for one in results[:-1])
    assert outcomes(results[-1:]) == ["QUEUED"]


async def test_a_program_has_thousands_kept_and_hears_of_each(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have to divide them, and find out by itself which answer is which call's."""
    monkeypatch.setattr(batches, "_MOST_CALLS", 2)
    calls = [add(idempotencyKey="k"), add(a="x"), add(a="3"), add(idempotencyKey="k"), {"method": f"{SUM}/No"}]
    async with Client(gateway.url) as client:
        kept = [one async for one in client.keep_many(calls, task_ttl_seconds=60)]
        assert [one async for one in client.keep_many([])] == []

    assert [one.call for one in kept] == calls
    assert [one.error is None for one in kept] == [True, False, True, True, False]
    assert (kept[3].task_id, kept[3].replayed) == (kept[0].task_id, True)
    assert kept[4].error is not None
    assert kept[4].error["type"] == "/problems/no-such-route"
    read = (await gateway.get(f"/v1/tasks/{kept[2].task_id}")).body
    assert (await gateway.get("/v1/services")).status == 200
    assert read["state"] == "QUEUED"


async def test_a_user_has_the_calls_of_a_file_kept(gateway: Gateway, tmp_path: Path) -> None:
    """They would have to write a program for what is a list."""
    file = tmp_path / "calls.ndjson"
    env = environment(POSTE_URL=gateway.url)

    async def run(content: str, *options: str) -> Any:
        file.write_text(content)
        return await asyncio.to_thread(poste, "keep", str(file), *options, env=env)

    said = await run(f"{json.dumps(add())}\n\n{json.dumps(add(a='x'))}\n")
    assert (said.returncode, said.stdout.count("\n")) == (1, 2)
    task_id, wrong = said.stdout.splitlines()
    assert (await gateway.get(f"/v1/tasks/{task_id}")).body["state"] == "QUEUED"
    assert wrong.startswith("not kept: ")
    assert (await run(json.dumps(add()), "--json")).returncode == 0
    for wrong in ("no call", '{"a": NaN}', "[]"):
        refused = await run(f"{json.dumps(add())}\n{wrong}\n")
        assert (refused.returncode, "line 2" in refused.stderr) == (2, True)
