"""A client that enqueues and cancels in a loop leaves keys in the queue: they are taken off as fast as that."""

from __future__ import annotations

import asyncio
import secrets
import time

from support.queue_post import Post

from poste.queue.steps import task as steps

CALLS = 2000
#: One in so many is not cancelled: no window of the queue is full of ended tasks.
LIVE_EACH = 100


async def test_cancelled_calls_leave_no_keys_that_pile_up(post: Post) -> None:
    """The queue's list would grow by all that was cancelled but 200 in each pass, in no figure and under no budget.

    And each pass held everybody up: a search for each key by its name goes over half of the queue, 200 of them took
    Redis for seconds where a million wait.
    """
    keys = [secrets.token_urlsafe(12) for _ in range(CALLS)]
    fields = {"method": "Add", "request": b"", "create_time": time.time(), "repeatable": True}
    calls = [dict(fields, key=key, task_ttl_seconds=60, result_ttl_seconds=1) for key in keys]
    assert set(await post.enqueue_all(calls)) == {"accepted"}
    live = keys[::LIVE_EACH]
    cancelled = sorted(set(keys) - set(live))
    for first in range(0, len(cancelled), 100):
        some = cancelled[first : first + 100]
        await asyncio.gather(*(steps.cancel(post.scripts, post.keys, key) for key in some))
    assert await post.client.llen(post.keys.ready) == CALLS
    await post.client.config_resetstat()

    await post.pass_()
    stats = await post.client.info("commandstats")
    rest = [key.decode() for key in await post.client.lrange(post.keys.ready, 0, -1)]

    assert len(rest) <= len(live) + 200
    # In their order, and none of them lost.
    assert [key for key in reversed(rest) if key in live] == live
    # A cluster's server that answers may be another one.
    assert stats.get("cmdstat_lrem", {"calls": 0})["calls"] <= CALLS / 100
