"""What a record knows of its task's life, and which tasks are the newest: on real servers of each kind."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.queue_post import Post

from poste.domain.codes import Code
from poste.domain.policy import RetryPolicy
from poste.domain.task import DeadReason, TaskEventType, TaskState
from poste.queue.history import Histories, History
from poste.queue.steps import task as task_steps
from poste.queue.task_lists import ListedTask, TaskLists


async def _history(post: Post, key: str) -> History:
    return await Histories(post.client, post.tasks).read(post.queue, key)


async def _told(post: Post, key: str) -> list[str]:
    """Each event with the attempt, the state or the reason that it names."""
    events = (await _history(post, key)).events
    facts = [(event.type.value, event.attempt, event.state, event.dead_reason) for event in events]
    return [" ".join(str(getattr(fact, "value", fact)) for fact in one if fact is not None) for one in facts]


async def _recent(post: Post, count: int = 10) -> list[ListedTask]:
    return await TaskLists(post.client, post.tasks).newest(post.queue, count=count)


async def test_a_task_that_simply_ran_has_a_history(post: Post) -> None:
    """Most tasks do: what was asked of it, when it began and when it ended must be told with no note kept."""
    await post.join("me")
    before = time.time()
    key = await post.running("me")
    assert await _told(post, key) == ["accepted", "started 1"]
    assert await post.complete("me", key) == "succeeded"

    assert await _told(post, key) == ["accepted", "started 1", "ended S"]
    times = [event.time for event in (await _history(post, key)).events]
    assert times == sorted(times)
    assert before - 0.01 <= times[0] <= times[-1] <= time.time() + 0.01
    assert not await post.client.hexists(post.keys.record(key), "v")


async def test_what_became_of_each_attempt_is_told(post: Post) -> None:
    """A task that took long is looked into by this: each attempt must be there, with what ended it."""
    await post.join("me")
    key = await post.running("me")
    assert await post.complete("me", key, "retry") == "retried"
    await post.pass_()
    assert await post.take("me") == [key]
    assert await post.claim("me", key, 2) == "run"
    assert await post.give_back("me", key, "me:2", started=True) == 1
    await post.join("other")
    assert await post.take("other") == [key]
    assert await post.claim("other", key) == "run"
    await post.reap("other")
    await post.take("me")
    assert await post.claim("me", key, 3) == "run"
    await post.tasks.cancel(post.queue, key)
    await post.tasks.cancel(post.queue, key)
    assert await post.complete("me", key, "cancelled", seq=3) == "cancelled"

    assert await _told(post, key) == [
        *("accepted", "started 1", "retried 1", "started 2", "given-back 2", "started 2", "crashed 2"),
        *("started 3", "cancel-requested", "ended C"),
    ]


async def test_why_an_attempt_failed_is_told(post: Post) -> None:
    """An operator would see that it was tried again five times, and not that the ledger was away each time."""
    await post.join("me")
    key = await post.running("me")
    retry = RetryPolicy(max_attempts=5, backoff_seconds=0.001, max_backoff_seconds=0.001)
    report = task_steps.Report(key, "me:1", "retry", b"error", retry, Code.UNAVAILABLE)
    assert await post.tasks.complete(post.queue, [report]) == ["retried"]

    retried = (await _history(post, key)).events[-1]
    assert (retried.type, retried.code) == (TaskEventType.RETRIED, Code.UNAVAILABLE)


async def test_a_replay_of_what_failed_does_not_rewrite_the_past(post: Post) -> None:
    """Its history would say that it was given up, or nothing of the first attempt."""
    await post.join("me")
    key = await post.running("me")
    assert await post.complete("me", key, "final", b"error") == "failed"
    assert await post.operators.replay(post.queue, [key]) == ["done"]
    assert await post.operators.cancel(post.queue, [key], only_waiting=True) == ["done"]

    assert await _told(post, key) == ["accepted", "started 1", "ended F", "replayed", "ended C operator"]


async def test_a_replay_does_not_rewrite_the_past(post: Post) -> None:
    """Why it had died, and when, is what an operator looks for once it died again."""
    await post.join("me")
    key = await post.running("me", repeatable=False)
    assert await post.complete("me", key, "silent") == "dead"
    assert await _told(post, key) == ["accepted", "started 1", "ended D outcome-unknown"]
    (died,) = [event.time for event in (await _history(post, key)).events if event.type is TaskEventType.ENDED]

    assert await post.operators.replay(post.queue, [key]) == ["done"]
    assert await post.take("me") == [key]
    assert await post.claim("me", key, 2) == "run"
    assert await post.begin("me", key, 2) == "begun"
    assert await post.complete("me", key, seq=2) == "succeeded"
    assert await _told(post, key) == [
        *("accepted", "started 1", "ended D outcome-unknown", "replayed", "started 2", "ended S")
    ]
    ended = [event for event in (await _history(post, key)).events if event.type is TaskEventType.ENDED]
    assert (ended[0].time, ended[0].dead_reason) == (died, DeadReason.OUTCOME_UNKNOWN)


async def test_a_task_that_is_tried_for_ever_does_not_grow_for_ever(post: Post) -> None:
    """Twenty attempts are kept; that there were more is said, not hidden."""
    await post.join("me")
    key = await post.enqueue()
    for seq in range(1, 22):
        assert await post.take("me") == [key]
        assert await post.claim("me", key, seq) == "run"
        await post.client.hset(post.keys.record(key), "f", 0)
        assert await post.complete("me", key, "retry", seq=seq) == "retried"
        await post.client.zadd(post.keys.delayed, {key: 1})
        await post.pass_()

        history = await _history(post, key)
        assert history.truncated == (seq > 20)
    attempts = [event.attempt for event in history.events if event.type is TaskEventType.RETRIED]
    assert attempts == [*range(2, 22)]
    assert history.events[0].type is TaskEventType.ACCEPTED


async def test_an_overdue_task_is_told_as_ended(post: Post) -> None:
    """Its history must not say that it waits while its status says EXPIRED."""
    key = await post.enqueue(task_ttl_seconds=1)
    await post.client.hset(post.keys.record(key), "x", 1)
    assert await _told(post, key) == ["accepted", "ended E"]
    assert (await _history(post, "none")).events == []


async def test_the_newest_tasks_are_listed_newest_first(post: Post) -> None:
    """It is how one sees what goes on in a queue; each as it is, without what would make the list endless."""
    await post.join("me")
    done = await post.running("me")
    await post.complete("me", done)
    waits, other = [await post.enqueue(task_ttl_seconds=9, result_ttl_seconds=7) for _ in range(2)]
    gone, late = await post.enqueue(), await post.enqueue()
    await post.client.unlink(post.keys.record(gone))
    await post.client.hset(post.keys.record(late), "x", 1)

    recent = await _recent(post)
    assert [one.record.key for one in recent] == [late, other, waits, done]
    states = [TaskState.EXPIRED, TaskState.QUEUED, TaskState.QUEUED, TaskState.SUCCEEDED]
    assert [one.record.state for one in recent] == states
    assert (recent[1].task_ttl_seconds, recent[1].result_ttl_seconds) == (9, 7)
    assert not recent[-1].record.response
    assert [one.record.key for one in await _recent(post, 3)] == [late, other]


async def test_an_enqueue_that_is_repeated_is_listed_once(post: Post) -> None:
    """A lost answer is asked for again: the list must not have the task twice."""
    task: dict[str, Any] = {"key": "k", "method": "Add", "request": b"", "create_time": time.time()}
    task |= {"task_ttl_seconds": 60, "result_ttl_seconds": 60, "repeatable": True}
    assert await post.enqueue_all([task, task]) == ["accepted", "accepted"]
    assert await post.enqueue_all([task]) == ["accepted"]
    assert [one.record.key for one in await _recent(post)] == ["k"]


async def test_only_so_many_are_remembered(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that nothing shortens would fill the store."""
    monkeypatch.setattr(task_steps, "RECENT", 3)
    keys = [await post.enqueue() for _ in range(5)]
    assert [one.record.key for one in await _recent(post)] == keys[:1:-1]
    assert await post.client.llen(post.keys.recent) == 3
