"""Whatever stands in a record: it is passed over or given up, counted and named, and everything else goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.mom import RunningMom, running_mom
from support.office import Office
from support.redis_server import RedisServer, running
from support.registering import been_up
from support.waiting import until

import poste_calculator
from poste.domain.task import TaskState
from poste.queue.consumer import Consumer, SharedStore
from poste.queue.operators import Operators
from poste.runtime import metrics
from poste.v1 import mom_service_pb2 as pb

SUM = "calculator.v1.SumService"
CATALOGUE = Path(poste_calculator.__path__[0]) / "catalogue.toml"
#: A field, and what stands in it; None if it is not there.
FIELDS: list[tuple[str, bytes | None]] = [
    *[("s", one) for one in (None, b"", b"Z", b"\xff", b"QQ")],
    *[("m", one) for one in (None, b"", b"\xff\xfe", b"Add\n", b"no method", b"\x1b[2J")],
    *[("c", one) for one in (None, b"", b"then", b"-1", b"nan", b"inf", b"9" * 40, b"\xff")],
    *[("x", one) for one in (None, b"", b"soon", b"nan", b"-inf", b"9" * 40, b"0x")],
    *[("a", one) for one in (b"many", b"\xff", b"-5", b"9" * 20)],
    *[("u", one) for one in (b"some", b"nan")],
    ("q", None),
]
#: The same, of what a task can be run with all the same.
HARMLESS: list[tuple[str, bytes | None]] = [
    *[("r", one) for one in (None, b"-5", b"long", b"9" * 40)],
    *[("y", one) for one in (None, b"nan", b"9" * 40)],
    *[("p", one) for one in (b"\xff\xff", b"\x1b[2J", b"00-zz", b"x" * 100_000)],
    *[("v", one) for one in (b"\xff", b"r;c;d;", b"r x y z w;", b"q 1 2 3 ;")],
    *[("e", one) for one in (b"\xff\xff\xff", b"\x08\xff")],
    *[("z", b"\xff"), ("b", b"\xff"), ("w2", b"\xff"), ("k", b"some"), ("f", b"some"), ("i", b"some")],
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running(tmp_path / "redis") as one:
        yield one


@contextlib.asynccontextmanager
async def opened(server: RedisServer) -> AsyncIterator[Office]:
    office = Office(server.url, SUM)
    yield office
    for consumer in [*office.consumers]:
        await office.stop(consumer)
    await office.client.aclose()


async def damage(office: Office, key: str, field: str, value: bytes | None) -> None:
    record = office.keys.record(key)
    if value is None:
        await office.client.hdel(record, field)
    else:
        await office.client.hset(record, field, value)


async def replace(office: Office, key: str) -> None:
    """Put something else where a task's record was."""
    await office.client.delete(office.keys.record(key))
    await office.client.rpush(office.keys.record(key), "no", "hash")


async def test_a_consumer_goes_on_beside_what_it_can_not_read(server: RedisServer) -> None:
    """One of them held its queue up for good, or killed one process of its service after the other."""
    async with opened(server) as office:
        cases = [*FIELDS, *HARMLESS]
        bad = await office.enqueue(len(cases))
        for key, (field, value) in zip(bad, cases, strict=True):
            await damage(office, key, field, value)
        (other,) = await office.enqueue()
        await replace(office, other)
        for odd in (b"\xff\xfe", b"short", "ключ".encode(), b"x" * 10_000):
            await office.client.rpush(office.keys.ready, odd)
            await office.client.hset(office.keys.record("short"), "s", "Q")
        good = await office.enqueue(5)
        office.consume(office.at_once)
        await until(lambda: office.all_in(good, TaskState.SUCCEEDED), what="the end of what can be read")
        await until(lambda: _nothing_left(office), what="the end of all")

        dead = await Operators(office.client).dead(SUM, count=1000)
        assert {task.record.key for task in dead.tasks} == set(bad[: len(FIELDS)])
        assert {task.record.dead_reason.value for task in dead.tasks if task.record.dead_reason} == {"damaged"}
        assert await office.client.hget(office.keys.counts, "+dead:damaged") == str(len(FIELDS)).encode()
        assert {*office.ran} == {*bad[len(FIELDS) :], *good}
        # An operator who mended what made them can have them back, or be rid of them.
        keys = [task.record.key for task in dead.tasks]
        assert set(await Operators(office.client).purge(SUM, keys)) == {"done"}
        assert not (await Operators(office.client).dead(SUM, count=1000)).tasks


@pytest.mark.parametrize("queues", [1, 40], ids=["waiting", "looking"])
async def test_a_key_that_is_none_is_taken_off_whatever_stands_in_its_record(server: RedisServer, queues: int) -> None:
    """No step can name it, so it would stay in the list of the process that took it for as long as that lives."""
    odd = (
        b"\xff" * 16,
        b"\xffabcdefghijklmno",
        "\u043a\u043b\u044e\u0447".encode() * 2,
        b"\x00" * 16,
        b"a b c d e f g h ",
        b"",
    )
    async with opened(server) as office, SharedStore(office.settings).open() as store:
        # With more of them than connections that wait, this one's queue is looked at.
        store.waits.consumers += queues
        record = office.keys.record("").encode()
        for key in odd:
            await office.client.hset(
                record + key, mapping={"m": "Add", "q": b"", "s": "Q", "c": 1, "x": 10**14, "r": 60}
            )
        consumer = Consumer(queue=SUM, settings=office.settings, handle=office.at_once, store=store)
        office.consumers[consumer] = asyncio.create_task(consumer.run())
        await until(lambda: consumer.ready() is None)
        for key in odd:
            await office.client.lpush(office.keys.ready, key)
        good = await office.enqueue(2)
        await until(lambda: office.all_in(good, TaskState.SUCCEEDED))
        await until(lambda: _nothing_left(office), what="the end of all")
        await office.stop(consumer)

        assert sorted(office.ran) == sorted(good)


async def _nothing_left(office: Office) -> bool:
    names = await office.incarnations()
    lists = [office.keys.ready, *(office.keys.taken(name) for name in names)]
    return not any([await office.client.llen(one) for one in lists])


async def test_the_passes_go_on_beside_what_they_can_not_read(server: RedisServer) -> None:
    """A queue with one of them had nothing reaped, woken or settled any more."""
    async with opened(server) as office:
        gone = office.keys.taken("gone")
        cases = [*FIELDS, *HARMLESS]
        for state in ("Q", "R", "overdue"):
            bad = await office.enqueue(len(cases), task_ttl_seconds=1 if state == "overdue" else 60)
            (other,) = await office.enqueue()
            for key, (field, value) in zip(bad, cases, strict=True):
                if state == "R":
                    await office.client.hset(office.keys.record(key), mapping={"s": "R", "t": "gone:1"})
                await damage(office, key, field, value)
            await replace(office, other)
            if state != "overdue":
                while await office.client.lmove(office.keys.ready, gone):
                    pass
                await office.client.lpush(gone, b"\xff")
        await office.client.zadd(office.keys.leases, {"gone": 1})
        overdue = await office.enqueue(3, task_ttl_seconds=0)

        await until(lambda: office.passes(overdue, TaskState.EXPIRED), what="the end of what is overdue")
        assert await office.client.llen(gone) == 0
        # Nothing that was to be run again was lost on the way, nor is anything in the way of it.
        good = await office.enqueue(3)
        office.consume(office.at_once)
        await until(lambda: office.all_in(good, TaskState.SUCCEEDED))
        await until(lambda: _nothing_left(office), what="the end of all")


async def test_a_handler_that_fails_is_tried_again_whatever_else_its_record_says(server: RedisServer) -> None:
    """Its report could not be stored, and was made again and again for as long as the process lived."""
    async with opened(server) as office:
        for ending in ("retry", "defect", "final", "cancelled", "ok", "large"):
            for field, value in (*FIELDS, *HARMLESS):
                (key,) = await office.enqueue()
                taken = office.keys.taken("me")
                await office.client.lmove(office.keys.ready, taken)
                await office.client.hset(office.keys.record(key), mapping={"s": "R", "t": "me:1", "a": 1})
                if field != "s":
                    await damage(office, key, field, value)
                task: Any = type("Task", (), {"key": key, "token": "me:1"})
                assert await office.report(task, ending) not in ("refused", None), (ending, field, value)
                assert await office.client.llen(taken) == 0


@pytest.fixture
async def mom(server: RedisServer) -> AsyncIterator[RunningMom]:
    async with running_mom(server.url, catalogue=CATALOGUE, pass_seconds=3600) as one:
        await been_up(one.target, SUM)
        yield one


async def test_what_can_not_be_shown_hides_nothing_else(mom: RunningMom, server: RedisServer) -> None:
    """One bad record left the page empty, made its queue's figures a failure, and every scrape as well."""
    async with opened(server) as office:
        waiting = [*FIELDS, *HARMLESS]
        died = [(field, value) for field, value in FIELDS if field in "smc"]
        bad, good = await office.enqueue(len(waiting) + len(died)), await office.enqueue(2)
        for key in bad[len(waiting) :]:
            await office.client.hset(office.keys.record(key), mapping={"s": "D", "d": "attempts", "z": "1"})
            await office.client.zadd(office.keys.dead, {key: 5})
        for key, (field, value) in zip(bad, [*waiting, *died], strict=True):
            await damage(office, key, field, value)
        (other,) = await office.enqueue()
        await replace(office, other)
        await office.client.lpush(office.keys.recent, b"\xff\xfe", "short")
        await office.client.zadd(office.keys.dead, {other: "inf", b"\xff": 1, "short": "-inf"})
        await office.client.hset(office.keys.record("short"), mapping={"s": "Q", "m": "Add"})
        await office.client.rpush(office.keys.ready, other)
        await office.client.hset(office.keys.counts, mapping={"waiting": "x", b"\xff": "y", "+S": "nan"})
        before = metrics.records_damaged_total._value.get()

        recent = await mom.stub.ListRecentTasks(pb.ListRecentTasksRequest(queue=SUM, page_size=1000), timeout=10)
        assert {*good} <= {one.task.key for one in recent.tasks}
        assert metrics.records_damaged_total._value.get() > before
        dead = await mom.stub.ListDeadTasks(pb.ListDeadTasksRequest(queue=SUM, page_size=1000), timeout=10)
        assert other not in [one.task.key for one in dead.tasks]
        (queue,) = (await mom.stub.ListQueues(pb.ListQueuesRequest(queue=SUM), timeout=10)).queues
        assert queue.name == SUM
        async with aiohttp.ClientSession() as session, session.get(f"{mom.admin_url}/metrics") as reply:
            text = await reply.text()
            assert (reply.status, f'poste_queue_tasks{{queue="{SUM}"' in text) == (200, True)
        for key in (*bad, other, *good):
            question = {"service": SUM, "key": key}
            look = await mom.stub.GetTask(pb.GetTaskRequest(**question), timeout=10)
            assert look.HasField("task") or key not in good
            await mom.stub.GetTask(pb.GetTaskRequest(**question, wait_seconds=0.02), timeout=10)
            await mom.stub.GetTaskHistory(pb.GetTaskHistoryRequest(**question), timeout=10)
            await mom.stub.CancelTask(pb.CancelTaskRequest(**question), timeout=10)
        for name in ("ReplayTasks", "PurgeTasks"):
            await getattr(mom.stub, name)(
                getattr(pb, f"{name}Request")(queue=SUM, keys=[*bad, other, "short"]), timeout=10
            )
