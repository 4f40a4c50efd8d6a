"""Calls of some bytes whose results are large: while those take all that their queue may hold, no more are started."""

from __future__ import annotations

import secrets
import time

import pytest
from support.kept import KeptTasks
from support.office import Office
from support.waiting import until

from poste.domain.policy import QueuePolicy
from poste.domain.task import TaskState
from poste.queue.consumer import ClaimedTask
from poste.queue.durability import Durability
from poste.queue.operators import Operators
from poste.queue.record import RECORD_BYTES
from poste.queue.steps.maintenance import Budget
from poste.queue.tasks import NewTask, Report

RESULT = 50_000
BUDGET = 500_000
CALLS = 60


class Store:
    """An office whose handlers answer with much."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.kept = KeptTasks(office.client, office.keys)

    async def enqueue(self, *, repeatable: bool = True, ttl: int = 600, count: int = CALLS) -> list[str]:
        keys = [secrets.token_urlsafe(12) for _ in range(count)]
        tasks = [NewTask(key, "Add", b"", time.time(), ttl, 3600, repeatable) for key in keys]
        said = await self.office.tasks.enqueue(self.office.queue, tasks, QueuePolicy(), Durability.ON_REPLY)
        assert set(said) == {"accepted"}
        return keys

    async def much(self, task: ClaimedTask) -> None:
        task.begin()
        self.office.ran.append(task.key)
        await self.office.tasks.complete(self.office.queue, [Report(task.key, task.token, "ok", b"x" * RESULT)])

    async def pass_(self, budget: Budget | None = None) -> bool:
        """Make a pass; returns whether it found the budget spent."""
        return (await self.office.maintenance.run_pass(self.office.queue, max_crashes=3, budget=budget)).is_spent

    async def stands_still(self) -> bool:
        """Whether it does, and all that was not run waits again."""
        figures = await self.office.queues.figures(self.office.queue)
        return figures.stands_still and figures.running == 0 and figures.queued == CALLS - len(self.office.ran)


@pytest.fixture
def store(office: Office) -> Store:
    return Store(office)


@pytest.mark.parametrize("repeatable", [True, False])
async def test_results_stop_at_their_queues_budget(store: Store, repeatable: bool) -> None:
    """Calls of some bytes were accepted by the thousand, and their results filled Redis: no more could be accepted."""
    office = store.office
    await store.pass_(Budget(BUDGET))
    keys = await store.enqueue(repeatable=repeatable)
    office.consume(store.much)
    await until(store.stands_still, what="the queue's stand")

    figures = await office.queues.figures(office.queue)
    # What ran meanwhile comes on top of it: so many as the consumer runs at once.
    assert BUDGET <= figures.kept_bytes <= BUDGET + 2 * office.settings.concurrency * (RESULT + 300)
    assert 0 < figures.kept < CALLS
    assert await store.pass_(Budget(BUDGET))
    assert {await office.state(key) for key in keys if key not in office.ran} == {TaskState.QUEUED}

    # Whenever there is room it goes on by itself, and everything ends.
    operators = Operators(office.client)
    while len(office.ran) < CALLS:
        before = len(office.ran)
        await store.kept.age_all()
        assert (await operators.purge_ended(office.queue)).purged > 0
        await until(lambda before=before: len(office.ran) > before, what="more")
        await until(lambda: _rests(store), what="the queue's next stand")
    assert sorted(office.ran) == sorted(keys)


async def _rests(store: Store) -> bool:
    return len(store.office.ran) == CALLS or await store.stands_still()


async def test_a_queue_goes_on_when_results_times_are_over(store: Store) -> None:
    """A queue that waits for an operator only would stand still for ever where there is none."""
    office = store.office
    await store.pass_(Budget(BUDGET))
    await store.enqueue()
    office.consume(store.much)
    await until(store.stands_still, what="the queue's stand")
    ran = list(office.ran)
    for key in ran:
        await store.kept.drop(key)
    assert not await store.pass_()
    await until(lambda: len(office.ran) > len(ran), what="more")


@pytest.mark.parametrize("budget", [Budget(10 * CALLS * RESULT), Budget(0, 2**30)])
async def test_a_budget_that_is_made_larger_is_heard_of(store: Store, budget: Budget) -> None:
    """An operator who gives the queue more would have to restart every service to see it go on."""
    office = store.office
    await store.pass_(Budget(BUDGET))
    await store.enqueue()
    office.consume(store.much)
    await until(store.stands_still, what="the queue's stand")
    # A middleware that does not know how much there is leaves it as it is.
    assert await store.pass_()

    assert not await store.pass_(budget)
    await until(lambda: len(office.ran) == CALLS, what="all run")


async def test_what_waits_meanwhile_expires_as_it_would(store: Store) -> None:
    """A call that waits behind others' results would never end, and its client not learn of it."""
    office = store.office
    await store.pass_(Budget(1))
    (first,), (late,) = await store.enqueue(count=1), await store.enqueue(count=1, ttl=1)
    office.consume(store.much, concurrency=1)
    await until(lambda: office.all_in([first], TaskState.SUCCEEDED))
    await until(lambda: office.passes([late], TaskState.EXPIRED), what="its end")
    assert office.ran == [first]


async def test_what_waits_never_stops_a_queue(store: Store) -> None:
    """A queue that is full of calls would start none of them, and so stay full."""
    office = store.office
    await store.pass_(Budget(10_000))
    await store.enqueue(count=CALLS)
    assert (await office.queues.figures(office.queue)).held_bytes > 10_000
    office.consume(office.at_once)
    await until(lambda: len(office.ran) >= 10_000 // RECORD_BYTES, what="calls run")
