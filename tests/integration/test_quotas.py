"""Clients' quotas, as Redis has them: what is counted, what is refused, and that nothing stays behind."""

from __future__ import annotations

import math
from typing import Any

from support.client_account import ANN, Account, account_of
from support.kept import KeptTasks
from support.queue_post import Post, new_task

from poste.queue.callbacks import Callbacks
from poste.queue.moves import Moves
from poste.queue.record import RECORD_BYTES
from poste.queue.steps.callbacks import Settlement
from poste.queue.steps.task import Quota

REQUEST = len(b"request")
TWO_CALLS = Quota(2, 0, "ann")
#: Room for two calls that wait, with their requests.
TWO_RECORDS = Quota(0, 2 * (RECORD_BYTES + REQUEST) + RECORD_BYTES, "ann")


async def ask(post: Post, *quotas: Quota | None, **changes: Any) -> list[str]:
    """What is said of calls that come in one step."""
    return await post.enqueue_all([new_task(quota=quota, **changes) for quota in quotas])


async def has(post: Post) -> Account:
    return await account_of(post.client, post.keys)


async def run(post: Post, name: str, key: str, ending: str = "ok") -> None:
    """Have the call run that has waited longest."""
    await post.join(name)
    assert await post.take(name) == [key]
    assert await post.claim(name, key) == "run"
    await post.complete(name, key, ending)


async def test_a_client_has_no_more_waiting_calls_than_its_quota_and_others_go_on(post: Post) -> None:
    """One client would fill the queue for all; in one step it could have as many as come in it."""
    said = await ask(post, TWO_CALLS, TWO_CALLS._replace(client="bob"), TWO_CALLS, TWO_CALLS, None)
    over = f"over 2 {2 * (RECORD_BYTES + REQUEST)}"

    assert said == ["accepted", "accepted", "accepted", over, "accepted"]
    assert await ask(post, TWO_CALLS, TWO_CALLS._replace(client="bob"), None) == [over, "accepted", "accepted"]
    # A quota that is raised counts at once, one that is lowered as well.
    assert await ask(post, Quota(3, 0, "ann"), Quota(1, 0, "ann")) == [
        "accepted",
        f"over 3 {3 * (RECORD_BYTES + REQUEST)}",
    ]


async def test_a_call_that_was_accepted_is_so_again_however_much_its_client_has(post: Post) -> None:
    """A gateway that did not hear of it would tell its client that nothing was accepted."""
    tasks = [new_task(quota=TWO_CALLS) for _ in range(2)]
    assert await post.enqueue_all(tasks) == ["accepted", "accepted"]
    before = await has(post)

    assert await post.enqueue_all(tasks) == ["accepted", "accepted"]
    assert await has(post) == before == Account(2, 2 * REQUEST)


async def test_results_and_dead_letters_take_of_a_clients_bytes_until_they_go(post: Post) -> None:
    """A client would fill the store with results that it asks to be kept for a month."""
    kept, dead = await post.enqueue(quota=TWO_RECORDS), await post.enqueue(quota=TWO_RECORDS)
    (said,) = await ask(post, TWO_RECORDS)
    assert said == f"over 2 {2 * (RECORD_BYTES + REQUEST)}"
    await run(post, "me", kept)
    await run(post, "you", dead, "large")
    assert await has(post) == Account(0, 0, RECORD_BYTES + REQUEST + 1, RECORD_BYTES + 1)
    assert (await ask(post, TWO_RECORDS))[0].startswith("over 0 ")

    await KeptTasks(post.client, post.keys).drop(kept)
    assert await ask(post, TWO_RECORDS) == ["accepted"]
    await post.operators.purge(post.queue, [dead])
    assert await has(post) == Account(1, REQUEST, 0, RECORD_BYTES + 1)


async def test_an_account_goes_with_the_last_of_what_is_kept(post: Post) -> None:
    """Clients come and go, and each would leave something behind for good; or one that goes early loses count."""
    keys = [await post.enqueue(quota=ANN, result_ttl_seconds=seconds) for seconds in (6400, 100)]
    for key, ending in zip(keys, ("ok", "cancelled"), strict=True):
        await run(post, ending, key, ending)
    assert await has(post) == Account(kept_bytes=2 * RECORD_BYTES + 1)
    record, account = [await post.client.pttl(key) for key in (post.keys.record(keys[0]), post.keys.client("ann"))]

    assert record <= account <= record + math.ceil(6400 / 32) * 1000


async def test_what_is_on_an_account_is_taken_off_whatever_the_quota_is_by_then(post: Post) -> None:
    """An account would never be empty again once an operator has taken the quota away, or given one later."""
    before, counted = await post.enqueue(), await post.enqueue(quota=ANN)
    assert await has(post) == Account(1, REQUEST)
    await run(post, "me", before)
    assert await has(post) == Account(1, REQUEST)
    await post.tasks.cancel(post.queue, counted)
    assert (await has(post))[:3] == (0, 0, 0)


async def test_what_an_older_worker_did_not_take_off_is_gone_once_the_queue_is_empty(post: Post) -> None:
    """Services are updated when it suits them: their clients would be refused for good."""
    key = await post.enqueue(quota=TWO_CALLS)
    await post.client.hset(post.keys.client("ann"), mapping={"waiting": 9, "bytes": 9 * REQUEST})
    assert (await ask(post, TWO_CALLS))[0].startswith("accepted")
    assert await has(post) == Account(2, 2 * REQUEST)
    await run(post, "me", key)
    assert (await has(post))[:2] == (1, REQUEST)


async def test_what_moves_takes_its_place_on_the_account_along(post: Post) -> None:
    """In one queue it would be counted for good, in the other what it puts on the account is less than it takes off."""
    target = Post(post.client, f"{post.queue}2")
    failed, waits = await post.enqueue(quota=ANN), await post.enqueue(quota=ANN)
    await run(post, "me", failed, "final")
    before = await has(post)
    assert await Moves(post.client).move(post.queue, target.queue, [waits, failed]) == ["moved", "moved"]

    assert (await has(post), await has(target)) == (Account(), before)
    assert await target.operators.replay(post.queue, [failed]) == ["done"]
    assert await has(target) == Account(2, 2 * REQUEST)


async def test_what_is_kept_for_a_callback_is_on_the_account_until_it_was_told(post: Post) -> None:
    """It would be taken off under another time than it was put on, and so stay for a week."""
    callbacks = Callbacks(post.client)
    await run(post, "me", await post.enqueue(quota=ANN, callback_url="https://hooks.example/"))
    owed = await has(post)
    (one,) = await callbacks.lease(post.queue, count=1)
    told = Settlement(one.record.key, round(one.end_time * 1000), "told")
    assert await callbacks.settle(post.queue, [told]) == ["told"]

    assert await has(post) == owed == Account(kept_bytes=RECORD_BYTES + 1)
    assert await post.client.ttl(post.keys.client("ann")) <= 61
