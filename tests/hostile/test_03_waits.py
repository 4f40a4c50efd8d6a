"""Waits for tasks' ends cost little while nothing ends, miss no end for that, and each client has its share of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.gateway import Gateway, Stage, staged
from support.redis_server import RedisServer, running
from support.waiting import until

from poste.domain.errors import StoreError
from poste.domain.policy import QueuePolicy
from poste.domain.task import TaskState
from poste.queue.completion_waiter import CompletionWaiter
from poste.queue.connection import open_client
from poste.queue.durability import Durability
from poste.queue.keys import QueueKeys
from poste.queue.steps.task import NewTask
from poste.queue.tasks import Tasks
from poste.runtime import lifecycle, metrics
from poste.runtime.settings import StoreSettings
from poste.v1 import task_pb2

WAITS = 600
LONG_SECONDS = 60.0


def hundreds(keys: list[str]) -> list[list[str]]:
    return [keys[first : first + 100] for first in range(0, len(keys), 100)]


@dataclass
class Waiting:
    """What waits in one process, and what ends tasks in another."""

    queue: str
    here: CompletionWaiter
    elsewhere: Tasks
    client: Any

    async def enqueue(self, count: int = 1, ttl_seconds: int = 600) -> list[str]:
        keys = [secrets.token_urlsafe(12) for _ in range(count)]
        for some in hundreds(keys):
            tasks = [NewTask(key, "Add", b"", time.time(), ttl_seconds, 600, repeatable=True) for key in some]
            said = await self.elsewhere.enqueue(self.queue, tasks, QueuePolicy(), Durability.ON_REPLY)
            assert set(said) == {"accepted"}
        return keys

    async def wait(self, key: str, seconds: float = LONG_SECONDS) -> TaskState | None:
        reading = await self.here.wait(self.queue, key, seconds)
        return reading.record and reading.record.state

    async def marked(self, *keys: str) -> bool:
        """Return whether each record says that its end is waited for."""
        pipeline = self.client.pipeline(transaction=False)
        for key in keys:
            pipeline.hexists(QueueKeys(self.queue).record(key), "l")
        return all(await pipeline.execute())

    async def commands(self) -> int:
        """Return how many commands Redis has run, those in scripts among them."""
        return sum(one["calls"] for one in (await self.client.info("commandstats")).values())


@contextlib.asynccontextmanager
async def waiting(url: str, queue: str) -> AsyncIterator[Waiting]:
    settings = StoreSettings(redis_url=url)
    async with open_client(settings) as client, open_client(settings) as other:
        here = CompletionWaiter(settings, Tasks(client))
        async with lifecycle.side_tasks(here.listen(), here.poll()):
            yield Waiting(queue, here, Tasks(other), other)


async def test_thousands_of_waits_cost_the_store_next_to_nothing(redis_server: RedisServer, queue: str) -> None:
    """Each wait read its task every second: a thousand of one client were five thousand commands a second at Redis."""
    async with waiting(redis_server.url, queue) as office:
        keys = await office.enqueue(WAITS)
        async with asyncio.TaskGroup() as group:
            waits = []
            for some in hundreds(keys):
                waits += [group.create_task(office.wait(key)) for key in some]
                await until(functools.partial(office.marked, *some), what="the waits")

            before = await office.commands()
            await asyncio.sleep(1)  # a rate has a time
            assert await office.commands() - before < WAITS

            # And each end is answered, as soon as it comes.
            for some in hundreds(keys):
                await asyncio.gather(*(office.elsewhere.cancel(queue, key) for key in some))
            async with asyncio.timeout(5):
                states = await asyncio.gather(*waits)
    assert set(states) == {TaskState.CANCELLED}


async def test_an_end_that_nobody_told_is_found(redis_server: RedisServer, queue: str) -> None:
    """What Redis publishes may get lost, with the connection or with a record's mark: the wait would be a full one."""
    async with waiting(redis_server.url, queue) as office:
        unheard, unmarked = await office.enqueue(2)
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(office.wait(key)) for key in (unheard, unmarked)]
            await until(lambda: office.marked(unheard, unmarked))
            await office.client.client_kill_filter(_type="pubsub")
            await office.elsewhere.cancel(queue, unheard)
            await office.client.hdel(QueueKeys(queue).record(unmarked), "l")
            await office.elsewhere.cancel(queue, unmarked)
            async with asyncio.timeout(10):
                states = await asyncio.gather(*waits)
    assert states == [TaskState.CANCELLED] * 2


async def test_a_mark_that_is_gone_is_made_again(redis_server: RedisServer, queue: str) -> None:
    """A Redis that came back from an older copy knows of no wait: every end would be found late, if at all."""
    async with waiting(redis_server.url, queue) as office:
        (key,) = await office.enqueue()
        async with asyncio.TaskGroup() as group:
            wait = group.create_task(office.wait(key))
            await until(lambda: office.marked(key))
            await office.client.hdel(QueueKeys(queue).record(key), "l")
            await until(lambda: office.marked(key))
            await office.elsewhere.cancel(queue, key)
            assert await wait is TaskState.CANCELLED


async def test_who_waits_sees_that_a_task_is_overdue(redis_server: RedisServer, queue: str) -> None:
    """An overdue task is settled by whoever reads it, so who waits for it has to."""
    async with waiting(redis_server.url, queue) as office:
        (key,) = await office.enqueue(ttl_seconds=1)
        async with asyncio.timeout(10):
            assert await office.wait(key) is TaskState.EXPIRED


async def test_who_waits_is_told_that_the_store_is_away(tmp_path: Path, queue: str) -> None:
    """Another middleware may reach it: a client left waiting at this one would not ask there."""
    with running(tmp_path / "redis") as server:
        async with waiting(server.url, queue) as office:
            (key,) = await office.enqueue()
            wait = asyncio.ensure_future(office.wait(key))
            await until(lambda: office.marked(key))
            server.kill()
            async with asyncio.timeout(20):
                with pytest.raises(StoreError):
                    await wait


@contextlib.asynccontextmanager
async def crowded(folder: Path) -> AsyncIterator[tuple[Stage, Gateway, str]]:
    """Have one client wait as often as it may; yields what is there, the client, and a task that is not waited for."""
    entry: dict[str, Any] = {"library": True}
    proxies = "127.0.0.1/32"
    async with (
        staged(folder, entry=entry, max_waits=4, trusted_proxies=proxies) as stage,
        stage.gateway.other("127.0.0.2") as client,
    ):
        *places, place = [(await client.post("/v1/quotes", {})).headers["Location"] for _ in range(3)]
        waits = [asyncio.ensure_future(client.get(one, Prefer="wait=60")) for one in places]
        await until(lambda: len(stage.mom.waits) == 2)
        try:
            yield stage, client, place
        finally:
            for key in stage.mom.tasks:
                stage.mom.change(key, state=task_pb2.TASK_STATE_CANCELLED)
            await asyncio.gather(*waits)


async def test_one_client_has_its_share_of_the_waits_and_is_told(tmp_path: Path) -> None:
    """Each wait is held for a minute at every part: one client had as many of them as it could open connections."""
    async with crowded(tmp_path) as (stage, client, place):
        before = metrics.refused_total.labels("waits")._value.get()
        refused = await client.get(place, Prefer="wait=60")
        assert (refused.status, refused.body["type"]) == (503, "/problems/gateway-busy")
        assert refused.headers["Retry-After"] == "1"
        assert metrics.refused_total.labels("waits")._value.get() == before + 1
        # Without a wait it may read, and another may wait.
        assert (await client.get(place)).status == 200
        async with stage.gateway.other("127.0.0.3") as other:
            third = asyncio.ensure_future(other.get(place, Prefer="wait=60"))
            await until(lambda: sum(seconds > 0 for seconds in stage.mom.waits) == 3)
            for key in stage.mom.tasks:
                stage.mom.change(key, state=task_pb2.TASK_STATE_CANCELLED)
            assert (await third).status == 200


async def test_a_call_that_was_kept_is_never_refused_for_want_of_waits(tmp_path: Path) -> None:
    """Its client would take it for one that was not accepted, and send it again."""
    async with crowded(tmp_path) as (stage, client, _):
        async with asyncio.timeout(20):
            reply = await client.post("/v1/quotes", {}, Prefer="respond-async, wait=60")
        assert reply.status == 202
        assert reply.headers["Location"]
        # What it wished for was not done.
        assert "wait" not in reply.headers.get("Preference-Applied", "")
        assert len(stage.mom.tasks) == 4


async def test_a_wait_that_is_over_leaves_its_place(tmp_path: Path) -> None:
    """A place that is never given back is one that no client has any more."""
    async with staged(tmp_path, entry={"library": True}, max_waits=1) as stage:
        place = (await stage.gateway.post("/v1/quotes", {})).headers["Location"]
        for _ in range(3):
            assert (await stage.gateway.get(place, Prefer="wait=1")).status == 200


async def test_all_who_wait_for_one_task_share_one_look(tmp_path: Path) -> None:
    """Five hundred waits of one client for one task were five hundred calls that came back in one turn of the loop."""
    async with staged(tmp_path, entry={"library": True}) as stage:
        place = (await stage.gateway.post("/v1/quotes", {})).headers["Location"]
        before = len(stage.mom.waits)
        waits = [asyncio.ensure_future(stage.gateway.get(place, Prefer="wait=60")) for _ in range(60)]
        await until(lambda: len(stage.mom.waits) > before)
        # One that has waited long enough sees it as it is, and the first one's going takes nothing from the others.
        assert (await stage.gateway.get(place, Prefer="wait=1")).body["state"] == "QUEUED"
        waits.pop(0).cancel()
        assert sum(seconds > 0 for seconds in stage.mom.waits[before:]) < 10
        (key,) = stage.mom.tasks
        stage.mom.change(key, state=task_pb2.TASK_STATE_CANCELLED)
        async with asyncio.timeout(20):
            replies = await asyncio.gather(*waits)

    assert [reply.body["state"] for reply in replies] == ["CANCELLED"] * 59
