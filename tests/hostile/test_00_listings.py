"""However many clients ask for a listing, one read at a time answers them, with nothing older than their request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import shop
from support.gateway import Gateway, Stage, staged
from support.operating import OPERATOR
from support.waiting import until

from poste.runtime import metrics
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.limits.fair_queue import FairQueue
from poste_gateway.shared_reads import Ended, SharedReads

MANY = 200


@contextlib.asynccontextmanager
async def held(stage: Stage) -> AsyncIterator[None]:
    """Have every answer about queues wait until the body is over; each is made before."""
    stage.mom.looks.clear()
    stage.mom.look_gate.clear()
    try:
        yield
    finally:
        stage.mom.look_gate.set()


async def test_two_hundred_who_ask_at_once_are_answered_by_two_reads(tmp_path: Path) -> None:
    """Each listing asked the middleware anew: a thousand clients who asked made all calls slow."""
    async with staged(tmp_path) as stage:
        async with held(stage):
            asked = [asyncio.ensure_future(stage.gateway.get("/v1/queues")) for _ in range(MANY)]
            asked += [asyncio.ensure_future(stage.gateway.get("/v1/services")) for _ in range(MANY)]
            await until(lambda: stage.mom.looking)
        replies = await asyncio.gather(*asked)

    assert {reply.status for reply in replies} == {200}
    assert {reply.body["queues"][0]["queue"] for reply in replies[:MANY]} == {shop.NAME}
    assert {reply.body["services"][0]["queued"] for reply in replies[MANY:]} == {0}
    # They come over a hundred connections, so not all at once.
    assert len(stage.mom.looks) < MANY // 10


@pytest.mark.parametrize("path", ["/v1/queues", f"/v1/queues/{shop.NAME}"])
async def test_nobody_is_told_what_was_before_he_asked(path: str, tmp_path: Path) -> None:
    """Who has paused a queue would read that it is not: the read that answers him began before that."""
    async with staged(tmp_path) as stage:
        async with held(stage):
            before = asyncio.ensure_future(stage.gateway.get(path))
            await until(lambda: stage.mom.looking)
            stage.mom.queues = [pb.Queue(name=shop.NAME, paused=True)]
            after = [asyncio.ensure_future(stage.gateway.get(path)) for _ in range(20)]

        assert (await before).body["queues"][0]["paused"] is False
        assert {reply.body["queues"][0]["paused"] for reply in await asyncio.gather(*after)} == {True}
        assert len(stage.mom.looks) < 10


async def test_an_operator_sees_what_he_did_while_others_look(tmp_path: Path) -> None:
    """The verb's own answer is a read, too, and others read all the time."""
    async with staged(tmp_path) as stage:
        done = asyncio.Event()

        async def look() -> None:
            while not done.is_set():
                await stage.gateway.get(f"/v1/queues/{shop.NAME}")

        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(look())
            for _ in range(10):
                stage.mom.queues = []
                paused = await stage.gateway.post(f"/v1/queues/{shop.NAME}/pause", **OPERATOR)
                assert paused.body["queues"][0]["paused"] is True
            done.set()


async def test_what_went_wrong_is_told_to_all(tmp_path: Path) -> None:
    """Those whom another's read answers would wait for ever when it fails, or get an internal error."""
    async with staged(tmp_path) as stage:
        stage.mom.away = True
        stage.mom.looks.clear()
        replies = await asyncio.gather(*(stage.gateway.get("/v1/queues") for _ in range(MANY)))

        assert {reply.status for reply in replies} == {503}
        assert {reply.body["type"] for reply in replies} == {"/problems/lookup-away"}
        assert len(stage.mom.looks) < MANY // 10
        stage.mom.away = False
        assert (await stage.gateway.get("/v1/queues")).status == 200


async def test_looks_at_made_up_queues_leave_room_for_others(tmp_path: Path) -> None:
    """Names are made up as fast as they are asked for: each was one more question on its way to the middleware."""

    async def look(client: Gateway, name: str) -> int:
        return (await client.get(f"/v1/queues/{name}")).status

    async with (
        staged(tmp_path, trusted_proxies="127.0.0.1/32") as stage,
        stage.gateway.other("127.0.0.2") as attacker,
        stage.gateway.other("127.0.0.3") as other,
    ):
        before = refused_for_listings()
        async with held(stage):
            flood = [asyncio.ensure_future(look(attacker, f"no.n{number}.Queue")) for number in range(600)]
            await until(lambda: sum(one.done() for one in flood) >= 600 - 256 - 8)
            assert stage.mom.looking == 8
            theirs = asyncio.ensure_future(look(other, shop.NAME))
            all_theirs = asyncio.ensure_future(other.get("/v1/queues"))
            await until(lambda: stage.mom.looking == 9)
        statuses = await asyncio.gather(*flood)

        assert (await all_theirs).status == await theirs == 200
        # It did not have to wait until the attacker's were done.
        assert stage.mom.looks.index(shop.NAME) < 100
        refused = statuses.count(503)
        assert set(statuses) == {503, 404}
        assert refused >= 600 - 256 - 8
        assert refused_for_listings() - before == refused


def refused_for_listings() -> float:
    return float(metrics.refused_total.labels("listings")._value.get())


class Source:
    """What is read by the tests below: how often it was, and what holds it up."""

    def __init__(self) -> None:
        self.reads = 0
        self.gate = asyncio.Event()

    async def read(self, _: str) -> int:
        self.reads += 1
        number = self.reads
        await self.gate.wait()
        return number


async def test_who_gives_up_ends_it_for_nobody_else() -> None:
    """One client that is gone would take the answer from all who wait for the same one."""
    source = Source()
    shared = SharedReads(source.read)
    first = asyncio.ensure_future(shared.get("a"))
    await until(lambda: source.reads)
    second, third = (asyncio.ensure_future(shared.get("a")) for _ in range(2))
    await asyncio.sleep(0)  # they ask
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second])
    source.gate.set()

    assert await third == 2
    assert source.reads == 2
    assert await shared.get("a") == 3


async def test_nobody_is_left_waiting_when_the_process_ends() -> None:
    """What waits for a read that never ends would keep the gateway from its end."""
    source = Source()
    shared = SharedReads(source.read)
    asked = [asyncio.ensure_future(shared.get("a"))]
    await until(lambda: source.reads)
    asked.append(asyncio.ensure_future(shared.get("a")))
    await asyncio.sleep(0)  # it asks
    await shared.close()

    for one in asked:
        with pytest.raises(Ended):
            await one


async def test_turns_of_a_few_at_once() -> None:
    """A turn that is lost when a client gives up is one less for all, for ever."""
    turns = FairQueue(100, at_once=2)
    gate = asyncio.Event()
    running = 0

    async def take(client: str) -> None:
        nonlocal running
        async with turns.turn(client, 1):
            running += 1
            await gate.wait()
            running -= 1

    taken = [asyncio.ensure_future(take(name)) for name in "abcd"]
    await until(lambda: turns.waiting_bytes == 2)
    assert running == 2
    taken[0].cancel()
    taken[3].cancel()
    await asyncio.wait([taken[0], taken[3]])
    gate.set()
    await asyncio.gather(taken[1], taken[2])
    async with turns.turn("a", 1), turns.turn("b", 1):
        assert turns.waiting_bytes == 0
