"""The queue's scripts, step by step, on real servers of each kind: what each may and may not do to a task."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from support.queue_post import Post, word_of

from poste.domain.policy import QueuePolicy
from poste.domain.task import DeadReason, TaskState
from poste.queue.steps import consumer as steps
from poste.queue.task_filter import Search, TaskFilter
from poste.queue.task_lists import TaskLists


async def test_a_task_lives_from_enqueue_to_its_result(post: Post) -> None:
    """The main road: without it nothing works."""
    await post.join("me")
    key = await post.enqueue()
    assert (await post.record(key)).state is TaskState.QUEUED
    assert await post.figures() == (1, 0, 0, 0)

    assert await post.take("me") == [key]
    assert await post.claim("me", key) == "run"
    assert await post.figures() == (0, 1, 0, 0)
    assert await post.complete("me", key) == "succeeded"

    record = await post.record(key)
    assert (record.state, record.response, record.attempt) == (TaskState.SUCCEEDED, b"3", 1)
    assert await post.figures() == (0, 0, 0, 0)
    assert await post.client.llen(post.keys.taken("me")) == 0
    assert not await post.client.hget(post.keys.record(key), "q")


async def test_the_oldest_is_taken_first(post: Post) -> None:
    """A queue that is not first in, first out starves its oldest task."""
    await post.join("me")
    keys = [await post.enqueue() for _ in range(5)]

    assert await post.take("me", 3) + await post.take("me", 9) == keys


async def test_an_enqueue_that_is_repeated_keeps_one_task(post: Post) -> None:
    """A lost reply is asked for again with the same id: it must not run twice."""
    key = await post.enqueue()
    await post.enqueue(key)

    assert await post.figures() == (1, 0, 0, 0)
    assert await post.client.llen(post.keys.ready) == 1


async def test_an_enqueue_that_is_repeated_within_one_batch_keeps_one_task(post: Post) -> None:
    """Batches are made by callers: the same id twice in one must not stand in the queue twice."""
    task = {
        "key": "k", "method": "m", "request": b"", "create_time": time.time(),
        "task_ttl_seconds": 9, "result_ttl_seconds": 9, "repeatable": True,
    }  # fmt: skip
    assert await post.enqueue_all([task, task]) == ["accepted", "accepted"]
    assert await post.client.llen(post.keys.ready) == 1


async def test_calls_with_one_idempotency_key_have_one_record(post: Post) -> None:
    """Its one record is what keeps a call from running twice, whichever way its repeats come."""
    await post.join("me")
    first = {
        "key": "k" * 16, "method": "m", "request": b"1", "create_time": time.time(), "task_ttl_seconds": 9,
        "result_ttl_seconds": 9, "repeatable": False, "id_rest": "first", "request_digest": "one",
    }  # fmt: skip
    second, third = {**first, "id_rest": "second"}, {**first, "id_rest": "third", "request_digest": "other"}
    said = ["accepted", "known first", "reused", "accepted"]

    assert await post.enqueue_all([first, second, third, first]) == said
    assert await post.enqueue_all([first, second, third, first]) == said
    assert await post.take("me", 9) == [first["key"]]
    assert await post.claim("me", first["key"]) == "run"
    assert await post.begin("me", first["key"]) == "begun"
    assert await post.enqueue_all([second]) == ["known first"]
    await post.complete("me", first["key"])
    assert await post.enqueue_all([second, third]) == ["known first", "reused"]
    assert await post.figures() == (0, 0, 0, 0)
    # Its time is over: the key is free, and names another call from here on.
    await post.client.delete(post.keys.record(first["key"]))
    assert await post.enqueue_all([third, first]) == ["accepted", "reused"]


async def test_a_damaged_record_of_an_idempotency_key_is_no_other_calls(post: Post) -> None:
    """Else a call runs again because its record can't be read, or is told that it had another request."""
    task = {
        "key": "k" * 16, "method": "m", "request": b"1", "create_time": time.time(), "task_ttl_seconds": 9,
        "result_ttl_seconds": 9, "repeatable": False, "id_rest": "mine", "request_digest": "one",
    }  # fmt: skip
    await post.client.set(post.keys.record(task["key"]), "nonsense")

    assert await post.enqueue_all([task]) == ["known "]


@pytest.mark.parametrize("drift", [-31, 31])
async def test_an_enqueue_that_is_too_old_is_refused(post: Post, drift: int) -> None:
    """A replay that arrives after the record is gone would run an ended task again."""
    task = {
        "key": "k", "method": "m", "request": b"", "create_time": time.time() + drift,
        "task_ttl_seconds": 9, "result_ttl_seconds": 9, "repeatable": True,
    }  # fmt: skip
    assert await post.enqueue_all([task]) == ["clock"]
    assert await post.figures() == (0, 0, 0, 0)


async def test_a_full_queue_refuses_and_keeps_what_it_has(post: Post) -> None:
    """Without a bound a service that never returns fills the memory that all share."""
    post.policy = QueuePolicy(max_length=2)
    task = {
        "method": "m", "request": b"", "create_time": time.time(),
        "task_ttl_seconds": 9, "result_ttl_seconds": 9, "repeatable": True,
    }  # fmt: skip
    assert await post.enqueue_all([{**task, "key": str(i)} for i in range(3)]) == ["accepted", "accepted", "full"]
    assert await post.figures() == (2, 0, 0, 0)


async def test_too_many_bytes_refuse(post: Post) -> None:
    """A few huge requests fill the memory as well as many small ones."""
    post.policy = QueuePolicy(max_bytes=10)
    await post.enqueue(request=b"12345678")
    task = {
        "key": "k", "method": "m", "request": b"123", "create_time": time.time(),
        "task_ttl_seconds": 9, "result_ttl_seconds": 9, "repeatable": True,
    }  # fmt: skip
    assert await post.enqueue_all([task]) == ["full"]


async def test_an_empty_request_is_a_request(post: Post) -> None:
    """Zeros take no byte in protobuf, and minus nothing is what Redis before 7.2 can't count: calls would get stuck."""
    await post.join("me")
    key = await post.running("me", request=b"")
    assert await post.figures() == (0, 1, 0, 0)
    assert await post.complete("me", key) == "succeeded"
    cancelled = await post.enqueue(request=b"")
    await post.tasks.cancel(post.queue, cancelled)

    assert await post.state(cancelled) is TaskState.CANCELLED
    assert await post.client.hmget(post.keys.counts, ["waiting", "bytes", "running"]) == [b"0", b"0", b"0"]


async def test_a_claim_needs_the_key_in_the_own_list(post: Post) -> None:
    """Possession is ownership: a claim of what another holds would run it twice."""
    await post.join("me")
    await post.join("other")
    key = await post.enqueue()
    await post.take("other")

    assert await post.claim("me", key) == "drop"
    assert await post.state(key) is TaskState.QUEUED


async def test_a_claim_without_a_lease_is_fenced(post: Post) -> None:
    """A process that was reaped must not start what it still believes to hold."""
    key = await post.enqueue()
    await post.take("ghost")

    assert await post.claim("ghost", key) == "fenced"


async def test_a_claim_whose_answer_was_lost_answers_the_same(post: Post) -> None:
    """The claimer asks again: it must get its task, counted once."""
    await post.join("me")
    key = await post.running("me")

    assert await post.claim("me", key, 1) == "run"
    assert (await post.record(key)).attempt == 1
    assert await post.figures() == (0, 1, 0, 0)


async def test_a_late_claim_with_a_lower_seq_is_refused(post: Post) -> None:
    """A command that was long under way must not take the token from a running handler."""
    await post.join("me")
    key = await post.enqueue()
    await post.take("me")
    assert await post.claim("me", key, 2) == "run"

    assert await post.claim("me", key, 1) == "drop"
    assert await post.complete("me", key, seq=2) == "succeeded"


async def test_a_result_needs_the_token(post: Post) -> None:
    """A consumer that lost its task must not overwrite the result of who has it now."""
    await post.join("me")
    key = await post.running("me")

    assert await post.complete("me", key, seq=7) == "refused"
    assert await post.complete("other", key) == "refused"
    assert await post.state(key) is TaskState.RUNNING


async def test_a_result_that_is_reported_again_is_stored_once(post: Post) -> None:
    """A lost reply is asked for again; one result, and the first one."""
    await post.join("me")
    key = await post.running("me")
    await post.complete("me", key, payload=b"3")

    assert await post.complete("me", key, payload=b"4") == "replayed"
    assert (await post.record(key)).response == b"3"
    assert await post.figures() == (0, 0, 0, 0)


async def test_a_result_of_a_task_that_is_gone_creates_nothing(post: Post) -> None:
    """HSET on an expired key would leave a record without TTL, for ever."""
    assert await post.complete("me", "gone") == "refused"
    assert await post.client.exists(post.keys.record("gone")) == 0


async def test_a_final_record_lives_as_long_as_its_result(post: Post) -> None:
    """Without a TTL memory fills up; with a short one an old enqueue could run it again."""
    await post.join("me")
    long = await post.running("me", result_ttl_seconds=600)
    short = await post.running("me", result_ttl_seconds=1)
    await post.complete("me", long)
    await post.complete("me", short)

    assert 590 < await post.client.ttl(post.keys.record(long)) <= 600
    assert 50 < await post.client.ttl(post.keys.record(short)) <= 60


async def test_a_result_past_its_ttl_is_not_shown(post: Post) -> None:
    """The record outlives a short TTL; the client was promised no more than the TTL."""
    await post.join("me")
    # It must have been created before the end that is made earlier here.
    key = await post.running("me", result_ttl_seconds=1, create_time=time.time() - 2)
    await post.complete("me", key)
    await post.client.hincrby(post.keys.record(key), "z", -1001)

    assert (await post.tasks.read(post.queue, key)).record is None


async def test_a_failure_is_tried_again_and_then_dead(post: Post) -> None:
    """Retries are what the queued road is for; without an end poison circles for ever."""
    await post.join("me")
    key = await post.enqueue()
    for attempt in range(1, 6):
        await post.pass_()
        assert await post.take("me") == [key]
        assert await post.claim("me", key, attempt) == "run"
        said = await post.complete("me", key, "retry", b"error", seq=attempt)
        assert said == ("dead" if attempt == 5 else "retried")
        if attempt < 5:
            assert await post.figures() == (0, 0, 1, 0)
            await asyncio.sleep(0.002)

    record = await post.record(key)
    assert (record.state, record.dead_reason, record.error, record.attempt) == (
        TaskState.DEAD, DeadReason.ATTEMPTS, b"error", 5,
    )  # fmt: skip
    assert await post.client.ttl(post.keys.record(key)) == -1
    assert await post.figures() == (0, 0, 0, 1)


async def test_a_final_error_is_the_result(post: Post) -> None:
    """INVALID_ARGUMENT does not get better by trying again."""
    await post.join("me")
    key = await post.running("me")

    assert await post.complete("me", key, "final", b"error") == "failed"
    assert (await post.record(key)).error == b"error"


@pytest.mark.parametrize(
    ("ending", "said", "state"), [("retry", "failed", TaskState.FAILED), ("silent", "dead", TaskState.DEAD)]
)
async def test_what_must_not_run_twice_is_not_retried(post: Post, ending: str, said: str, state: TaskState) -> None:
    """At most once: an error is its answer, silence makes its outcome unknown."""
    await post.join("me")
    key = await post.running("me", repeatable=False)

    assert await post.complete("me", key, ending, b"error") == said
    record = await post.record(key)
    assert record.state is state
    assert record.dead_reason is (DeadReason.OUTCOME_UNKNOWN if state is TaskState.DEAD else None)
    assert await post.client.llen(post.keys.ready) == await post.client.zcard(post.keys.delayed) == 0


async def test_the_tasks_of_a_dead_process_run_again(post: Post) -> None:
    """A kill -9 in the middle of tasks: none may be lost, and what was not claimed counts nothing."""
    await post.join("me")
    claimed, taken = await post.enqueue(), await post.enqueue()
    await post.take("me", 2)
    await post.claim("me", claimed)

    report = await post.reap("me")

    assert report.reaped == {"crashed": 1, "requeued": 1}
    assert await post.state(claimed) is await post.state(taken) is TaskState.QUEUED
    assert await post.figures() == (2, 0, 0, 0)
    assert await post.complete("me", claimed) == "refused"


async def test_a_live_owner_is_not_reaped(post: Post) -> None:
    """A lease that holds protects its tasks."""
    await post.join("me")
    key = await post.running("me")
    await post.pass_()

    assert not (await post.pass_()).reaped
    assert await post.complete("me", key) == "succeeded"


async def test_nobody_is_reaped_after_redis_was_away(post: Post) -> None:
    """While Redis was down no lease could be renewed: reaping then would run everything twice."""
    await post.join("me", lease_seconds=6)
    key = await post.running("me")
    await post.pass_()
    await post.client.hincrby(post.keys.counts, "pass", -3_600_000)

    assert not (await post.pass_()).reaped
    assert await post.state(key) is TaskState.RUNNING


async def test_a_lease_that_was_renewed_after_an_absence_is_as_long_as_any(post: Post) -> None:
    """Counted by the store's time it would last for as long as the absence did, though its owner died meanwhile."""
    await post.pass_()
    await post.client.hincrby(post.keys.counts, "pass", -3_600_000)
    await post.join("me", lease_seconds=6)
    await post.pass_()

    clock = int(await post.client.hget(post.keys.counts, "clock"))
    assert 4000 < await post.client.zscore(post.keys.leases, "me") - clock <= 6000


async def test_a_reaped_process_cannot_renew(post: Post) -> None:
    """Renewing must not bring a reaped incarnation back: its tasks are another's."""
    await post.join("me")
    await post.reap("me")

    assert not await post.renew("me")
    assert await post.client.zscore(post.keys.leases, "me") is None


async def test_a_late_pop_of_a_reaped_process_is_swept(post: Post) -> None:
    """A killed process' last BLMOVE may still arrive: its key would stand in a list that is not read."""
    await post.join("me")
    await post.reap("me")
    key = await post.enqueue()
    await post.take("me")

    assert (await post.pass_()).reaped == {"requeued": 1}
    await post.join("other")
    assert await post.take("other") == [key]


async def test_a_pass_after_a_silence_shortens_no_lease(post: Post) -> None:
    """A service whose lease is longer than the middleware's would lose its tasks, and have them run twice."""
    await post.join("patient", lease_seconds=60)
    before = await post.client.zscore(post.keys.leases, "patient")
    await post.pass_()

    assert await post.client.zscore(post.keys.leases, "patient") >= before


async def test_a_list_without_any_lease_is_reaped(post: Post) -> None:
    """After a restore, or an hour after its reaping, a list could stand there for ever."""
    key = await post.enqueue()
    await post.take("nobody")

    assert await post.maintenance.reap_orphans() >= 1
    await post.pass_()
    await post.join("me")
    assert await post.take("me") == [key]


async def test_poison_on_its_own_is_dead_after_its_crashes(post: Post) -> None:
    """A request that kills its process each time must end, else nothing behind it ever runs."""
    await post.join("life0")
    poison = await post.running("life0")
    for crash in range(1, 3):
        assert (await post.reap(f"life{crash - 1}")).reaped == {"crashed": 1}
        await post.join(f"life{crash}")
        await post.take(f"life{crash}")
        assert await post.claim(f"life{crash}", poison) == "run"
    assert (await post.reap("life2")).reaped == {"dead": 1}

    record = await post.record(poison)
    assert (record.state, record.dead_reason) == (TaskState.DEAD, DeadReason.CRASHES)
    assert await post.figures() == (0, 0, 0, 1)


async def test_poison_does_not_take_its_neighbours_along(post: Post) -> None:
    """A neighbour crashes with it, which says nothing about the neighbour: from the second time on each runs alone."""
    keys = [await post.enqueue(), await post.enqueue()]
    for number in range(2):
        name = f"together{number}"
        await post.join(name)
        await post.take(name, 2)
        assert [await post.claim(name, key) for key in keys] == ["run", "run"]
        assert (await post.reap(name)).reaped == {"crashed": 2}

    for number in range(3):
        name = f"alone{number}"
        await post.join(name)
        await post.take(name, 2)
        assert [await post.claim(name, key) for key in keys] == ["suspect", "suspect"]
        assert await post.state(keys[0]) is TaskState.QUEUED
        assert await post.claim(name, keys[0], 2, alone=True) == "run"
        await post.reap(name)

    assert (await post.record(keys[0])).dead_reason is DeadReason.CRASHES
    assert await post.state(keys[1]) is TaskState.QUEUED


async def test_what_must_not_run_twice_is_dead_when_its_process_dies(post: Post) -> None:
    """It may have run: never guessed, never run again."""
    await post.join("me")
    key = await post.running("me", repeatable=False)
    waiting = await post.enqueue(repeatable=False)
    await post.take("me")

    assert (await post.reap("me")).reaped == {"dead": 1, "requeued": 1}
    assert (await post.record(key)).dead_reason is DeadReason.OUTCOME_UNKNOWN
    assert await post.state(waiting) is TaskState.QUEUED


async def test_a_stop_is_no_attempt(post: Post) -> None:
    """Deploys must not use up attempts."""
    await post.join("me")
    key = await post.running("me")

    assert await post.give_back("me", key, "me:1", started=True) == 1
    assert ((await post.record(key)).state, (await post.record(key)).attempt) == (TaskState.QUEUED, 0)
    assert await post.figures() == (1, 0, 0, 0)
    assert await post.leave("me")


async def test_a_stop_in_the_middle_of_what_must_not_run_twice(post: Post) -> None:
    """Its handler had started: it may have run."""
    await post.join("me")
    started = await post.running("me", repeatable=False)
    waiting = await post.enqueue(repeatable=False)
    await post.take("me")

    assert await post.give_back("me", started, "me:1", started=True) == 0
    assert await post.give_back("me", waiting, "", started=False) == 1
    assert (await post.record(started)).dead_reason is DeadReason.OUTCOME_UNKNOWN


async def test_a_cancel_outlives_a_stop(post: Post) -> None:
    """A claim whose answer was lost, a cancel, and a stop: elsewhere the call would be started all the same."""
    await post.join("me")
    key = await post.running("me")
    await post.tasks.cancel(post.queue, key)

    assert await post.give_back("me", key, "", started=False) == 0
    assert await post.state(key) is TaskState.CANCELLED
    assert await post.figures() == (0, 0, 0, 0)


async def test_one_who_still_holds_something_cannot_leave(post: Post) -> None:
    """Ending the lease with keys in the list would leave them to the slow search for orphans."""
    await post.join("me")
    await post.running("me")

    assert not await post.leave("me")


async def test_a_waiting_task_is_cancelled_for_good(post: Post) -> None:
    """A cancel that does not stick is worse than none."""
    await post.join("me")
    key = await post.enqueue()
    reading = await post.tasks.cancel(post.queue, key)

    assert reading.record is not None
    assert reading.record.state is TaskState.CANCELLED
    assert await post.figures() == (0, 0, 0, 0)
    assert await post.take("me") == [key]
    assert await post.claim("me", key) == "drop"
    assert await post.client.llen(post.keys.taken("me")) == 0


async def test_a_cancelled_key_does_not_stay_in_the_queue(post: Post) -> None:
    """With the service away, cancelled keys would pile up in memory."""
    key = await post.enqueue()
    await post.tasks.cancel(post.queue, key)
    await post.pass_()

    assert await post.client.llen(post.keys.ready) == 0


@pytest.mark.parametrize("ending", ["ok", "cancelled", "retry"])
async def test_a_running_task_that_is_asked_to_stop(post: Post, ending: str) -> None:
    """It may still end first; if it fails or stops it is cancelled, never tried again."""
    await post.join("me")
    key = await post.running("me")
    reading = await post.tasks.cancel(post.queue, key)
    assert reading.record is not None
    assert (reading.record.state, reading.record.cancel_requested) == (TaskState.RUNNING, True)

    await post.complete("me", key, ending)
    assert await post.state(key) is (TaskState.SUCCEEDED if ending == "ok" else TaskState.CANCELLED)


async def test_a_task_that_was_asked_to_stop_and_died_is_cancelled(post: Post) -> None:
    """Its client wants it no more: running it again would be the cancel that does not stick."""
    await post.join("me")
    key = await post.running("me")
    await post.tasks.cancel(post.queue, key)
    await post.reap("me")

    assert await post.state(key) is TaskState.CANCELLED


async def test_an_overdue_task_expires_though_its_service_never_returns(post: Post) -> None:
    """The status must not say QUEUED of what will never be run."""
    overdue = await post.enqueue(task_ttl_seconds=1)
    fine = await post.enqueue()
    await post.client.hincrby(post.keys.record(overdue), "x", -2000)

    await post.pass_()
    assert await post.state(overdue) is TaskState.EXPIRED
    assert await post.state(fine) is TaskState.QUEUED
    assert await post.figures() == (1, 0, 0, 0)
    assert await post.client.llen(post.keys.ready) == 1


async def test_an_overdue_task_in_the_middle_of_a_long_queue_expires(post: Post) -> None:
    """Times to live differ: the front alone says nothing about the rest."""
    template = {
        "method": "m", "request": b"", "create_time": time.time(),
        "task_ttl_seconds": 60, "result_ttl_seconds": 9, "repeatable": True,
    }  # fmt: skip
    await post.enqueue_all([{**template, "key": f"k{i}"} for i in range(700)])
    await post.client.hset(post.keys.record("k350"), "x", 1)
    for _ in range(4):
        await post.pass_()

    assert await post.client.lpos(post.keys.ready, "k350") is None
    assert await post.figures() == (699, 0, 0, 0)


async def test_reading_an_overdue_task_settles_it(post: Post) -> None:
    """Between two passes the status must not lie either."""
    key = await post.enqueue()
    await post.client.hset(post.keys.record(key), "x", 1)

    assert await post.state(key) is TaskState.EXPIRED
    assert await post.figures() == (0, 0, 0, 0)


async def test_claiming_an_overdue_task_settles_it(post: Post) -> None:
    """It must not run: its client was told until when it waits."""
    await post.join("me")
    key = await post.enqueue()
    await post.take("me")
    await post.client.hset(post.keys.record(key), "x", 1)

    assert await post.claim("me", key) == "drop"
    assert await post.state(key) is TaskState.EXPIRED


async def test_an_end_is_told_to_who_waits_for_it(post: Post) -> None:
    """A long poll that only polls makes every waiting client slow."""
    async with post.client.pubsub() as channel:
        await channel.subscribe("poste:ended")
        await channel.get_message(timeout=5)
        await post.join("me")
        unwatched, key = await post.running("me"), await post.running("me")
        await post.tasks.read(post.queue, key, watch=True)
        await post.complete("me", unwatched)
        await post.complete("me", key)

        message = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
        assert message["data"].decode() == post.keys.record(key)


async def test_a_paused_queue_starts_nothing_and_keeps_its_order(post: Post) -> None:
    """An operator who stops a queue must be sure of it; and what was taken must not lose its place."""
    await post.join("me")
    keys = [await post.enqueue() for _ in range(3)]
    await post.operators.pause(post.queue, paused=True)
    assert await post.take("me", 2) == keys[:2]
    assert [await post.claim("me", key) for key in reversed(keys[:2])] == ["paused", "paused"]

    assert (await post.queues.figures(post.queue)).paused
    assert await post.figures() == (3, 0, 0, 0)
    await post.operators.pause(post.queue, paused=False)
    assert await post.take("me", 3) == keys
    assert await post.claim("me", keys[0]) == "run"


async def test_a_batch_that_meets_a_pause_keeps_its_order(post: Post) -> None:
    """A consumer claims many at once."""
    await post.join("me")
    keys = [await post.enqueue() for _ in range(4)]
    await post.take("me", 3)
    await post.operators.pause(post.queue, paused=True)
    assert await post.claim_all("me", keys[:3]) == ["paused"] * 3

    assert await post.take("me", 4) == keys


async def test_a_pause_leaves_what_runs_alone(post: Post) -> None:
    """A claim whose answer was lost has begun: asking again must not put it back."""
    await post.join("me")
    key = await post.running("me")
    await post.operators.pause(post.queue, paused=True)

    assert await post.claim("me", key) == "run"
    assert await post.complete("me", key) == "succeeded"


async def dead(post: Post, **changes: Any) -> str:
    """A task that died because its outcome is unknown."""
    key = await post.running("me", repeatable=False, **changes)
    assert await post.complete("me", key, "silent", b"error") == "dead"
    return key


async def test_what_died_is_listed_in_pages(post: Post) -> None:
    """Many die in the same moment: none may be left out or told twice."""
    await post.join("me")
    keys = {await dead(post, task_ttl_seconds=50, result_ttl_seconds=70) for _ in range(5)}
    await post.client.zadd(post.keys.dead, dict.fromkeys(list(keys)[:4], 1_000_000))
    told, behind = [], None
    while True:
        page = await post.operators.dead(post.queue, count=2, behind=behind)
        told += page.tasks
        if (behind := page.behind) is None:
            break

    assert sorted(task.record.key for task in told) == sorted(keys)
    assert {(task.task_ttl_seconds, task.result_ttl_seconds) for task in told} == {(50, 70)}
    assert told[0].record.dead_reason is DeadReason.OUTCOME_UNKNOWN


async def test_a_dead_task_is_replayed_as_if_it_were_new(post: Post) -> None:
    """Its cause is mended: it has all its attempts and all its time again, and one result in the end."""
    await post.join("me")
    key = await dead(post)
    await post.client.hset(post.keys.record(key), mapping={"c": 1000, "x": 61_000})

    assert await post.operators.replay(post.queue, [key]) == ["done"]
    assert await post.operators.replay(post.queue, [key]) == ["done"]
    assert (await post.record(key)).expire_time == pytest.approx(time.time() + 60, abs=5)
    assert await post.figures() == (1, 0, 0, 0)
    assert await post.take("me", 2) == [key]
    assert await post.claim("me", key, seq=2) == "run"
    assert await post.complete("me", key, payload=b"late", seq=1) == "refused"
    assert await post.complete("me", key, seq=2) == "succeeded"
    assert await post.operators.replay(post.queue, [key]) == ["ended"]
    assert await post.client.ttl(post.keys.record(key)) > 0


async def test_a_task_that_dies_again_can_be_replayed_again(post: Post) -> None:
    """Its time to wait is that of the first day, not what was left of it."""
    await post.join("me")
    key = await dead(post)
    for seq in (2, 3):
        await post.operators.replay(post.queue, [key])
        assert (await post.operators.dead(post.queue, count=9)).tasks == []
        await post.take("me")
        await post.claim("me", key, seq=seq)
        await post.complete("me", key, "silent", b"error", seq=seq)

    (task,) = (await post.operators.dead(post.queue, count=9)).tasks
    assert task.task_ttl_seconds == 60


async def test_replayed_poison_runs_alone(post: Post) -> None:
    """What killed its processes three times is not let loose among others again."""
    await post.join("me")
    key = await post.running("me")
    await post.client.hset(post.keys.record(key), "k", 2)
    await post.reap("me")
    assert await post.state(key) is TaskState.DEAD
    await post.operators.replay(post.queue, [key])
    await post.join("other")
    await post.take("other")

    assert await post.claim("other", key) == "suspect"
    assert await post.claim("other", key, seq=2, alone=True) == "run"


async def test_a_purged_task_still_says_what_became_of_it(post: Post) -> None:
    """Its id would otherwise count as lost, and raise an alert."""
    await post.join("me")
    key = await dead(post, result_ttl_seconds=600)
    assert await post.operators.purge(post.queue, [key]) == ["done"]
    assert await post.operators.purge(post.queue, [key]) == ["done"]

    assert await post.state(key) is TaskState.DEAD
    assert await post.client.hget(post.keys.record(key), "q") is None
    assert 500 < await post.client.ttl(post.keys.record(key)) <= 600
    assert await post.figures() == (0, 0, 0, 0)
    assert await post.operators.replay(post.queue, [key]) == ["gone"]


async def test_only_what_is_dead_is_purged(post: Post) -> None:
    """One mistyped command must not throw work or results away."""
    await post.join("me")
    waiting = await post.enqueue()

    assert await post.operators.purge(post.queue, [waiting, "none"]) == ["ended", "gone"]
    assert await post.operators.replay(post.queue, ["none"]) == ["gone"]
    assert await post.state(waiting) is TaskState.QUEUED


async def failed(post: Post, **changes: Any) -> str:
    """A task whose handler answered with an error, under its latest claim."""
    key = await post.running("me", **changes)
    assert await post.complete("me", key, "final", b"error") == "failed"
    return key


async def test_a_failed_task_is_replayed_with_its_request(post: Post) -> None:
    """What its handler refused for a cause that is mended by now would have to be sent again by its client."""
    await post.join("me")
    key = await failed(post, request=b"")
    other = await failed(post, request=b"request")

    assert await post.operators.replay(post.queue, [key, other]) == ["done", "done"]
    assert await post.operators.replay(post.queue, [key]) == ["done"]
    assert await post.client.ttl(post.keys.record(key)) == -1
    assert (await post.record(key)).error is None
    assert await post.figures() == (2, 0, 0, 0)
    assert (await post.queues.figures(post.queue)).kept_bytes == 0
    assert [await post.client.hget(post.keys.record(one), "q") for one in (key, other)] == [b"", b"request"]
    assert await post.take("me", 2) == [key, other]
    assert await post.claim_all("me", [key, other], first=5) == ["run", "run"]


async def test_a_failed_task_without_its_request_is_not_replayed(post: Post) -> None:
    """One that failed before requests were kept would run with an empty message."""
    await post.join("me")
    key = await failed(post)
    await post.client.hdel(post.keys.record(key), "K")
    await post.client.hset(post.keys.record(key), "q", "")

    assert await post.operators.replay(post.queue, [key]) == ["gone"]
    assert await post.state(key) is TaskState.FAILED


async def test_what_waits_or_runs_and_never_died_was_not_replayed(post: Post) -> None:
    """An operator would be told of one that runs that it was replayed."""
    await post.join("me")
    running, waiting = await post.running("me"), await post.enqueue()

    assert await post.operators.replay(post.queue, [running, waiting]) == ["open", "open"]


async def test_an_operator_empties_a_queue_and_clients_see_who_it_was(post: Post) -> None:
    """What was thrown away would look as if its client had taken it back, or be lost."""
    await post.join("me")
    running = await post.running("me", repeatable=True)
    retried = await post.running("me")
    assert await post.complete("me", retried, "retry", b"error") == "retried"
    waiting = await post.enqueue()
    keys = [running, waiting, retried, "none"]

    assert await post.operators.cancel(post.queue, keys, only_waiting=True) == ["runs", "done", "done", "gone"]
    assert await post.operators.cancel(post.queue, keys, only_waiting=True) == ["runs", "done", "done", "gone"]
    for key in (waiting, retried):
        record = await post.record(key)
        assert (record.state, record.dead_reason) == (TaskState.CANCELLED, DeadReason.OPERATOR)
    assert await post.figures() == (0, 1, 0, 0)
    assert await post.operators.cancel(post.queue, [running], only_waiting=False) == ["asked"]
    assert (await post.record(running)).cancel_requested


async def test_a_claimed_task_that_has_not_begun_waits_for_an_operator_too(post: Post) -> None:
    """It would run although the queue was emptied before."""
    await post.join("me")
    key = await post.enqueue(repeatable=False)
    await post.take("me")
    await post.claim("me", key)

    assert await post.operators.cancel(post.queue, [key], only_waiting=True) == ["done"]
    assert await post.begin("me", key) == "drop"


async def found(post: Post, wanted: TaskFilter, count: int = 1000) -> list[str]:
    """The keys that a search finds, page by page."""
    lists, behind, keys = TaskLists(post.client, post.tasks), None, []
    while True:
        page = await lists.search(post.queue, wanted, count=count, behind=behind)
        keys += [one.record.key for one in page.tasks]
        if (behind := page.behind) is None:
            return keys


async def test_tasks_are_found_by_state_method_reason_and_age(post: Post) -> None:
    """An operator would have to read thousands of them to find the dozen that matter."""
    await post.join("me")
    died, fails = await dead(post), await failed(post, method="Sub")
    old, new = await post.enqueue(create_time=time.time() - 25), await post.enqueue(method="Sub")

    assert sorted(await found(post, TaskFilter())) == sorted([died, fails, old, new])
    assert await found(post, TaskFilter(states=frozenset({TaskState.FAILED}))) == [fails]
    assert sorted(await found(post, TaskFilter(method="Sub"))) == sorted([fails, new])
    assert await found(post, TaskFilter(reason=DeadReason.OUTCOME_UNKNOWN)) == [died]
    assert await found(post, TaskFilter(min_age_seconds=20)) == [old]
    assert await found(post, TaskFilter(frozenset({TaskState.DEAD}), min_age_seconds=20)) == []
    page = await post.operators.dead(post.queue, count=9, wanted=TaskFilter(reason=DeadReason.CRASHES))
    assert page.tasks == []


async def test_a_search_finds_all_in_pages(post: Post) -> None:
    """What stands on the border of two pages would never be cancelled, replayed or seen."""
    tasks = [
        {"key": f"{number:016}", "method": "Add", "request": b"", "create_time": time.time(), "task_ttl_seconds": 60,
         "result_ttl_seconds": 60, "repeatable": True}
        for number in range(300)
    ]  # fmt: skip
    await post.enqueue_all(tasks)

    keys = await found(post, TaskFilter(states=frozenset({TaskState.QUEUED})), count=7)
    assert sorted(set(keys)) == [task["key"] for task in tasks]


async def test_dead_letters_that_match_are_listed_in_full_pages(post: Post) -> None:
    """Between two that match, any number may stand that don't: none of either may be left out or told twice."""
    await post.join("me")
    keys = [await dead(post, method="Add" if number % 3 else "Sub") for number in range(9)]
    told, behind = [], None
    while True:
        page = await post.operators.dead(post.queue, count=2, behind=behind, wanted=TaskFilter(method="Sub"))
        assert len(page.tasks) <= 2
        told += [task.record.key for task in page.tasks]
        if (behind := page.behind) is None:
            break

    assert told == keys[::3]


async def test_what_fails_again_during_a_search_is_not_found_again(post: Post) -> None:
    """A replay of all that failed would run what fails at once for ever."""
    await post.join("me")
    key = await failed(post)
    lists = TaskLists(post.client, post.tasks)
    before = Search(time.time() - 60, 0)
    page = await lists.search(post.queue, TaskFilter(frozenset({TaskState.FAILED})), count=9, behind=before)

    assert page.tasks == []
    assert await found(post, TaskFilter(frozenset({TaskState.FAILED}))) == [key]


async def test_a_claim_takes_what_its_claimer_saw(post: Post) -> None:
    """A backlog is taken by one step for many, and what another took meanwhile must not be run by both."""
    await post.join("me")
    await post.join("other")
    first, second, third = [await post.enqueue() for _ in range(3)]
    assert await post.take("other") == [first]

    claims = await steps.claim(
        post.scripts, post.keys, "me", [(first, 1), (second, 2)], most_bytes=1000, take=2, front_count=5, on_disk=True
    )

    assert isinstance(claims, steps.Claims)
    assert [word_of(said) for said in claims.results] == ["drop", "run"]
    assert (claims.unnamed, claims.front) == ([third], [])
    assert await post.claim("other", first) == "run"
    assert await post.claim("me", third, 3) == "run"
