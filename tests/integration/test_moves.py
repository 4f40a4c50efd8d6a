"""Tasks that move from one queue to another on a real Redis: what arrives, who finds it, and a mover that dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from support.queue_post import Post, new_task

from poste.domain.errors import StoreError, StoreLost
from poste.domain.policy import MAX_ENQUEUE_AGE_SECONDS, MOVED_SECONDS
from poste.domain.task import TaskState
from poste.queue.connection import open_client
from poste.queue.history import Histories
from poste.queue.keys import QueueKeys
from poste.queue.moves import Moved, Moves
from poste.queue.steps.task import Report
from poste.queue.task_filter import ANY
from poste.queue.task_lists import TaskLists
from poste.queue.tasks import Reading, Tasks
from poste.runtime.settings import StoreSettings

#: How many scripts a move of one task takes.
STEPS = 4


class Dying(Moves):
    """A mover that dies: before a script of its own is sent, or when it has run and nothing is heard of it."""

    def __init__(self, client: Any, *, after: int, heard: bool) -> None:
        super().__init__(client)
        run, left = self._scripts.run_kept, [after]

        async def run_kept(at: QueueKeys, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
            if not left[0]:
                if not heard:
                    await run(at, name, keys, args)
                raise StoreLost("it died")
            left[0] -= 1
            return await run(at, name, keys, args)

        self._scripts.run_kept = run_kept  # type: ignore[method-assign]


class Pair:
    """Two queues, and what moves between them."""

    def __init__(self, client: Any, queue: str) -> None:
        self.client = client
        self.old, self.new, self.newer = Post(client, queue), Post(client, f"{queue}2"), Post(client, f"{queue}3")
        self.moves = Moves(client)

    async def move(self, *keys: str) -> list[Moved]:
        return await self.moves.move(self.old.queue, self.new.queue, keys)

    async def state(self, queue: str, key: str) -> TaskState | None:
        found = (await self.old.tasks.read(queue, key)).record
        return found and found.state

    async def counts(self, post: Post) -> tuple[int, int, int, int, int]:
        """What waits, its bytes, what is dead, and its bytes; what is kept."""
        one = await post.queues.figures(post.queue)
        return one.queued + one.delayed, one.waiting_bytes, one.dead, one.dead_bytes, one.kept

    async def run_one(self, post: Post, name: str = "w", outcome: Any = "ok") -> str:
        """Take, claim and end the oldest task of a queue; returns its key."""
        await post.join(name)
        (key,) = await post.take(name)
        assert await post.claim(name, key) == "run"
        (said,) = await post.tasks.complete(post.queue, [Report(key, f"{name}:1", outcome, b"said")])
        assert said in {"succeeded", "failed", "dead"}
        return key

    async def nothing_left(self) -> None:
        """No move is under way, and what the old queue counts is right."""
        assert await self.client.hlen(self.old.keys.moving) == 0
        assert await self.counts(self.old) == (0, 0, 0, 0, 0)


@pytest.fixture(params=["redis_server", "redis_7", "redis_cluster"], ids=["embedded", "redis 7", "cluster"])
async def pair(request: pytest.FixtureRequest, queue: str) -> AsyncIterator[Pair]:
    """Two queues on a server of each kind; of a cluster, in two slots."""
    client = open_client(StoreSettings(redis_url=request.getfixturevalue(request.param).url))
    yield Pair(client, queue)
    await client.aclose()


async def test_what_waits_runs_in_the_other_queue_and_its_old_id_answers(pair: Pair) -> None:
    """A service that was renamed would leave its calls, and their clients' ids, behind."""
    key = await pair.old.enqueue(id_rest="abc", request_id="r1", headers="h")
    before = await pair.client.hgetall(pair.old.keys.record(key))

    assert await pair.move(key) == ["moved"]

    after = await pair.client.hgetall(pair.new.keys.record(key))
    assert after == {**before, b"g": f"abc@{pair.old.queue}".encode()}
    await pair.nothing_left()
    assert await pair.state(pair.old.queue, key) is TaskState.QUEUED
    assert await pair.run_one(pair.new) == key
    found = await pair.old.tasks.read(pair.old.queue, key)
    assert found.record is not None
    assert (found.queue, found.record.state, found.record.response) == (pair.new.queue, TaskState.SUCCEEDED, b"said")


async def test_a_move_that_is_asked_for_again_changes_nothing(pair: Pair) -> None:
    """Its answer may be lost, and an operator asks once more."""
    key = await pair.old.enqueue()
    assert await pair.move(key) == ["moved"]
    counted = await pair.counts(pair.new)

    assert await pair.move(key) == ["moved"]

    assert await pair.counts(pair.new) == counted
    assert await pair.client.lrange(pair.new.keys.ready, 0, -1) == [key.encode()]


async def test_what_runs_or_has_ended_stays(pair: Pair) -> None:
    """Of a call that runs it can't be known whether it would run twice."""
    await pair.old.join("w")
    runs, done = await pair.old.enqueue(), await pair.old.enqueue()
    assert await pair.old.take("w", 2) == [runs, done]
    assert await pair.old.claim_all("w", [runs, done]) == ["run", "run"]
    await pair.old.tasks.complete(pair.old.queue, [Report(done, "w:2", "ok", b"")])

    assert await pair.move(runs, done, "k" * 16) == ["runs", "ended", "gone"]

    assert await pair.state(pair.old.queue, runs) is TaskState.RUNNING


@pytest.mark.parametrize("outcome", ["large", "final"])
async def test_what_is_dead_or_failed_is_so_in_the_other_queue_and_runs_there_once_replayed(
    pair: Pair, outcome: str
) -> None:
    """Dead letters of a service that is gone could be replayed for nobody."""
    await pair.old.enqueue()
    key = await pair.run_one(pair.old, outcome=outcome)
    counted, state = await pair.counts(pair.old), await pair.state(pair.old.queue, key)

    assert await pair.move(key) == ["moved"]

    assert await pair.counts(pair.new) == counted
    await pair.nothing_left()
    assert await pair.state(pair.old.queue, key) is state
    assert await pair.new.operators.replay(pair.old.queue, [key]) == ["done"]
    assert await pair.run_one(pair.new) == key
    assert await pair.state(pair.old.queue, key) is TaskState.SUCCEEDED


async def test_what_is_done_by_the_old_id_is_done_where_the_task_is(pair: Pair) -> None:
    """A client that cancels, and an operator who looks, have the id that was given out."""
    key = await pair.old.enqueue()
    await pair.move(key)

    assert (await pair.new.operators.called_with(pair.old.queue, key)).request == b"request"
    assert await pair.new.operators.purge(pair.old.queue, [key]) == ["ended"]
    found = (await pair.old.tasks.cancel(pair.old.queue, key)).record

    assert found is not None
    assert found.state is TaskState.CANCELLED
    history = await Histories(pair.client, pair.old.tasks).read(pair.old.queue, key)
    assert [event.type.value for event in history.events] == ["accepted", "ended"]


async def test_a_consumer_drops_what_was_moved_from_under_it(pair: Pair) -> None:
    """It has the key in its list: claiming it would run what runs elsewhere, or take it for damaged."""
    key = await pair.old.enqueue(repeatable=False)
    await pair.old.join("w")
    assert await pair.old.take("w") == [key]

    assert await pair.move(key) == ["moved"]

    assert await pair.old.claim("w", key) == "drop"
    assert await pair.client.exists(pair.old.keys.taken("w")) == 0
    lists = TaskLists(pair.client, pair.old.tasks)
    assert await lists.newest(pair.old.queue, count=10) == []
    assert (await lists.search(pair.old.queue, ANY, count=10)).tasks == []


async def test_a_late_enqueue_of_what_was_moved_is_the_same_call(pair: Pair) -> None:
    """Its gateway asks again because it heard no answer: the call would run in both queues."""
    key = await pair.old.enqueue()
    await pair.move(key)

    assert await pair.old.enqueue(key) == key

    assert await pair.counts(pair.old) == (0, 0, 0, 0, 0)
    assert await pair.state(pair.old.queue, key) is TaskState.QUEUED


def keyed(key: str, id_rest: str) -> dict[str, Any]:
    """A call with an idempotency key, whose task TTL and result TTL are short."""
    return new_task(key=key, id_rest=id_rest, request=b"", request_digest="d")


async def test_a_call_with_an_idempotency_key_that_was_moved_is_known_by_it(pair: Pair) -> None:
    """Its client calls once more, by the same key: the call would be accepted anew, and run in both queues."""
    key = await pair.old.enqueue(id_rest="first", request_digest="d", result_ttl_seconds=100_000)
    await pair.move(key)

    again = keyed(key, "second")
    assert await pair.old.enqueue_all([again]) == ["known first"]
    assert await pair.old.enqueue_all([{**again, "request_digest": "e"}]) == ["reused"]
    assert await pair.client.ttl(pair.old.keys.record(key)) > 100_000


async def moved_twice(pair: Pair, key: str) -> None:
    """Move a call to the other queue; then another one with its idempotency key is accepted where it was."""
    assert await pair.old.enqueue_all([keyed(key, "first")]) == ["accepted"]
    assert await pair.move(key) == ["moved"]
    await pair.client.delete(pair.old.keys.record(key))
    assert await pair.old.enqueue_all([keyed(key, "second")]) == ["accepted"]


async def test_a_dead_letter_that_was_moved_is_known_by_its_idempotency_key_long_after_it_would_have_waited(
    pair: Pair,
) -> None:
    """Its client's next call by the key would be accepted, and the dead letter be replayed: it would run twice."""
    key = "k" * 16
    await pair.old.enqueue_all([keyed(key, "first")])
    await pair.run_one(pair.old, outcome="large")

    assert await pair.move(key) == ["moved"]

    assert await pair.client.ttl(pair.old.keys.record(key)) > 300 * 86400
    assert await pair.old.enqueue_all([keyed(key, "second")]) == ["known first"]


async def test_what_would_meet_another_call_with_its_idempotency_key_is_not_moved(pair: Pair) -> None:
    """It would be told to be moved, and be in neither queue."""
    key = "k" * 16
    await moved_twice(pair, key)

    assert (await pair.moves.look(pair.old.queue, pair.new.queue, [key]))[key].would == "taken"


async def test_what_meets_another_call_with_its_idempotency_key_is_not_lost(pair: Pair) -> None:
    """That one may have come when it was judged already: a call that was accepted would be in no queue."""
    key = "k" * 16
    await moved_twice(pair, key)

    assert await pair.move(key) == ["later"]
    assert await pair.client.hget(pair.old.keys.record(key), "g") == b"second"
    assert await pair.client.hget(pair.new.keys.record(key), "g") == f"first@{pair.old.queue}".encode()
    # Once the other one is gone, the next pass goes on.
    await pair.client.delete(pair.new.keys.record(key))
    assert await pair.moves.resume(pair.old.queue) == 1
    assert await pair.client.hget(pair.new.keys.record(key), "g") == f"second@{pair.old.queue}".encode()


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("after", [0, 1])
async def test_a_mover_that_dies_where_another_call_has_the_idempotency_key_leaves_both(
    pair: Pair, after: int, *, heard: bool
) -> None:
    """What goes on with the move knows no more than what stands there: it could take the other call for its own."""
    key = "k" * 16
    await moved_twice(pair, key)
    with pytest.raises(StoreLost):
        await Dying(pair.client, after=after, heard=heard).move(pair.old.queue, pair.new.queue, [key])

    await pair.moves.resume(pair.old.queue)

    assert await pair.client.hget(pair.old.keys.record(key), "g") == b"second"
    assert await pair.client.hget(pair.new.keys.record(key), "g") == f"first@{pair.old.queue}".encode()
    assert await pair.run_one(pair.new) == key
    await pair.client.delete(pair.new.keys.record(key))
    assert await pair.move(key) == ["moved"]
    assert await pair.client.lrange(pair.new.keys.ready, 0, -1) == [key.encode()]
    await pair.nothing_left()


async def test_a_call_with_an_idempotency_key_goes_back_once_it_is_long_enough_away(pair: Pair) -> None:
    """What is left of it where it was lives as long as its result may: for so long it could not go back."""
    key, at = "k" * 16, pair.old.keys
    await pair.old.enqueue_all([keyed(key, "first")])
    await pair.move(key)
    assert (await pair.moves.look(pair.new.queue, pair.old.queue, [key]))[key].would == "left"

    await pair.client.hincrby(at.record(key), "z", -MOVED_SECONDS * 1000)

    assert (await pair.moves.look(pair.new.queue, pair.old.queue, [key]))[key].would == "moved"
    assert await pair.moves.move(pair.new.queue, pair.old.queue, [key]) == ["moved"]
    assert await pair.client.hmget(at.record(key), "s", "g", "T") == [b"Q", f"first@{pair.old.queue}".encode(), None]
    assert await pair.client.ttl(at.record(key)) == -1
    assert await pair.run_one(pair.old) == key


async def test_a_task_is_found_when_it_moved_twice_and_nothing_is_left_of_it_where_it_was(pair: Pair) -> None:
    """What is left in the first queue lives an hour; ids live for weeks."""
    key = await pair.old.enqueue()
    await pair.move(key)
    await pair.moves.move(pair.new.queue, pair.newer.queue, [key])
    await pair.client.delete(pair.old.keys.record(key))
    await pair.client.delete(pair.new.keys.record(key))

    assert (await pair.old.tasks.read(pair.old.queue, key)).queue == pair.newer.queue
    assert (await pair.old.tasks.read(pair.old.queue, "k" * 16)).record is None


async def test_a_record_that_is_damaged_is_read_once_though_its_queue_was_moved_from(pair: Pair) -> None:
    """It is found where it was sought, and would be sought there again, a thousand times for each request."""
    await pair.move(await pair.old.enqueue())
    await pair.client.set(pair.old.keys.record("z" * 16), "no hash")

    found = await pair.old.tasks.read(pair.old.queue, "z" * 16)

    assert (found.record, found.queue) == (None, pair.old.queue)


async def test_a_history_is_read_where_the_task_is_though_it_moves_meanwhile(pair: Pair) -> None:
    """What is left of it would be logged as a damaged record, and its history be empty."""

    class MovedOnce(Tasks):
        async def read(self, *asked: Any, **more: Any) -> Reading:
            found = await super().read(*asked, **more)
            if found.queue == pair.old.queue:
                await pair.move(key)
            return found

    key = await pair.old.enqueue()

    history = await Histories(pair.client, MovedOnce(pair.client)).read(pair.old.queue, key)

    assert ([event.type.value for event in history.events], history.truncated) == (["accepted"], False)


async def test_what_was_purged_where_it_went_is_known_by_the_old_id(pair: Pair) -> None:
    """Its status would be that its record was lost."""
    key = await pair.old.enqueue()
    await pair.move(key)
    await pair.run_one(pair.new)
    await pair.client.delete(pair.new.keys.record(key))
    await pair.client.hset(pair.new.keys.counts, "purged", "5000")

    found = await pair.old.tasks.read(pair.old.queue, key)

    assert (found.record, found.purge_time) == (None, 5)


async def test_a_task_does_not_go_back_where_its_key_may_still_stand(pair: Pair) -> None:
    """It would stand there twice, and run twice."""
    key = await pair.old.enqueue()
    await pair.move(key)

    assert (await pair.moves.look(pair.new.queue, pair.old.queue, [key]))[key].would == "left"
    assert await pair.moves.move(pair.new.queue, pair.old.queue, [key]) == ["later"]
    # Once that is over, the next pass goes on.
    await pair.client.delete(pair.old.keys.record(key))
    assert await pair.moves.resume(pair.new.queue) == 1
    assert (await pair.old.tasks.read(pair.new.queue, key)).queue == pair.old.queue


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("after", range(STEPS))
@pytest.mark.parametrize("resumes", ["pass", "read", "cancel", "again"])
async def test_a_mover_that_dies_leaves_nothing_that_is_lost_or_there_twice(
    pair: Pair, after: int, resumes: str, *, heard: bool
) -> None:
    """Whoever comes upon the task goes on with the move, whichever step was the last."""
    key = await pair.old.enqueue(repeatable=False)
    with pytest.raises(StoreLost):
        await Dying(pair.client, after=after, heard=heard).move(pair.old.queue, pair.new.queue, [key])

    if resumes == "again":
        assert await pair.move(key) == ["moved"]
    elif resumes == "cancel":
        found = (await pair.old.tasks.cancel(pair.old.queue, key)).record
        assert found is not None
        assert found.state is TaskState.CANCELLED
    elif resumes == "read":
        assert await pair.state(pair.old.queue, key) is TaskState.QUEUED
    await pair.moves.resume(pair.old.queue)

    assert await pair.client.hlen(pair.old.keys.moving) == 0
    if after == 0 and heard and resumes != "again":
        # Nothing was sent, and nothing asks for it anew.
        assert (await pair.old.tasks.read(pair.old.queue, key)).queue == pair.old.queue
        return
    assert await pair.client.lrange(pair.new.keys.ready, 0, -1) == [key.encode()]
    assert (await pair.old.tasks.read(pair.old.queue, key)).queue == pair.new.queue
    assert (await pair.counts(pair.old))[0] == 0
    assert (await pair.counts(pair.new))[0] == (0 if resumes == "cancel" else 1)


async def test_it_arrives_once_though_its_run_ended_and_is_forgotten_before_the_move_is_over(pair: Pair) -> None:
    """What must not run twice would: its mover died behind the second step, and came back a day later."""
    key = await pair.old.enqueue(repeatable=False)
    with pytest.raises(StoreLost):
        await Dying(pair.client, after=1, heard=False).move(pair.old.queue, pair.new.queue, [key])
    await pair.run_one(pair.new)
    await pair.client.delete(pair.new.keys.record(key))

    assert await pair.moves.resume(pair.old.queue) == 1

    assert await pair.client.llen(pair.new.keys.ready) == 0
    await pair.nothing_left()


async def test_a_copy_of_the_second_step_that_comes_late_does_nothing(pair: Pair) -> None:
    """A packet may be under way for longer than it is known that the task had arrived."""
    key = await pair.old.enqueue()
    sent: list[tuple[Any, ...]] = []
    run = pair.moves._scripts.run_kept

    async def run_kept(at: QueueKeys, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        if name == "move_in":
            sent.append((at, name, keys, args))
        return await run(at, name, keys, args)

    pair.moves._scripts.run_kept = run_kept  # type: ignore[method-assign]
    await pair.move(key)
    at, name, keys, args = sent[0]

    assert await run(at, name, keys, args) == [b"there"]
    await pair.client.delete(pair.new.keys.record(key))
    await pair.client.delete(pair.new.keys.arrived)
    aged = [args[0], int(args[1]) - MAX_ENQUEUE_AGE_SECONDS * 1000 - 1000, *args[2:]]
    assert await run(at, name, keys, aged) == [b"late"]
    assert await pair.client.exists(pair.new.keys.record(key)) == 0


async def test_a_pass_forgets_what_arrived_long_ago(pair: Pair) -> None:
    """A mark for each task that ever came would fill Redis."""
    key = await pair.old.enqueue()
    await pair.move(key)
    ((mark, until_ms),) = await pair.client.zrange(pair.new.keys.arrived, 0, -1, withscores=True)
    assert until_ms < float("inf")

    await pair.new.maintenance.run_pass(pair.new.queue, max_crashes=3)
    assert await pair.client.zcard(pair.new.keys.arrived) == 1
    await pair.client.zadd(pair.new.keys.arrived, {mark: 1})
    await pair.new.maintenance.run_pass(pair.new.queue, max_crashes=3)
    assert await pair.client.zcard(pair.new.keys.arrived) == 0


async def test_large_requests_move_some_at_a_time(pair: Pair) -> None:
    """Hundreds of them in one answer would fill the middleware."""
    keys = [await pair.old.enqueue(request=b"x" * 3_000_000) for _ in range(3)]

    assert await pair.move(*keys) == ["moved", "moved", "later"]
    assert await pair.move(*keys) == ["moved"] * 3


async def test_many_movers_of_the_same_tasks_move_each_once(pair: Pair) -> None:
    """Every middleware's pass goes on with what is under way, while its operator's request does."""
    keys = [await pair.old.enqueue() for _ in range(50)]
    movers = [Moves(pair.client) for _ in range(4)]

    await asyncio.gather(
        *(one.move(pair.old.queue, pair.new.queue, keys) for one in movers),
        *(one.resume(pair.old.queue) for one in movers),
    )
    while await pair.client.hlen(pair.old.keys.moving):
        await pair.moves.resume(pair.old.queue)

    assert sorted(key.decode() for key in await pair.client.lrange(pair.new.keys.ready, 0, -1)) == sorted(keys)
    assert (await pair.counts(pair.new))[0] == 50
    await pair.nothing_left()


async def test_what_is_no_move_holds_up_none(pair: Pair) -> None:
    """What stands in Redis may be damaged: the pass would end with an error, and with it the middleware."""
    key = await pair.old.enqueue()
    with pytest.raises(StoreLost):
        await Dying(pair.client, after=1, heard=True).move(pair.old.queue, pair.new.queue, [key])
    await pair.client.hset(pair.old.keys.moving, "\xff", "a b")
    await pair.client.hset(pair.old.keys.moving, "k" * 16, "garbage")
    await pair.client.hset(pair.old.keys.record("m" * 16), mapping={"s": "M", "T": "garbage", "m": "Add"})

    assert await pair.moves.resume(pair.old.queue) == 1

    assert await pair.client.hlen(pair.old.keys.moving) == 0
    assert (await pair.old.tasks.read(pair.old.queue, key)).queue == pair.new.queue
    with pytest.raises(StoreError):
        await pair.old.tasks.read(pair.old.queue, "m" * 16)
