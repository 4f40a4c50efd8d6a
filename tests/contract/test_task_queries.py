"""`GET /v1/tasks`: tasks of all queues, found by a filter; a real gateway, middleware and Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from support.cli import environment, poste
from support.driven_office import SUM, Office, running_office
from support.keyring import Keyring
from support.operating import OPERATOR, secret_file
from support.redis_server import RedisServer
from support.registering import been_up
from support.rest import is_problem

from poste_gateway.access.identity import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")
OTHER = "calculator.v1.SubtractionService"
ADD, SUBTRACT = f"{SUM}/Add", f"{OTHER}/Subtract"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def office(own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    """Two queues: one call that failed, one that is cancelled, two that wait, one of them for later."""
    folder: Path = tmp_path_factory.mktemp("queries")
    token = secret_file(folder / "operator.token")
    async with running_office(own_redis, folder, headers=OPERATOR, operator_token_file=token) as one:
        await been_up(one.mom.target, OTHER)
        await one.gateway.available(name=OTHER, availability="away", queueable=True)
        one.folder = folder  # type: ignore[attr-defined]
        await one.failed()
        await one.gateway.ask("DELETE", await one.waiting())
        for method, key in ((ADD, "k-1"), (SUBTRACT, "k-2")):
            call = {"method": method, "request": {"a": 2, "b": 1}, "idempotencyKey": key}
            later = {"notBefore": 3600} if method == ADD else {}
            assert (await one.gateway.post("/v1/tasks:batch", [{**call, **later}])).status == 200
        yield one


async def found(office: Office, text: str, *, headers: Mapping[str, str] = {}, **more: str) -> list[dict[str, Any]]:
    """All pages of what a filter finds."""
    tasks: list[dict[str, Any]] = []
    token = ""
    while True:
        query = urlencode({"filter": text, "pageToken": token, **more})
        reply = await office.gateway.get(f"/v1/tasks?{query}", **headers)
        assert reply.status == 200, reply.text
        tasks += reply.body["tasks"]
        token = reply.body["nextPageToken"]
        if not token:
            return tasks


async def test_a_page_is_what_the_document_says(office: Office):
    """A client that is made from it could not find tasks, or would be given fields that it does not know."""
    document = (await office.gateway.get("/openapi.json")).body
    page = (await office.gateway.get("/v1/tasks?pageSize=1", **OPERATOR)).body
    names = {one["$ref"].rpartition("/")[2] for one in document["paths"]["/v1/tasks"]["get"]["parameters"]}
    schemas = document["components"]["schemas"]
    task = schemas["poste-Task"]
    told = task["properties"].keys() | schemas["poste-FoundTasks"]["properties"]["tasks"]["items"]["properties"].keys()

    assert {document["components"]["parameters"][name]["name"] for name in names} == {"filter", "pageSize", "pageToken"}
    assert page.keys() == set(schemas["poste-FoundTasks"]["required"])
    listed = await found(office, "")
    assert listed
    assert [one for one in listed if not set(task["required"]) <= one.keys() <= told] == []


async def states(office: Office, text: str) -> list[str]:
    return sorted(f"{one['method']} {one['state']}" for one in await found(office, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["Add CANCELLED", "Add FAILED", "Add QUEUED", "Subtract QUEUED"]),
        ("state = QUEUED", ["Add QUEUED", "Subtract QUEUED"]),
        ("state = FAILED OR state=CANCELLED", ["Add CANCELLED", "Add FAILED"]),
        (f'service = "{OTHER}"', ["Subtract QUEUED"]),
        ("method = Add AND state = QUEUED OR state = FAILED", ["Add FAILED", "Add QUEUED"]),
        ("state = QUEUED AND state = FAILED", []),
        ('endTime > "2001-01-01T00:00:00Z"', ["Add CANCELLED", "Add FAILED"]),
        ('createTime < "2001-01-01T00:00:00Z"', []),
        ("notBeforeTime>=2001-01-01T00:00:00Z", ["Add QUEUED"]),
        (f"service = {SUM} AND method = Add AND idempotencyKey = k-1", ["Add QUEUED"]),
        (f"service = {SUM} AND method = Add AND idempotencyKey = k-1 AND state = FAILED", []),
        (f"service = {SUM} AND method = Add AND idempotencyKey = k-2", []),
    ],
)
async def test_a_filter_finds_what_it_says_in_all_queues(office: Office, text: str, expected: list[str]) -> None:
    """Who looks for calls would have to ask each queue, and get more or less than was meant."""
    assert await states(office, text) == expected


async def test_pages_have_each_task_once_and_its_own_id(office: Office) -> None:
    """A list of many would be cut off, or what it names could not be read."""
    tasks = await found(office, "", pageSize="1")

    assert len({one["id"] for one in tasks}) == len(tasks) == 4
    for one in tasks:
        assert (await office.gateway.get(f"/v1/tasks/{one['id']}")).body["state"] == one["state"]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "state",
            "state = ",
            "= FAILED",
            "state FAILED",
            "state = FAILED AND",
            "AND state = FAILED",
            "(state = FAILED)",
        ),
        *("state = failed", "size = 1", "state < FAILED", "state = FAILED OR method = Add", "createTime < yesterday"),
        *('method = "Add', "state = FAILED state = QUEUED", 'method = ""', "idempotencyKey = k", "state = = FAILED"),
        *("createTime < 2001-01-01T00:00:00Z OR createTime > 2002-01-01T00:00:00Z", "x" * 2001, "\\", "reason = why"),
        *("service = not-a-name", "client = ä", f"client = {'x' * 261}"),
    ],
)
async def test_what_is_no_filter_is_refused(office: Office, text: str) -> None:
    """A filter that was misread would find other tasks than were meant."""
    reply = await office.gateway.get(f"/v1/tasks?{urlencode({'filter': text})}")

    is_problem(reply, 400, "invalid-request", "INVALID_ARGUMENT", "/v1/tasks")
    assert reply.body["errors"][0]["field"] == "filter"


@pytest.mark.parametrize("token", ["x", "1.2", "1.x.0", "9" * 30 + ".0.0", "-1.0.0", "1.-1.0"])
async def test_what_is_no_page_token_is_refused(office: Office, token: str) -> None:
    """A search would begin anew, or fail with an error of Poste's own."""
    reply = await office.gateway.get(f"/v1/tasks?pageToken={token}")

    is_problem(reply, 400, "invalid-request", "INVALID_ARGUMENT", "/v1/tasks")


async def test_tasks_are_shown_to_operators_alone(office: Office) -> None:
    """Who has a task's id can read and cancel it: a list of them is a list of keys."""
    reply = await office.gateway.get("/v1/tasks", Authorization="Bearer guessed")

    assert reply.status == 401


async def test_a_user_lists_tasks_of_all_queues(office: Office) -> None:
    """They would have to ask each queue in turn."""
    token = str(office.folder / "operator.token")  # type: ignore[attr-defined]
    env = environment(POSTE_URL=office.gateway.url, POSTE_OPERATOR_TOKEN_FILE=token)

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(poste, "tasks", *arguments, env=env)

    said = await run("--filter", "state = QUEUED", "--json")
    assert [one["method"] for one in json.loads(said.stdout)] == ["Add", "Subtract"]
    shown = (await run()).stdout
    assert all(word in shown for word in (ADD, SUBTRACT, "FAILED", "ACCEPTED"))
    assert (await run("--filter", "state = RUNNING")).stdout == "no call matches\n"
    assert [(await run(*wrong)).returncode for wrong in (("--state", "FAILED"), (SUM, "--filter", ""))] == [2, 2]


async def test_a_client_finds_its_own_and_whoever_looks_all(own_redis: RedisServer, tmp_path: Path) -> None:
    """A list of others' ids would be a list of what one may read and cancel."""
    ring = Keyring(tmp_path / "client.keys")
    ann, bob, eve = ring.add("ann"), ring.add("bob"), ring.add("eve", Role.READ, Role.LOOK)
    everything = ring.add("all", *Role)
    async with running_office(own_redis, tmp_path, client_keys_file=ring.path, headers=everything) as office:
        for who, key in ((ann, "k-1"), (ann, "k-2"), (bob, "k-1")):
            headers = {"Prefer": "respond-async", "Idempotency_Key": key, **who}
            assert (await office.gateway.post("/v1/sum", {"a": 1, "b": 2}, **headers)).status == 202
        keyed = f"service = {SUM} AND method = Add AND idempotencyKey = k-1"

        async def count(who: Mapping[str, str], text: str) -> int:
            return len(await found(office, text, headers=who))

        assert [await count(who, "") for who in (ann, bob, eve)] == [2, 1, 3]
        assert [await count(who, "client = ann") for who in (ann, bob, eve)] == [2, 0, 2]
        assert [await count(who, keyed) for who in (ann, bob, eve)] == [1, 1, 0]
        assert await count(eve, f"{keyed} AND client = bob") == 1
        (mine,) = await found(office, "", headers=bob)
        assert (await office.gateway.get(f"/v1/tasks/{mine['id']}", **bob)).status == 200
        assert (await office.gateway.get("/v1/tasks", Authorization="Bearer guessed")).status == 401
