"""Methods take turns: slow ones don't keep fast ones of their queue waiting, and limits of one method are its own."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest
from support.office import Office
from support.waiting import until

from poste.domain.policy import MethodPolicy
from poste.domain.task import TaskState
from poste.queue.consumer import ClaimedTask
from poste.queue.scripts import Scripts
from poste.queue.steps import consumer as steps

SLOW: Final = "Render"
FAST: Final = "Add"
#: A place counts as held for long after so many seconds (`lanes.LONG_SECONDS`), and a bit.
LONG: Final = 0.3


class Bench:
    """Handlers: the slow method's wait until they are let go, one by one; the fast one's end at once."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.gone = asyncio.Semaphore(0)
        self.started: list[tuple[str, str]] = []
        self.running = 0
        self.most = 0

    async def handle(self, task: ClaimedTask) -> None:
        task.begin()
        self.started.append((task.method, task.key))
        if task.method == SLOW:
            self.running += 1
            self.most = max(self.most, self.running)
            await self.gone.acquire()
            self.running -= 1
        task.handled()
        await self.office.report(task, "ok")

    def release(self, count: int = 1) -> None:
        for _ in range(count):
            self.gone.release()

    def methods(self) -> list[str]:
        return [method for method, _ in self.started]

    def keys(self, method: str) -> list[str]:
        return [key for one, key in self.started if one == method]


@pytest.fixture
def bench(office: Office) -> Bench:
    return Bench(office)


async def _held_for_long() -> None:
    """Return once what runs by now has held its places for long."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    await until(lambda: loop.time() - since > LONG, what="places held for long")


async def test_a_hundred_fast_ones_pass_two_hundred_slow_ones(office: Office, bench: Bench) -> None:
    """They waited for all of the slow ones, though the first place that came free would have done for all of them."""
    slow = await office.enqueue(200, method=SLOW)
    fast = await office.enqueue(100, method=FAST)
    office.consume(bench.handle)
    await until(lambda: len(bench.started) == 4)
    await _held_for_long()
    bench.release()
    await until(lambda: office.all_in(fast, TaskState.SUCCEEDED))

    assert bench.methods()[:104] == [SLOW] * 4 + [FAST] * 100
    assert bench.keys(FAST) == fast
    bench.release(200)
    await until(lambda: office.all_in(slow, TaskState.SUCCEEDED))
    assert bench.keys(SLOW) == slow


async def test_the_slow_ones_have_all_places_that_no_other_wants(office: Office, bench: Bench) -> None:
    """A share that is kept free for nothing is a process that idles before its backlog."""
    slow = await office.enqueue(12, method=SLOW)
    office.consume(bench.handle)
    await until(lambda: bench.running == 4)
    await _held_for_long()
    for done in range(1, 5):
        bench.release()
        await until(lambda done=done: len(bench.started) == 4 + done)

    assert bench.running == 4
    bench.release(8)
    await until(lambda: office.all_in(slow, TaskState.SUCCEEDED))
    assert bench.keys(SLOW) == slow


async def test_of_one_place_each_method_has_its_turn(office: Office, bench: Bench) -> None:
    """Where one call runs at a time no place is ever left: without turns the older method's backlog goes first."""
    slow = await office.enqueue(5, method=SLOW)
    fast = await office.enqueue(5, method=FAST)
    office.consume(bench.handle, concurrency=1)
    await until(lambda: bench.running == 1)
    for done in range(1, 6):
        await _held_for_long()
        bench.release()
        await until(lambda done=done: bench.methods().count(SLOW) > done or done == 5)
    await until(lambda: office.all_in([*slow, *fast], TaskState.SUCCEEDED))

    assert bench.methods()[:2] == [SLOW, FAST]
    assert bench.keys(SLOW) == slow


async def test_a_methods_own_limit_leaves_the_other_places_to_others(office: Office, bench: Bench) -> None:
    """An author who knows a method to be slow says so: then not even the first fast one waits for a slow one."""
    slow = await office.enqueue(200, method=SLOW)
    fast = await office.enqueue(100, method=FAST)
    office.consume(bench.handle, limits={SLOW: MethodPolicy(concurrency=1)})
    await until(lambda: office.all_in(fast, TaskState.SUCCEEDED))

    assert (bench.running, bench.most) == (1, 1)
    bench.release(200)
    await until(lambda: office.all_in(slow, TaskState.SUCCEEDED))
    assert bench.most == 1
    assert bench.keys(SLOW) == slow
    assert not await office.client.exists(office.keys.lanes, office.keys.lane(SLOW))


async def test_what_has_to_begin_one_by_one_has_turns_too(office: Office, bench: Bench) -> None:
    """Tasks that must not run twice are prefetched: those in a lane must not be, for they would have the places."""
    slow = await office.enqueue(20, method=SLOW, repeatable=False)
    fast = await office.enqueue(20, method=FAST, repeatable=False)
    office.consume(bench.handle, limits={SLOW: MethodPolicy(concurrency=2)})
    await until(lambda: office.all_in(fast, TaskState.SUCCEEDED))

    bench.release(20)
    await until(lambda: office.all_in(slow, TaskState.SUCCEEDED))
    assert bench.most <= 2
    assert len(bench.started) == 40


async def test_another_process_takes_what_one_has_parked(office: Office, bench: Bench) -> None:
    """The limit is each process' own: one that idles must find what its neighbour has no place for, dead or alive."""
    slow = await office.enqueue(3, method=SLOW)
    limits = {SLOW: MethodPolicy(concurrency=1)}
    first = office.consume(bench.handle, limits=limits)
    await until(lambda: office.client.llen(office.keys.lane(SLOW)), what="the lane")
    await until(lambda: bench.running == 1)
    office.consume(bench.handle, limits=limits)
    await until(lambda: bench.running == 2)

    bench.release(3)
    await until(lambda: office.all_in(slow, TaskState.SUCCEEDED))
    await office.stop(first)


async def test_what_comes_to_a_blocked_consumer_has_its_turn_when_a_place_is_free(office: Office, bench: Bench) -> None:
    """A consumer that waits at the empty queue would see its own free place only when that wait is over."""
    office.consume(bench.handle, limits={SLOW: MethodPolicy(concurrency=1)})
    slow = [(await office.enqueue(1, method=SLOW))[0] for _ in range(20)]
    for done in range(20):
        await until(lambda done=done: len(bench.started) > done)
        bench.release()
    await until(lambda: office.all_in(slow, TaskState.SUCCEEDED))

    assert bench.keys(SLOW) == slow


async def test_a_pace_holds_for_all_processes_together(office: Office) -> None:
    """What a method calls may allow ten calls a second, from all together: two processes must not make twenty."""
    scripts, at = Scripts(office.client), office.keys
    keys = await office.enqueue(30, method=SLOW)
    for name in ("a", "b"):
        await steps.join(scripts, at, name, lease_seconds=60)
    taken = await steps.take(scripts, at, "a", count=30)
    numbered = [(key, seq) for seq, key in enumerate(taken, 1)]
    said = await steps.claim(
        scripts, at, "a", numbered, most_bytes=1 << 20, on_disk=True, parked=[SLOW], room=4, front_count=0
    )
    assert isinstance(said, steps.Claims)
    assert (said.results, said.parked) == (["parked"] * 30, {SLOW})

    first = await steps.take_lane(scripts, at, "a", SLOW, count=7, per_second=10)
    rest = await steps.take_lane(scripts, at, "b", SLOW, count=20, per_second=10)
    none = await steps.take_lane(scripts, at, "a", SLOW, count=1, per_second=0.01)
    other = await steps.take_lane(scripts, at, "b", SLOW, count=2, per_second=None)

    assert [*first.keys, *rest.keys][:10] == keys[:10]
    assert len(rest.keys) < 13
    assert 0 < rest.wait_seconds <= 0.1
    assert (none.keys, none.wait_seconds > 0) == ([], True)
    assert (len(other.keys), other.wait_seconds) == (2, 0)


async def test_all_of_a_paced_method_is_run(office: Office) -> None:
    """Each wait for the pace must end by itself: nothing else wakes a consumer whose queue is empty."""
    keys = await office.enqueue(60, method=SLOW)
    for _ in range(2):
        office.consume(office.at_once, limits={SLOW: MethodPolicy(starts_per_second=40)})
    await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))

    assert sorted(office.ran) == sorted(keys)


async def test_a_retry_is_first_in_its_lane(office: Office, bench: Bench) -> None:
    """It is older than what waits there: behind a long lane it would not be tried again for hours."""
    keys = await office.enqueue(4, method=SLOW)
    # Its handler failed before.
    await office.client.hset(office.keys.record(keys[3]), "f", "1")
    office.consume(bench.handle, limits={SLOW: MethodPolicy(concurrency=1)})
    await until(lambda: _lane(office, 3), what="the lane")
    bench.release(4)
    await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))

    assert bench.keys(SLOW) == [keys[0], keys[3], *keys[1:3]]


async def test_tasks_in_lanes_end_in_time(office: Office, bench: Bench) -> None:
    """A pass settles what is overdue, and takes off what was cancelled, wherever it waits: else lanes grow for ever."""
    limits = {SLOW: MethodPolicy(concurrency=1)}
    (running,) = await office.enqueue(1, method=SLOW)
    consumer = office.consume(bench.handle, limits=limits)
    await until(lambda: bench.running == 1)
    cancelled, overdue, left = await office.enqueue(3, method=SLOW)
    await until(lambda: _lane(office, 3), what="the lane")
    await office.tasks.cancel(office.queue, cancelled)
    await office.client.hset(office.keys.record(overdue), "x", "1")
    await office.maintenance.run_pass(office.queue, max_crashes=3)

    # Not settled by these very reads.
    assert await office.client.hget(office.keys.record(overdue), "s") == b"E"
    assert await office.client.lrange(office.keys.lane(SLOW), 0, -1) == [left.encode()]
    figures = await office.queues.figures(office.queue)
    assert (figures.queued, figures.running, figures.lanes) == (1, 1, {SLOW: 1})
    assert figures.oldest_age_seconds is not None
    bench.release(2)
    await until(lambda: office.all_in([running, left], TaskState.SUCCEEDED))
    await office.stop(consumer)


async def _lane(office: Office, length: int) -> bool:
    return int(await office.client.llen(office.keys.lane(SLOW))) == length


async def test_a_pause_holds_in_lanes(office: Office, bench: Bench) -> None:
    """What waits apart is of the queue all the same."""
    await office.enqueue(4, method=SLOW)
    office.consume(bench.handle, limits={SLOW: MethodPolicy(concurrency=1)})
    await until(lambda: bench.running == 1)
    await office.client.hset(office.keys.counts, "paused", "1")
    bench.release(4)
    await until(lambda: bench.running == 0)
    await office.enqueue(1, method=FAST)
    await _held_for_long()
    assert len(bench.started) == 1

    await office.client.hdel(office.keys.counts, "paused")
    await until(lambda: len(bench.started) == 5)
