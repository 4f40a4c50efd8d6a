"""21: a store that was away for about a lease: its consumers are alive, and could not say so."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.deployment import SUM, deployed
from support.office import Office
from support.operating import OPERATOR
from support.queue_post import Post
from support.redis_server import RedisServer, running
from support.waiting import until

from poste.domain.errors import StoreError
from poste.domain.task import TaskState
from poste.queue.consumer import ClaimedTask
from poste.queue.consumer.lease import Leases
from poste.queue.consumer.renewal import Lease
from poste.queue.keys import QueueKeys
from poste.queue.maintenance import Maintenance
from poste.queue.steps import maintenance
from poste.runtime import lifecycle
from poste.runtime.settings import WorkerSettings

#: As a deployment has them, four times as fast: a lease of three heartbeats, a pass every half heartbeat.
LEASE_SECONDS, HEARTBEAT_SECONDS, PASS_SECONDS = 1.5, 0.5, 0.25
TASKS = 4


@pytest.fixture
async def away(tmp_path: Path, queue: str) -> AsyncIterator[tuple[RedisServer, Office]]:
    """A store of its own, and an office of which some calls that must not run twice, and some that may, are running."""
    with running(tmp_path) as server:
        office = Office(server.url, queue)
        yield server, office
        for consumer in list(office.consumers):
            await office.stop(consumer)
        await office.client.aclose()


async def keep_passing(office: Office) -> None:
    """Make passes, as a middleware does."""
    maintenance = Maintenance(office.client, pass_seconds=PASS_SECONDS)
    while True:
        with contextlib.suppress(StoreError):
            await maintenance.run_pass(office.queue, max_crashes=3)
        await asyncio.sleep(PASS_SECONDS)


async def be_away(server: RedisServer, how: str, seconds: float) -> None:
    """The fault itself: for so long Redis answers no client."""
    if how == "hangs":
        server.hang()
        await asyncio.sleep(seconds)
        server.wake()
    else:
        server.kill()
        await asyncio.sleep(seconds)
        server.start()


@pytest.mark.parametrize("how", ["hangs", "restarts"])
async def test_the_first_pass_afterwards_comes_before_the_owners(away: tuple[RedisServer, Office], how: str) -> None:
    """It would find leases over that could not be renewed, in an absence that is shorter than a whole lease."""
    server, office = away
    (key,) = await office.enqueue(repeatable=False)
    owner = Post(office.client, office.queue)
    maintenance = Maintenance(office.client, pass_seconds=PASS_SECONDS)
    await maintenance.run_pass(office.queue, max_crashes=3)
    # What is left of a lease between two renewals.
    await owner.join("me", lease_seconds=LEASE_SECONDS - HEARTBEAT_SECONDS)
    await owner.take("me")
    assert await owner.claim("me", key) == "run"
    assert await owner.begin("me", key) == "begun"

    await be_away(server, how, 0.9 * LEASE_SECONDS)

    assert not (await maintenance.run_pass(office.queue, max_crashes=3)).reaped
    assert await office.state(key) is TaskState.RUNNING
    assert await owner.complete("me", key) == "succeeded"


@pytest.mark.parametrize(("how", "leases"), [("hangs", 2.0), ("restarts", 0.85)])
async def test_living_owners_keep_their_tasks(away: tuple[RedisServer, Office], how: str, leases: float) -> None:
    """They would be reaped by the first pass: what must not run twice is DEAD, and the rest run again beside itself."""
    server, office = away
    starts: list[str] = []
    release = asyncio.Event()

    async def handle(task: ClaimedTask) -> None:
        task.begin()
        starts.append(task.key)
        await release.wait()
        await office.report(task, "ok")

    keys = await office.enqueue(TASKS, repeatable=False) + await office.enqueue(TASKS)
    office.consume(handle, lease_seconds=LEASE_SECONDS, heartbeat_seconds=HEARTBEAT_SECONDS, concurrency=2 * TASKS)
    passing = asyncio.create_task(keep_passing(office))
    try:
        await until(lambda: len(starts) == len(keys))
        await be_away(server, how, leases * LEASE_SECONDS)
        (owner,) = await office.incarnations()
        lease = await office.client.zscore(office.keys.leases, owner)

        async def renewed() -> bool:
            return (await office.client.zscore(office.keys.leases, owner) or 0) > lease + LEASE_SECONDS * 500

        await until(renewed)
        assert await office.all_in(keys, TaskState.RUNNING)
        release.set()
        await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))
        assert sorted(starts) == sorted(keys)
    finally:
        await lifecycle.end([passing])


async def test_a_dead_owner_is_reaped_all_the_same(away: tuple[RedisServer, Office]) -> None:
    """An absence must put an owner's end off, not call it off: its tasks would stand still for ever."""
    server, office = away
    await office.enqueue()
    await Maintenance(office.client, pass_seconds=PASS_SECONDS).run_pass(office.queue, max_crashes=3)
    await Post(office.client, office.queue).join("dead", lease_seconds=LEASE_SECONDS)
    passing = asyncio.create_task(keep_passing(office))
    try:
        await be_away(server, "hangs", LEASE_SECONDS)

        async def reaped() -> bool:
            return not await office.incarnations()

        await until(reaped)
    finally:
        await lifecycle.end([passing])


async def test_a_dead_owner_is_reaped_though_every_pass_is_late(away: tuple[RedisServer, Office]) -> None:
    """A middleware that is short of processor time would take each of its pauses for an absence of the store."""
    _, office = away
    late = Maintenance(office.client, pass_seconds=0.1)
    await Post(office.client, office.queue).join("dead", lease_seconds=0.4)

    async def reaped() -> bool:
        await asyncio.sleep(0.3)  # twice what counts of it
        await late.run_pass(office.queue, max_crashes=3)
        return not await office.incarnations()

    await until(reaped, seconds=5)


async def test_one_middleware_that_was_cut_off_puts_nothing_off(away: tuple[RedisServer, Office]) -> None:
    """The others went on seeing that no lease was renewed: what a dead owner held would wait longer than it must."""
    _, office = away
    cut_off, other = (Maintenance(office.client, pass_seconds=PASS_SECONDS) for _ in range(2))
    await cut_off.run_pass(office.queue, max_crashes=3)
    await other.run_pass(office.queue, max_crashes=3)
    await Post(office.client, office.queue).join("dead", lease_seconds=LEASE_SECONDS)
    end = asyncio.get_running_loop().time() + LEASE_SECONDS
    while asyncio.get_running_loop().time() < end:
        await other.run_pass(office.queue, max_crashes=3)
        await asyncio.sleep(PASS_SECONDS / 5)

    await cut_off.run_pass(office.queue, max_crashes=3)
    assert await office.incarnations() == []


async def test_a_reap_that_was_under_way_takes_nothing(away: tuple[RedisServer, Office]) -> None:
    """Another middleware's step is executed first thing after the absence, before any pass and any owner."""
    server, office = away
    (key,) = await office.enqueue(repeatable=False)
    owner = Post(office.client, office.queue)
    await Maintenance(office.client, pass_seconds=PASS_SECONDS).run_pass(office.queue, max_crashes=3)
    await owner.join("me", lease_seconds=2 * PASS_SECONDS)
    await owner.take("me")
    assert await owner.claim("me", key) == "run"
    assert await owner.begin("me", key) == "begun"

    server.hang()
    under_way = asyncio.create_task(maintenance.reap(owner.scripts, owner.keys, "me", [key], max_crashes=3))
    await asyncio.sleep(2.5 * PASS_SECONDS)  # its lease would be over
    server.wake()

    assert await under_way == []
    assert await owner.complete("me", key) == "succeeded"


async def test_a_renewal_that_is_lost_is_tried_again_within_the_same_heartbeat(
    redis_server: RedisServer, queue: str
) -> None:
    """One that got no answer took a whole heartbeat, so a store that was back just then found the lease over."""
    tries: list[float] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tries.append(time.monotonic())
        await reader.read()
        writer.close()

    settings = WorkerSettings(redis_url=redis_server.url, heartbeat_seconds=1.2, lease_seconds=60)
    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as deaf:
        server = {"host": "127.0.0.1", "port": deaf.sockets[0].getsockname()[1]}
        leases = Leases(settings, lambda: [server])
        leases.keep(Lease(QueueKeys(queue), "me", lambda: None))
        await until(lambda: len(tries) > 1)
        await leases.close()

    assert tries[1] - tries[0] < settings.heartbeat_seconds


async def test_a_store_that_is_away_is_called_by_its_name(tmp_path: Path) -> None:
    """Who reads that the middleware is away would look at the one part that is well."""
    async with deployed(tmp_path) as one:
        place = await one.queue(SUM, a=1, b=2)
        one.redis.kill()
        task, queues = await one.ask("GET", place), await one.ask("GET", "/v1/queues")
        refused = await one.call(SUM, "respond-async", a=1, b=2)
        # What operators ask for, of a queue and of one task.
        dead = await one.ask("GET", f"/v1/queues/{SUM}/dead", **OPERATOR)
        call = await one.ask("GET", f"{place}/call", **OPERATOR)
        purged = await one.order(f"{place}/purge")

    assert [reply.status for reply in (task, queues, refused, dead, call, purged)] == [503] * 6
    for reply in (task, queues, refused, dead, call, purged):
        assert "Redis does not answer the middleware" in reply.body["detail"]
