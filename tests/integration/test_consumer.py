"""A consumer on a real server: what a process takes, keeps, gives back, and loses."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path

import pytest
from support.office import Office
from support.redis_server import running
from support.waiting import until

from poste.domain.task import TaskState
from poste.queue.consumer import ClaimedTask
from poste.queue.operators import Operators


async def test_a_backlog_is_run_once_each(office: Office) -> None:
    """The main road of a service that has come back."""
    keys = await office.enqueue(50)
    consumer = office.consume(office.at_once)
    await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))

    assert sorted(office.ran) == sorted(keys)
    assert consumer.ready() is None


async def test_tasks_queued_while_it_waits_are_taken(office: Office) -> None:
    """A consumer that once found an empty queue must go on asking for tasks."""
    office.consume(office.at_once)
    for _ in range(3):
        keys = await office.enqueue()
        await until(lambda keys=keys: office.all_in(keys, TaskState.SUCCEEDED))


async def test_it_takes_no_more_than_it_can_run(office: Office) -> None:
    """What one process hoards, its idle neighbour can't run."""
    await office.enqueue(9)
    office.consume(office.until_released)
    await until(lambda: len(office.ran) == 4)

    assert await office.client.llen(office.keys.ready) == 5


async def test_a_stop_waits_for_what_runs(office: Office) -> None:
    """A deploy must not throw away work that is nearly done."""
    (key,) = await office.enqueue()
    consumer = office.consume(office.until_released)
    await office.started.wait()
    consumer.stop()
    office.release.set()
    await office.consumers.pop(consumer)

    assert await office.state(key) is TaskState.SUCCEEDED
    assert await office.incarnations() == []


async def test_a_stop_gives_back_what_takes_too_long(office: Office) -> None:
    """It runs elsewhere at once, and the stop counts as no attempt."""
    (key,) = await office.enqueue()
    consumer = office.consume(office.until_released, grace_seconds=0.1)
    await office.started.wait()
    await office.stop(consumer)

    record = (await office.tasks.read(office.queue, key)).record
    assert record is not None
    assert (record.state, record.attempt) == (TaskState.QUEUED, 0)
    assert await office.incarnations() == []
    assert await office.client.llen(office.keys.ready) == 1


async def test_stops_during_traffic_strand_nothing(office: Office) -> None:
    """A pop that is cut short strands what it was about to answer with: 537 of 800, when it was cancelled."""
    keys = []
    for _ in range(15):
        consumer = office.consume(office.at_once)
        await until(lambda consumer=consumer: consumer.ready() is None)
        adding = asyncio.create_task(office.enqueue(3))
        await office.stop(consumer)
        keys += await adding
    office.consume(office.at_once)
    await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))

    assert sorted(office.ran) == sorted(keys)


async def test_a_cancel_reaches_the_handler(office: Office) -> None:
    """A running task that its client wants no more is stopped, and says so."""
    (key,) = await office.enqueue()
    office.consume(office.until_released)
    await office.started.wait()
    await office.tasks.cancel(office.queue, key)

    await until(lambda: office.all_in([key], TaskState.CANCELLED))


async def test_a_cancel_reaches_the_handler_while_its_service_stops(office: Office) -> None:
    """Its client waited until the grace was over: a process that stops no longer read what was to be cancelled."""
    consumer = office.consume(office.until_released, grace_seconds=60)
    (key,) = await office.enqueue()
    await office.started.wait()
    stop = asyncio.create_task(office.stop(consumer))
    await until(lambda: (consumer.ready() or "").endswith("stopping"), what="the stop")

    await office.tasks.cancel(office.queue, key)

    async with asyncio.timeout(10):
        await stop
    assert await office.state(key) is TaskState.CANCELLED


async def test_a_key_that_a_lost_reply_left_behind_is_adopted(office: Office) -> None:
    """A lost BLMOVE reply strands a key in the list of an owner that lives: only the audit finds it."""
    office.consume(office.at_once)
    await until(office.incarnations)
    (name,) = await office.incarnations()
    (key,) = await office.enqueue(1)
    await office.client.rpoplpush(office.keys.ready, office.keys.taken(name))

    await until(lambda: office.all_in([key], TaskState.SUCCEEDED))


async def test_a_consumer_that_was_reaped_drops_everything_and_joins_anew(office: Office) -> None:
    """After a long stop another has its tasks: reporting them would make two results."""
    (key,) = await office.enqueue()
    office.consume(office.until_released)
    await office.started.wait()
    (old,) = await office.incarnations()
    await office.maintenance.run_pass(office.queue, max_crashes=3)
    await office.client.zadd(office.keys.leases, {old: 1})
    await office.maintenance.run_pass(office.queue, max_crashes=3)

    async def ran_again() -> bool:
        # Until it learns that it was reaped it may pop the key once more: the passes sweep its list.
        await office.maintenance.run_pass(office.queue, max_crashes=3)
        return len(office.ran) == 2

    await until(ran_again)
    office.release.set()
    await until(lambda: office.all_in([key], TaskState.SUCCEEDED))

    assert old not in await office.incarnations()


async def test_a_blocked_loop_keeps_its_lease(office: Office) -> None:
    """One bad handler that blocks the loop must not have its neighbours' tasks run twice."""
    lease = office.settings.lease_seconds

    async def block(task: ClaimedTask) -> None:
        office.ran.append(task.key)
        time.sleep(2 * lease)  # noqa: ASYNC251 - blocking the loop is the point
        await office.report(task, "ok")

    (key,) = await office.enqueue()
    await office.maintenance.run_pass(office.queue, max_crashes=3)
    office.consume(block)
    await until(lambda: office.all_in([key], TaskState.SUCCEEDED))
    report = await office.maintenance.run_pass(office.queue, max_crashes=3)

    assert not report.reaped
    assert office.ran == [key]


async def test_a_suspect_runs_alone(office: Office) -> None:
    """A task that was there at two crashes must not take neighbours along when it does so again."""
    (suspect,) = await office.enqueue()
    await office.client.hset(office.keys.record(suspect), "u", "2")
    others = await office.enqueue(6)
    at_once: list[set[str]] = []
    now: set[str] = set()

    async def watch(task: ClaimedTask) -> None:
        now.add(task.key)
        await asyncio.sleep(0.02)  # long enough for a neighbour to be seen
        at_once.append(set(now))
        now.remove(task.key)
        await office.at_once(task)

    office.consume(watch)
    await until(lambda: office.all_in([suspect, *others], TaskState.SUCCEEDED))

    assert [keys for keys in at_once if suspect in keys] == [{suspect}]
    assert max(len(keys) for keys in at_once) > 1


async def test_it_recovers_when_redis_is_killed_and_comes_back(tmp_path: Path, queue: str) -> None:
    """Workers that live and take nothing after a broker's restart are what users of other queues complain about."""
    with running(tmp_path) as server:
        office = Office(server.url, queue)
        consumer = office.consume(office.at_once)
        first = await office.enqueue(5)
        await until(lambda: office.all_in(first, TaskState.SUCCEEDED))
        server.kill()
        server.start()
        second = await until(lambda: _tried(office.enqueue(5)))
        await until(lambda: office.all_in(second, TaskState.SUCCEEDED))
        await office.stop(consumer)
        await office.client.aclose()


async def test_it_waits_for_a_redis_that_is_late(tmp_path: Path, queue: str) -> None:
    """Parts start in any order: none may die because another is late."""
    with running(tmp_path) as server:
        server.kill()
        office = Office(server.url, queue)
        consumer = office.consume(office.at_once)
        assert consumer.ready() is not None
        server.start()
        keys = await until(lambda: _tried(office.enqueue(1)))
        await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))
        await office.stop(consumer)
        await office.client.aclose()


async def test_at_maxmemory_a_whole_life_goes_on(tmp_path: Path, queue: str) -> None:
    """BLMOVE is refused then: what is accepted could never be taken and done, and so no memory ever be freed again."""
    with running(tmp_path) as server:
        office = Office(server.url, queue)
        keys = await office.enqueue(10)
        used = (await office.client.info("memory"))["used_memory"]
        await office.client.config_set("maxmemory", used // 2)
        holds = office.consume(office.until_released, grace_seconds=0.1)
        await until(lambda: len(office.ran) == office.settings.concurrency)
        (incarnation,) = await office.incarnations()
        lease = await office.client.zscore(office.keys.leases, incarnation)

        async def renewed() -> bool:
            return await office.client.zscore(office.keys.leases, incarnation) > lease

        await until(renewed)
        await office.stop(holds)
        given_back = await office.all_in(keys, TaskState.QUEUED)
        consumer = office.consume(office.at_once)
        await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))
        ready = consumer.ready()
        await office.stop(consumer)
        errors = await office.client.info("errorstats")
        await office.client.aclose()

    assert given_back
    assert ready is None
    assert errors["errorstat_OOM"]["count"] > 0


async def _tried(enqueue: Awaitable[list[str]]) -> list[str]:
    from poste.domain.errors import StoreError  # noqa: PLC0415

    try:
        return await enqueue
    except StoreError:
        return []


async def test_an_audit_during_a_claim_does_not_run_the_task_twice(office: Office) -> None:
    """A key whose claim is under way is in hand: claiming it again would start its handler a second time."""
    consumer = office.consume(office.at_once)
    await until(lambda: consumer.ready() is None)
    (name,) = await office.incarnations()
    (key,) = await office.enqueue(task_ttl_seconds=60)
    await until(lambda: office.all_in([key], TaskState.SUCCEEDED))
    # Reads go on while writes wait: audits see the key in the list again and again while its claim is not answered.
    pipeline = office.client.pipeline(transaction=True)
    record = office.keys.record("again-and-again-")
    pipeline.hset(record, mapping={"m": "Add", "q": "", "s": "Q", "c": 1, "x": 10**14, "r": 60})
    pipeline.lpush(office.keys.taken(name), "again-and-again-")
    pipeline.execute_command("CLIENT", "PAUSE", 3500, "WRITE")
    await pipeline.execute()
    await until(lambda: office.all_in(["again-and-again-"], TaskState.SUCCEEDED))
    await until(lambda: consumer.ready() is None)
    await office.stop(consumer)

    assert office.ran.count("again-and-again-") == 1


async def test_a_paused_queue_rests_until_it_is_resumed(office: Office) -> None:
    """A consumer that learns of a pause and does not ask again would never take a task any more."""
    operators = Operators(office.client)
    await operators.pause(office.queue, paused=True)
    consumer = office.consume(office.at_once)
    keys = await office.enqueue(10)
    await until(lambda: consumer.ready() is None, what="the consumer")
    # It has met the pause once what it took is back.
    await until(lambda: _is_back(office, keys), what="all back")
    assert office.ran == []

    await operators.pause(office.queue, paused=False)
    await until(lambda: sorted(office.ran) == sorted(keys), what="all run")


async def _is_back(office: Office, keys: list[str]) -> bool:
    return [key.decode() for key in await office.client.lrange(office.keys.ready, 0, -1)] == keys[::-1]


async def test_beside_live_calls_tasks_are_taken_a_few_at_a_time(office: Office) -> None:
    """A backlog that is run in large batches makes every direct call wait for its turn in the loop."""
    turn, started = 0, Counter[int]()

    async def count_turns() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    async def handle(task: ClaimedTask) -> None:
        started[turn] += 1
        await office.at_once(task)

    counting = asyncio.create_task(count_turns())
    keys = await office.enqueue(100)
    office.consume(handle, concurrency=64, live=lambda: True)
    await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))
    counting.cancel()

    assert max(started.values()) <= 8


async def test_a_task_that_waits_for_its_report_makes_room_for_another(office: Office) -> None:
    """Else a drain stands still for each report, and a middleware that is slow makes the service idle."""
    ran: list[str] = []

    async def handle(task: ClaimedTask) -> None:
        ran.append(task.key)
        task.handled()
        await office.release.wait()
        await office.report(task, "ok")

    keys = await office.enqueue(20)
    office.consume(handle, concurrency=4)
    # As many again as may run at once, and no more: they would pile up while the middleware is away.
    await until(lambda: len(ran) == 8)
    assert await office.client.llen(office.keys.ready) == 12
    office.release.set()
    await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))


async def test_a_defect_in_handling_a_task_ends_the_consumer(office):
    """Else the task stays in hand for ever, in a process that looks well."""
    released = asyncio.Event()

    async def handle(task: ClaimedTask) -> None:
        if task.method == "Broken":
            raise RuntimeError("a defect")
        try:
            await asyncio.Event().wait()
        finally:
            released.set()

    consumer = office.consume(handle)
    await office.enqueue()
    await office.enqueue(method="Broken")

    with pytest.raises(ExceptionGroup) as ended:
        await asyncio.wait_for(office.consumers.pop(consumer), 10)
    assert ended.group_contains(RuntimeError, match="a defect")
    assert released.is_set()
