"""`Poste-Callback`: the end of a kept call is told to its client's URL; a real gateway, middleware and Redis."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from google.rpc import status_pb2
from support.cli import environment, poste
from support.driven_office import SUM, Office, running_office
from support.gateway import answer, staged
from support.operating import OPERATOR, secret_file
from support.receiver import Receiver, receiving
from support.redis_server import RedisServer
from support.rest import ORDER, PLACE, is_problem
from support.waiting import until

from calculator.v1 import sum_pb2
from poste.domain.codes import Code
from poste.domain.policy import CALLBACK_KEPT_SECONDS, DEFAULT_RESULT_TTL_SECONDS

ANSWER = sum_pb2.AddResponse(result=5).SerializeToString()
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
LOOPBACK = (ip_network("127.0.0.0/8"),)
QUEUE = f"/v1/queues/{SUM}"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@contextlib.asynccontextmanager
async def calling(
    server: RedisServer, folder: Path, receiver: Receiver, networks: Any = LOOPBACK
) -> AsyncIterator[Office]:
    async with running_office(
        server,
        folder,
        headers=OPERATOR,
        operator_token_file=secret_file(folder / "operator.token"),
        callback_origins=(receiver.origin,),
        callback_secret_file=secret_file(folder / "webhook.secret", SECRET),
        callback_networks=networks,
    ) as office:
        yield office


@pytest.fixture
async def office(own_redis: RedisServer, tmp_path: Path, receiver: Receiver) -> AsyncIterator[Office]:
    async with calling(own_redis, tmp_path, receiver) as one:
        yield one


async def told(receiver: Receiver, count: int = 1) -> None:
    await until(lambda: len(receiver.messages) >= count, what=f"{count} messages are posted")


async def figures(office: Office) -> tuple[int, int]:
    (queue,) = (await office.gateway.get(QUEUE)).body["queues"]
    return queue["callbacks"], queue["undelivered"]


async def settled(office: Office, callbacks: int, undelivered: int) -> None:
    async def so() -> bool:
        return await figures(office) == (callbacks, undelivered)

    await until(so, what=f"{callbacks} callbacks are due and {undelivered} undelivered")


async def test_an_end_is_told_and_told_again_until_it_was_taken(office: Office, receiver: Receiver) -> None:
    """A client that does not wait would never know; one whose receiver is down for a moment neither."""
    receiver.answers = [500, 302]
    place = await office.waiting(Poste_Callback=receiver.url)
    _, key, token = await office.claim()
    await office.report(key, token, response=ANSWER)
    for count in (1, 2):
        await told(receiver, count)
        await settled(office, 1, 0)
        kept_seconds = await office.client.ttl(office.keys.record(key))
        assert CALLBACK_KEPT_SECONDS - 60 < kept_seconds <= CALLBACK_KEPT_SECONDS
        await until(lambda: office.client.hget(office.keys.record(key), "N"))
        await office.client.zadd(office.keys.callbacks, {key: 0})
    await told(receiver, 3)
    await settled(office, 0, 0)

    shown, (first, *others) = (await office.gateway.get(place)).body, receiver.messages
    assert {one.headers["webhook-id"] for one in others} == {first.headers["webhook-id"]}
    assert json.loads(first.body)["type"] == "task.ended"
    assert {**shown, "endTime": first.data["endTime"]} == first.data
    assert (first.data["state"], first.data["response"]) == ("SUCCEEDED", {"result": 5})
    # What was kept for the callback alone is let go.
    assert await office.client.ttl(office.keys.record(key)) <= DEFAULT_RESULT_TTL_SECONDS
    webhook = pytest.importorskip("standardwebhooks").Webhook(SECRET)
    for one in receiver.messages:
        assert webhook.verify(one.body, one.headers)["data"]["id"] == shown["id"]


async def test_what_can_not_be_told_is_seen_and_told_again(office: Office, receiver: Receiver, tmp_path: Path) -> None:
    """An end would be lost for good, and nobody would know."""
    receiver.answers = [503] * 2
    place = await office.waiting(Poste_Callback=receiver.url)
    _, key, token = await office.claim()
    await office.report(key, token, error=status_pb2.Status(code=Code.NOT_FOUND, message="no such account"))
    await told(receiver)
    # It was tried for a day.
    await until(lambda: office.client.hget(office.keys.record(key), "N"))
    await office.client.hset(office.keys.record(key), "N", f"30 {int(time.time() * 1000) - 86_400_000} status 503")
    await office.client.zadd(office.keys.callbacks, {key: 0})
    await settled(office, 0, 1)

    listed = (await office.gateway.get(f"{QUEUE}/undelivered")).body
    assert listed["undelivered"] == 1
    assert listed["callbacks"] == [
        {
            "id": place.rpartition("/")[2],
            "service": SUM,
            "method": "Add",
            "state": "FAILED",
            "endTime": listed["callbacks"][0]["endTime"],
            "url": receiver.url,
            "tries": 31,
            "failure": "status 503",
        }
    ]
    # Operators who drop what ended, to have room, may drop it too; but not what is yet to be told.
    there = environment(
        POSTE_URL=office.gateway.url,
        POSTE_OPERATOR_TOKEN_FILE=str(tmp_path / "operator.token"),
        XDG_CACHE_HOME=str(tmp_path),
    )
    figures_shown = await asyncio.to_thread(poste, "queues", env=there)
    assert f"1 end undelivered to clients' URLs: `poste undelivered {SUM}`" in figures_shown.stderr
    shown = await asyncio.to_thread(poste, "undelivered", SUM, env=there)
    assert f"{SUM}/Add  FAILED, " in shown.stdout
    assert "31 tries, status 503" in shown.stdout
    # An id that was printed is named by its beginning.
    again = await asyncio.to_thread(poste, "redeliver", place.rpartition("/")[2][:12], env=there)
    assert (again.returncode, again.stdout) == (0, "1 end to be told again\n")
    await told(receiver, 3)
    await settled(office, 0, 0)
    is_problem(await office.gateway.post(f"{place}/redeliver"), 409, "not-undelivered", "FAILED_PRECONDITION")
    assert (await office.gateway.post(f"{QUEUE}/redeliver")).body == {"redelivered": 0}


async def test_each_end_of_a_replayed_call_is_told(office: Office, receiver: Receiver) -> None:
    """A client would think that its call had failed, after an operator had it run to its end."""
    place = await office.dead(Poste_Callback=receiver.url)
    await told(receiver)
    assert receiver.messages[0].data["state"] == "DEAD"
    await settled(office, 0, 0)
    assert (await office.gateway.post(f"{place}/replay")).status == 200
    _, key, token = await office.claim()
    await office.report(key, token, response=ANSWER)
    await told(receiver, 2)

    assert receiver.messages[1].data["state"] == "SUCCEEDED"
    assert receiver.messages[0].headers["webhook-id"] != receiver.messages[1].headers["webhook-id"]


async def test_one_that_can_not_be_told_keeps_no_other_from_it(office: Office, receiver: Receiver) -> None:
    """One client could stop the callbacks of all."""
    await office.waiting(Poste_Callback=receiver.url)
    _, key, token = await office.claim()
    await office.client.hset(office.keys.record(key), "W", "no URL")
    await office.report(key, token, response=ANSWER)
    second = await office.waiting(Poste_Callback=receiver.url)
    _, key, token = await office.claim()
    await office.report(key, token, response=ANSWER)
    await told(receiver)

    assert receiver.messages[0].data["id"] == second.rpartition("/")[2]
    await settled(office, 1, 0)


async def test_an_address_that_is_not_public_is_not_called(
    own_redis: RedisServer, tmp_path: Path, receiver: Receiver
) -> None:
    """A client could have the gateway call what only the gateway reaches, by a name of its own or without one."""
    async with calling(own_redis, tmp_path, receiver, networks=()) as office:
        await office.waiting(Poste_Callback=receiver.url)
        _, key, token = await office.claim()
        await office.report(key, token, response=ANSWER)
        note = await until(lambda: office.client.hget(office.keys.record(key), "N"))
        assert note.decode().endswith(" 127.0.0.1 is at 127.0.0.1, which is not public")
        assert 'poste_callback_tries_total{outcome="forbidden"} ' in await office.gateway.metrics()
        # Nor is what an operator's purge for room would drop: it is yet to be told.
        await office.client.hset(office.keys.record(key), "z", int(time.time() * 1000) - 120_000)
        await office.client.hset(office.keys.record(key), "c", int(time.time() * 1000) - 120_000)
        assert (await office.gateway.post(f"{QUEUE}/purge-ended")).body == {"purged": 0}
    assert receiver.messages == []


async def test_which_urls_may_be_named(tmp_path: Path) -> None:
    """A client would learn of its mistake when it waits for a message that never comes."""
    secret = secret_file(tmp_path / "webhook.secret", SECRET)
    async with staged(
        tmp_path, answer, callback_origins=("https://hooks.example",), callback_secret_file=secret
    ) as stage:
        wrong = await stage.gateway.post(PLACE, ORDER, Poste_Callback="hooks.example")
        is_problem(wrong, 400, "invalid-request", "INVALID_ARGUMENT")
        assert wrong.body["errors"][0]["field"] == "Poste-Callback"
        other = await stage.gateway.post(PLACE, ORDER, Poste_Callback="https://evil.example/")
        is_problem(other, 403, "callback-forbidden", "PERMISSION_DENIED")
        # A call that is answered at once is told to nobody.
        good = {"Poste_Callback": "https://hooks.example/x"}
        assert (await stage.gateway.post(PLACE, ORDER, **good)).status == 200
        assert stage.mom.requests == {}
        assert (await stage.gateway.post(PLACE, ORDER, Prefer="respond-async", **good)).status == 202
        (kept,) = stage.mom.requests.values()
        assert kept.callback_url == "https://hooks.example/x"


async def test_without_a_setting_no_url_may_be_named(tmp_path: Path) -> None:
    """A gateway would call whomever its clients name."""
    async with staged(tmp_path) as stage:
        refused = await stage.gateway.post(PLACE, ORDER, Poste_Callback="https://hooks.example/")
        is_problem(refused, 403, "callback-forbidden", "PERMISSION_DENIED")
