"""A queue is moved to another service, through all parts: what runs there, what is refused, what its clients see."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import environment, poste
from support.gateway import Gateway, running_gateway
from support.mom import running_mom
from support.moving import NAME, PAY, Version
from support.operating import OPERATOR
from support.redis_server import RedisServer
from support.rest import is_problem
from support.waiting import until

from poste.queue.connection import open_client
from poste.runtime.settings import StoreSettings

TILL = "moves.v1.Till"
MOVE = f"/v1/queues/{NAME}/move"
HASTY = {"lease_seconds": 1.5, "heartbeat_seconds": 0.3}


class Office:
    """All but the services, and what clients do."""

    def __init__(self, redis: str, mom: str, gateway: Gateway, folder: Path) -> None:
        self.gateway, self._redis, self._mom = gateway, redis, mom
        self._there = environment(POSTE_URL=gateway.url, POSTE_OPERATOR_TOKEN_FILE=str(folder / "operator.token"))

    @contextlib.asynccontextmanager
    async def up(self, version: Version) -> AsyncIterator[None]:
        async with version.by_library(self._redis, self._mom, **HASTY):
            await self.gateway.available(name=version.name, ready=1, queueable=True)
            yield

    async def been_up(self, version: Version) -> None:
        async with self.up(version):
            pass
        await self.gateway.available(name=version.name, availability="away")

    async def keep(self, method: str = "Pay", *, key: str = "", **fields: Any) -> str:
        named = {"Idempotency-Key": key} if key else {}
        reply = await self.gateway.post(PAY.replace("Pay", method), fields, Prefer="respond-async", **named)
        assert reply.status == 202, reply.body
        return str(reply.headers["Location"])

    async def forget(self, queue: str) -> None:
        """Let the time of all records of a queue be over."""
        client = open_client(StoreSettings(redis_url=self._redis))
        async for record in client.scan_iter(f"{HASTY['key_prefix']}:{{{queue}}}:task:*"):
            await client.delete(record)
        await client.aclose()

    async def state(self, place: str) -> tuple[str, str]:
        task = (await self.gateway.get(place)).body
        return task["service"], task["state"]

    async def ended(self, place: str) -> Any:
        task = (await self.gateway.get(place, Prefer="wait=10")).body
        assert task["state"] not in ("QUEUED", "RUNNING")
        return task

    async def move(self, *options: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(poste, "move", NAME, TILL, *options, env=self._there)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
async def office(redis_server: RedisServer, tmp_path: Path) -> AsyncIterator[Office]:
    prefix = f"moved-{tmp_path.name}"
    async with (
        running_mom(redis_server.url, key_prefix=prefix) as mom,
        running_gateway(tmp_path, mom.settings.port, headers=OPERATOR) as gateway,
    ):
        HASTY["key_prefix"] = prefix  # type: ignore[assignment]
        yield Office(redis_server.url, mom.target, gateway, tmp_path)


async def test_a_queue_is_moved_to_the_service_that_took_over(office: Office) -> None:
    """Calls of a service that was renamed would wait for it until they are given up."""
    await office.been_up(Version(None, "Refund"))
    kept, refund, waited = await office.keep(a="2"), await office.keep("Refund", a="1"), await office.keep(a="3")
    till = Version(name=TILL)
    await office.been_up(till)

    would = await office.move("--dry-run")
    assert would == (1, "2 would be moved, 1 can't be\n", f"Refund: {TILL} has no such method\n")
    assert await office.state(kept) == (NAME, "QUEUED")
    waiting = asyncio.create_task(office.ended(waited))
    code, said, _ = await office.move("--yes", "--json")
    unfit = [{"method": "Refund", "reason": f"{TILL} has no such method"}]
    assert (code, json.loads(said)) == (1, {"moved": 2, "refused": 1, "unfit": unfit})

    assert await office.state(kept) == (TILL, "QUEUED")
    assert await office.state(refund) == (NAME, "QUEUED")
    async with office.up(till):
        # Who waited for it before it was moved hears of its end.
        assert (await waiting)["response"] == {"text": "a=3"}
        assert (await office.ended(kept))["response"] == {"text": "a=2"}
    assert sorted(till.paid) == ["Pay a=2", "Pay a=3"]
    (listed,) = (await office.gateway.get(f"/v1/queues/{TILL}/tasks?pageSize=1")).body["tasks"]
    assert (await office.gateway.get(f"/v1/tasks/{listed['id']}")).body["state"] == "SUCCEEDED"


async def test_a_move_to_what_can_not_be_is_refused(office: Office) -> None:
    """Calls would wait where nothing takes them, or be held aside one by one."""
    await office.been_up(Version())
    kept = await office.keep(a="2")

    def broken(request: Any) -> None:
        request.field[0].type = 9

    await office.been_up(Version(broken, name=TILL))

    moved = await office.gateway.post(f"{MOVE}?target={TILL}")
    assert (moved.body["moved"], moved.body["refused"]) == (0, 1)
    assert "field 1 `a` changed from int64 to string" in moved.body["unfit"][0]["reason"]
    nowhere = await office.gateway.post(f"{MOVE}?target=no.such.Service")
    is_problem(nowhere, 404, "no-such-service", "NOT_FOUND")
    for wrong in ("", f"?target={NAME}", "?target=a%20b", f"?target={TILL}&state=RUNNING"):
        assert (await office.gateway.post(f"{MOVE}{wrong}")).status == 400
    assert await office.state(kept) == (NAME, "QUEUED")


async def test_a_call_is_not_moved_to_where_another_has_its_idempotency_key(office: Office) -> None:
    """It would be told to be moved, and be in neither queue: a call that was accepted would be lost."""
    await office.been_up(Version())
    first = await office.keep(a="2", key="k")
    await office.been_up(Version(name=TILL))
    assert (await office.move("--yes"))[0] == 0
    await office.forget(NAME)
    second = await office.keep(a="2", key="k")
    assert second != first

    moved = await office.gateway.post(f"{MOVE}?target={TILL}")

    reason = "another call with its idempotency key is known there"
    assert moved.body == {
        "moved": 0,
        "refused": 1,
        "unfit": [{"method": "Pay", "reason": reason}],
        "nextPageToken": "",
    }
    assert await office.state(second) == (NAME, "QUEUED")


async def test_a_move_that_is_left_undone_is_brought_to_its_end(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its middleware died in the midst: what had stopped would stand between two queues for good."""
    from poste.queue.steps import move as steps  # noqa: PLC0415 - only here is it broken

    await office.been_up(Version())
    kept = await office.keep(a="2")
    await office.been_up(Version(name=TILL))
    arrive, broken = steps.into, asyncio.Event()

    async def into(*arguments: Any, **more: Any) -> Any:
        if not broken.is_set():
            broken.set()
            raise asyncio.CancelledError
        return await arrive(*arguments, **more)

    monkeypatch.setattr(steps, "into", into)
    await office.gateway.post(f"{MOVE}?target={TILL}")

    async def there() -> bool:
        return await office.state(kept) == (TILL, "QUEUED")

    await until(there, what="the pass that goes on")
