"""What is told of ends to clients' URLs, as Redis has it: leases, ends after a replay, and what is kept for it."""

from __future__ import annotations

from support.queue_post import Post, new_task

from poste.domain.policy import CALLBACK_KEPT_SECONDS
from poste.queue.callbacks import Callback, Callbacks
from poste.queue.keys import Keys
from poste.queue.moves import Moves
from poste.queue.steps.callbacks import Outcome, Settlement

URL = "https://hooks.example/"


async def ended(post: Post, ending: str = "ok") -> str:
    """The key of a call that has ended, and is to be told."""
    await post.join("me")
    key = await post.running("me", callback_url=URL)
    await post.complete("me", key, ending)
    return key


def about(callback: Callback, outcome: Outcome, why: str = "") -> Settlement:
    return Settlement(callback.record.key, round(callback.end_time * 1000), outcome, why)


async def test_one_gateway_at_a_time_tells_an_end_and_another_when_its_lease_is_over(post: Post) -> None:
    """An end would be told by all gateways at once, or by none after one has died."""
    callbacks = Callbacks(post.client)
    key = await ended(post)
    (mine,) = await callbacks.lease(post.queue, count=10)
    assert (mine.record.key, mine.record.response, mine.url, mine.failures) == (key, b"3", URL, 0)
    assert await callbacks.lease(post.queue, count=10) == []

    await post.client.zadd(post.keys.callbacks, {key: 0})
    (another,) = await callbacks.lease(post.queue, count=10)
    assert await callbacks.settle(post.queue, [about(another, "told")]) == ["told"]
    # The first was late, not dead: what it says makes nothing due again.
    await callbacks.settle(post.queue, [about(mine, "failed", "late")])
    assert await post.client.zcard(post.keys.callbacks) == 0
    assert await post.client.zcard(post.keys.undelivered) == 0


async def test_what_came_of_an_earlier_end_settles_no_later_one(post: Post) -> None:
    """The end after a replay would never be told."""
    callbacks = Callbacks(post.client)
    key = await ended(post, "final")
    (first,) = await callbacks.lease(post.queue, count=1)
    assert await post.operators.replay(post.queue, [key]) == ["done"]
    assert await callbacks.settle(post.queue, [about(first, "told")]) == ["gone"]
    assert await post.take("me") == [key]
    assert await post.claim("me", key, 2) == "run"
    await post.complete("me", key, seq=2)

    assert await callbacks.settle(post.queue, [about(first, "told")]) == ["gone"]
    (second,) = await callbacks.lease(post.queue, count=1)
    assert second.end_time > first.end_time


async def test_what_is_kept_is_counted_whatever_comes_of_it(post: Post) -> None:
    """A queue would be full of what is gone, or hold more than it may."""
    callbacks = Callbacks(post.client)
    plain = await post.queues.figures(post.queue)
    key = await ended(post, "final")
    owed = await post.queues.figures(post.queue)
    assert (plain.callbacks, owed.callbacks, owed.kept) == (0, 1, 1)
    assert await post.client.ttl(post.keys.record(key)) > CALLBACK_KEPT_SECONDS - 60

    (callback,) = await callbacks.lease(post.queue, count=1)
    await callbacks.settle(post.queue, [about(callback, "told")])
    told = await post.queues.figures(post.queue)
    assert (told.callbacks, told.kept, told.kept_bytes) == (0, 1, owed.kept_bytes)
    assert await post.client.ttl(post.keys.record(key)) <= 61
    # A replay takes off what was counted, under whichever time.
    assert await post.operators.replay(post.queue, [key]) == ["done"]
    assert (await post.queues.figures(post.queue)).kept == 0


async def test_a_replay_of_what_is_yet_to_be_told_takes_off_what_was_counted(post: Post) -> None:
    """The queue's budget would be used up by what is not there."""
    key = await ended(post, "final")
    assert await post.operators.replay(post.queue, [key]) == ["done"]

    figures = await post.queues.figures(post.queue)
    assert (figures.kept, figures.kept_bytes, figures.callbacks) == (0, 0, 0)


async def test_what_is_refused_is_given_up_at_once_and_forgotten_with_its_record(post: Post) -> None:
    """It would be tried for a day in vain, or be listed when nothing of it is left."""
    callbacks = Callbacks(post.client)
    key = await ended(post)
    (callback,) = await callbacks.lease(post.queue, count=1)
    assert await callbacks.settle(post.queue, [about(callback, "refused", "status 410")]) == ["undelivered"]
    (listed,) = await callbacks.undelivered(post.queue, count=10)
    assert (listed.record.key, listed.failures, listed.failure) == (key, 1, "status 410")

    await post.client.unlink(post.keys.record(key))
    assert await callbacks.undelivered(post.queue, count=10) == []
    assert await post.client.zcard(post.keys.undelivered) == 0
    assert await callbacks.redeliver(post.queue) == 0


async def test_what_is_put_off_is_due_again_later_and_counts_as_no_failure(post: Post) -> None:
    """What waits behind an origin that is down would be given up without a try, or be leased on and on."""
    callbacks = Callbacks(post.client)
    key = await ended(post)
    (callback,) = await callbacks.lease(post.queue, count=1)
    before = await post.client.zscore(post.keys.callbacks, key)

    put_off = about(callback, "put-off")._replace(wait_ms=3_600_000)
    assert await callbacks.settle(post.queue, [put_off]) == ["again"]
    assert await post.client.zscore(post.keys.callbacks, key) > before + 1_700_000
    await post.client.zadd(post.keys.callbacks, {key: 0})
    (again,) = await callbacks.lease(post.queue, count=1)
    assert again.failures == 0
    # What was told meanwhile by another is not due again by that.
    await callbacks.settle(post.queue, [about(again, "told")])
    assert await callbacks.settle(post.queue, [put_off]) == ["again"]
    assert await post.client.zcard(post.keys.callbacks) == 0


async def test_what_is_still_to_be_told_moves_along_and_what_was_told_does_not(post: Post) -> None:
    """A move would lose ends that were to be told, or have them told twice."""
    callbacks, target = Callbacks(post.client), f"{post.queue}2"
    told, owed = await ended(post, "final"), await ended(post, "final")
    for one in await callbacks.lease(post.queue, count=2):
        if one.record.key == told:
            await callbacks.settle(post.queue, [about(one, "told")])
    await Moves(post.client).move(post.queue, target, [told, owed])

    assert await post.client.zcard(post.keys.callbacks) == 0
    (callback,) = await callbacks.lease(target, count=2)
    assert callback.record.key == owed
    # It is found by the id that was given out, which names the queue that it left.
    assert await callbacks.settle(target, [about(callback, "refused", "status 410")]) == ["undelivered"]
    assert await callbacks.redeliver(post.queue, [owed]) == 1
    assert await callbacks.settle(target, [about(callback, "told")]) == ["told"]
    # Each is told of its next end.
    assert await post.operators.replay(target, [told, owed]) == ["done", "done"]
    for key in (told, owed):
        assert await post.client.hget(Keys().of(target).record(key), "l") == b"c"


async def test_of_several_calls_that_come_together_each_has_its_own_url(post: Post) -> None:
    """A client would be told of another one's call."""
    tasks = [new_task(callback_url=url) for url in ("", URL, "", f"{URL}2")]
    assert await post.enqueue_all([tasks[0]]) == ["accepted"]
    assert await post.enqueue_all(tasks) == ["accepted"] * 4

    for task in tasks:
        found = await post.client.hmget(post.keys.record(task["key"]), "W", "l")
        assert found == ([task["callback_url"].encode(), b"c"] if task["callback_url"] else [None, None])
