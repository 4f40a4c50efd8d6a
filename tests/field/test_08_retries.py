"""How long a queued task is tried again: as long as it may wait, unless a cap is set; and where a cap is set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.queue_post import Post
from support.redis_server import RedisServer

from poste.domain.policy import MAX_DEFECTS, RetryPolicy
from poste.domain.task import DeadReason, TaskState
from poste.queue.connection import open_client
from poste.runtime.settings import StoreSettings

#: As the defaults are, but for the time.
HASTY = RetryPolicy(backoff_seconds=1e-6, max_backoff_seconds=1e-6)


@pytest.fixture
async def office(redis_server: RedisServer, queue: str) -> AsyncIterator[Office]:
    client = open_client(StoreSettings(redis_url=redis_server.url))
    office = Office(client, queue)
    office.retry = HASTY
    await office.join("me")
    yield office
    await client.aclose()


class Office(Post):
    """A queue whose one consumer's handlers fail as the test says."""

    seq = 0

    async def run(self, key: str, ending: str, payload: bytes = b"") -> str:
        """Let a waiting task be due, and run it once; returns what became of it."""
        await self.client.zadd(self.keys.delayed, {key: 1}, xx=True)
        await self.pass_()
        assert await self.take("me") == [key]
        self.seq += 1
        assert await self.claim("me", key, self.seq) == "run"
        return await self.complete("me", key, ending, payload, seq=self.seq)

    async def make_overdue(self, key: str) -> None:
        await self.client.hset(self.keys.record(key), "x", 1)


async def test_a_task_outlives_its_dependencys_outage(office: Office) -> None:
    """A call that may wait for a day would be DEAD five seconds into the outage of what its handler needs."""
    key = await office.enqueue()
    for number in range(4 * MAX_DEFECTS):
        assert await office.run(key, ("retry", "silent")[number % 2], b"away") == "retried"

    assert await office.run(key, "ok", b"3") == "succeeded"
    record = await office.record(key)
    assert (record.state, record.response, record.error) == (TaskState.SUCCEEDED, b"3", None)


@pytest.mark.parametrize("ending", ["defect", "overdue"])
async def test_a_failure_that_nobody_foresaw_is_not_tried_all_day(office: Office, ending: str) -> None:
    """A defect would be run 1,440 times a day; and what an outage did before must not count as one."""
    key = await office.enqueue()
    for _ in range(MAX_DEFECTS):
        assert await office.run(key, "retry") == "retried"
    for _ in range(MAX_DEFECTS - 1):
        assert await office.run(key, ending) == "retried"

    assert await office.run(key, ending, b"why") == "dead"
    record = await office.record(key)
    assert (record.dead_reason, record.error) == (DeadReason.ATTEMPTS, b"why")


async def test_a_replay_forgets_what_was_counted(office: Office) -> None:
    """What an operator has run again after mending it would be DEAD at the next failure."""
    key = await office.enqueue()
    said = [await office.run(key, "defect") for _ in range(MAX_DEFECTS)]
    assert said[-1] == "dead"

    assert await office.operators.replay(office.queue, [key]) == ["done"]
    assert await office.run(key, "defect") == "retried"


@pytest.mark.parametrize("ending", ["retry", "silent", "defect", "overdue"])
async def test_a_cap_counts_failures_of_every_kind(office: Office, ending: str) -> None:
    """`max_attempts = 3` would be three failures of one kind, and who knows how many of another."""
    office.retry = RetryPolicy(max_attempts=3, backoff_seconds=1e-6, max_backoff_seconds=1e-6)
    key = await office.enqueue()

    assert [await office.run(key, "retry"), await office.run(key, ending), await office.run(key, ending)] == [
        *("retried", "retried", "dead")
    ]


async def test_waits_grow_to_a_minute_and_are_never_none(office: Office) -> None:
    """Waits of next to nothing use tries up in no time; waits that are all alike bring all tasks back at once."""
    office.retry = RetryPolicy()
    waits: list[list[float]] = []
    keys = [await office.enqueue() for _ in range(12)]
    for key in keys:
        waits.append([])
        for _ in range(9):
            assert await office.run(key, "retry") == "retried"
            due = await office.client.zscore(office.keys.delayed, key)
            now = (await office.tasks.read(office.queue, key)).now
            waits[-1].append(due / 1000 - now)
        await office.tasks.cancel(office.queue, key)

    for number, longest in enumerate([1, 2, 4, 8, 16, 32, 60, 60, 60]):
        of_number = [one[number] for one in waits]
        # A busy machine reads the clock late, never early.
        assert longest / 2 - 0.5 < min(of_number) <= max(of_number) <= longest
        assert max(of_number) - min(of_number) > longest / 50


async def test_the_thousandth_wait_is_a_minute_too(office: Office) -> None:
    """Doubled a thousand times a wait is more than a number holds."""
    office.retry = RetryPolicy()
    key = await office.enqueue()
    await office.run(key, "retry")
    await office.client.hset(office.keys.record(key), "f", 2000)

    assert await office.run(key, "retry") == "retried"
    assert (
        await office.client.zscore(office.keys.delayed, key) / 1000 - (await office.tasks.read(office.queue, key)).now
        < 61
    )


async def settle_by_reading(office: Office, key: str) -> None:
    await office.tasks.read(office.queue, key)


async def settle_by_cancelling(office: Office, key: str) -> None:
    await office.tasks.cancel(office.queue, key)


async def settle_by_a_pass(office: Office, key: str) -> None:
    await office.client.zadd(office.keys.delayed, {key: 1}, xx=True)
    await office.pass_()


async def settle_by_a_claim(office: Office, key: str) -> None:
    await office.client.zrem(office.keys.delayed, key)
    await office.client.rpush(office.keys.taken("me"), key)
    await office.client.lrem(office.keys.ready, 0, key)
    assert await office.claim("me", key, 99) == "drop"


@pytest.mark.parametrize("settle", [settle_by_reading, settle_by_cancelling, settle_by_a_pass, settle_by_a_claim])
async def test_what_failed_until_its_time_was_over_is_dead_and_says_why(office: Office, settle: Any) -> None:
    """EXPIRED says that the service did not come back: it was there, and failed; and EXPIRED can't be replayed."""
    failed, waited = await office.enqueue(), await office.enqueue()
    assert await office.run(failed, "retry", b"why") == "retried"
    await office.make_overdue(failed)
    await settle(office, failed)
    await office.make_overdue(waited)
    await settle(office, waited)

    record = await office.record(failed)
    assert (record.state, record.dead_reason, record.error) == (TaskState.DEAD, DeadReason.ATTEMPTS, b"why")
    assert await office.state(waited) is TaskState.EXPIRED
    assert await office.figures() == (0, 0, 0, 1)
    totals = (await office.queues.figures(office.queue)).totals
    assert (totals["D"], totals["dead:attempts"], totals["E"]) == (1, 1, 1)
    assert await office.operators.replay(office.queue, [failed]) == ["done"]


async def test_a_task_that_fails_after_its_time_is_not_tried_again(office: Office) -> None:
    """It would wait to be settled, as one whose turn may still come."""
    key = await office.enqueue()
    await office.take("me")
    await office.claim("me", key)
    await office.make_overdue(key)

    assert await office.complete("me", key, "retry", b"why") == "dead"
