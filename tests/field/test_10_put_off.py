"""What a process has claimed and can't run goes back: uncounted, after a while, to whoever can."""

from __future__ import annotations

import asyncio

import pytest
from support.office import Office
from support.waiting import until

from poste.domain.task import TaskState
from poste.queue.consumer import ClaimedTask, NotRun


@pytest.mark.parametrize("repeatable", [True, False])
async def test_what_was_not_run_runs_later_and_counts_as_no_attempt(office: Office, *, repeatable: bool) -> None:
    """Each refusal would be an attempt, and a call that never began would be DEAD in the end."""
    refusals = 7

    async def handle(task: ClaimedTask) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise NotRun("not now", delay_seconds=0.01)
        await office.at_once(task)

    keys = await office.enqueue(3, repeatable=repeatable)
    office.consume(handle)
    await until(lambda: office.passes(keys, TaskState.SUCCEEDED))

    records = [(await office.tasks.read(office.queue, key)).record for key in keys]
    assert [record.attempt for record in records if record] == [1, 1, 1]
    assert sorted(office.ran) == sorted(keys)


async def test_it_waits_and_another_process_may_have_it(office: Office) -> None:
    """A process that can't run a task would take it again and again, and keep every other process from it."""

    async def refuse(_: ClaimedTask) -> None:
        raise NotRun("not here", delay_seconds=3600)

    (key,) = await office.enqueue()
    office.consume(refuse)
    await until(lambda: office.client.zscore(office.keys.delayed, key), what="it waits")
    assert await office.state(key) is TaskState.QUEUED
    assert await office.client.llen(office.keys.taken((await office.incarnations())[0])) == 0

    await office.client.zadd(office.keys.delayed, {key: 1})
    await office.stop(next(iter(office.consumers)))
    office.consume(office.at_once)
    await until(lambda: office.passes([key], TaskState.SUCCEEDED))


async def test_a_cancel_of_what_was_not_run_holds(office: Office) -> None:
    """A client's cancel that came while it was claimed would be forgotten, and the call be run after all."""
    claimed = asyncio.Event()

    async def refuse(task: ClaimedTask) -> None:
        claimed.set()
        await office.tasks.cancel(office.queue, task.key)
        raise NotRun("not now", delay_seconds=0.01)

    (key,) = await office.enqueue()
    office.consume(refuse)
    await claimed.wait()
    await until(lambda: office.all_in([key], TaskState.CANCELLED))


async def test_a_stop_gives_back_what_could_not_be_put_off(office: Office) -> None:
    """With Redis away it would stay held, and a call that must not run twice count as one that may have run."""
    (key,) = await office.enqueue(repeatable=False)
    refused = asyncio.Event()

    async def refuse(_: ClaimedTask) -> None:
        # Nothing is written from now on, until the stop has begun.
        await office.client.execute_command("CLIENT", "PAUSE", 1500, "WRITE")
        refused.set()
        raise NotRun("not now", delay_seconds=3600)

    consumer = office.consume(refuse, grace_seconds=0.1)
    await refused.wait()
    await office.stop(consumer)

    assert await office.state(key) is TaskState.QUEUED
