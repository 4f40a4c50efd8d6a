"""The Redis steps of the reaper and of the other maintenance (`queue/maintenance.py`).

Each is safe to repeat, and to be done by several replicas at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

from poste.queue import damaged, ends
from poste.queue.connection import text, texts
from poste.queue.errors import reading, writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poste.queue.connection import Client
    from poste.queue.keys import Keys, QueueKeys
    from poste.queue.scripts import Scripts

#: How many of a server's keys one step of a search (`SCAN`) reads.
_SCAN: Final = 1000
#: What became of a key that stood in the list of a consumer whose lease is over.
Reaped = Literal["requeued", "crashed", "dead", "cancelled", "dropped", "gone"]


class Budget(NamedTuple):
    """How many bytes what ended in a queue may take.

    `at_least` so many; and as many as it leaves of those that its Redis may hold in all, if there is such a `limit`.
    """

    at_least: int
    limit: int = 0


class Tick(NamedTuple):
    """What there is at the beginning of a pass.

    Attributes:
        lease_clock: The clock that leases go by, in seconds.
        now: Redis' time, in seconds since the epoch.
        is_spent: What ended takes all that it may.
        moving: How many tasks are on their way to another queue.
    """

    lease_clock: float
    now: float
    is_spent: bool
    moving: int


async def tick(scripts: Scripts, at: QueueKeys, *, step_seconds: float, budget: Budget | None) -> Tick:
    """Begin a pass: move the leases' clock on, drop figures of what Redis has dropped by now, and say the budget.

    Args:
        scripts: Runs it.
        at: The queue's keys.
        step_seconds: By how much the clock moves at most until the next pass.
        budget: How much what ended may take before no more is started; if that is not known, it stays as it is.
    """
    terms = ("", "") if budget is None else budget
    touched = [at.counts, at.kept, at.moving, at.arrived]
    clock_ms, now_ms, spent, moving = await scripts.run("tick", touched, [round(step_seconds * 1000), *terms])
    return Tick(int(clock_ms) / 1000, int(now_ms) / 1000, bool(spent), moving)


async def reap(
    scripts: Scripts, at: QueueKeys, incarnation: str, keys: Sequence[str], *, max_crashes: int
) -> list[Reaped]:
    """Take back what stands in the list of a consumer whose lease is over; returns nothing if the lease holds.

    Args:
        scripts: Runs it.
        at: The queue's keys.
        incarnation: The consumer; without keys it is only noted as reaped, and the next pass sweeps its list.
        keys: What stands there.
        max_crashes: How many crashes that a task suffers alone are its end.
    """
    touched = [at.leases, at.reaped, at.ready, at.counts, at.kept, at.dead, at.taken(incarnation)]
    reply = await scripts.run("reap", [*touched, *map(at.record, keys)], [incarnation, max_crashes, *keys])
    results, ended = reply
    ends.log(at.queue, ended)
    return cast("list[Reaped]", texts(results))


async def wake(scripts: Scripts, at: QueueKeys, *, count: int) -> int:
    """Put what is due into the queue, `count` at most of retries and of calls for later; returns how many."""
    return int(await scripts.run("wake", [at.delayed, at.ready, at.scheduled], [count]))


async def sweep(scripts: Scripts, at: QueueKeys, place: str, first: int, keys: Sequence[str]) -> int:
    """Settle those of some waiting tasks that are overdue, and take keys off their list whose tasks have ended.

    Returns how many keys were taken off.

    Args:
        scripts: Runs it.
        at: The queue's keys.
        place: The list that they stand in: the queue's own, or a lane.
        first: Where they stand there: the index of the first one, below 0 if they are the list's last.
        keys: What stands there.
    """
    touched = [place, at.counts, at.kept, at.dead, *map(at.record, keys)]
    removed, ended = await scripts.run("sweep", touched, [first, *keys])
    ends.log(at.queue, ended)
    return int(removed)


async def ended_leases(scripts: Scripts, at: QueueKeys, lease_clock: float) -> list[str]:
    """Return the consumers whose lease is over, by the clock that leases go by."""
    with reading():
        return texts(await scripts.client.zrangebyscore(at.leases, "-inf", round(lease_clock * 1000)))


async def reaped_to_sweep(scripts: Scripts, at: QueueKeys) -> list[str]:
    """Return the reaped consumers in whose lists something stands all the same."""
    with reading():
        reaped = texts(await scripts.client.zrange(at.reaped, 0, -1))
        pipeline = scripts.client.pipeline(transaction=False)
        for one in reaped:
            pipeline.llen(at.taken(one))
        lengths = await pipeline.execute() if reaped else []
    return [one for one, length in zip(reaped, lengths, strict=True) if length]


async def forget_reaped(scripts: Scripts, at: QueueKeys, before: float) -> None:
    """Sweep no more for the consumers that were reaped before a time (seconds, Redis' time)."""
    with writing():
        await scripts.client.zremrangebyscore(at.reaped, "-inf", round(before * 1000))


async def taken_lists(server: Client, keys: Keys) -> list[str]:
    """Return the names of all consumers' lists on one server."""
    with reading():
        return [text(name) async for name in server.scan_iter(match=keys.any_taken, count=_SCAN)]


async def is_orphaned(scripts: Scripts, at: QueueKeys, incarnation: str) -> bool:
    """Return whether a consumer has neither a lease nor was reaped."""
    with reading():
        pipeline = scripts.client.pipeline(transaction=False)
        pipeline.zscore(at.leases, incarnation)
        pipeline.zscore(at.reaped, incarnation)
        return bool(await pipeline.execute() == [None, None])


async def listed(scripts: Scripts, at: QueueKeys, place: str, first: int, last: int) -> list[str]:
    """Return the keys in a part of a list; what can't be one is taken off it."""
    with reading():
        found = await scripts.client.lrange(place, first, last)
    return await damaged.sound_keys(scripts.client, place, at.queue, found)


async def lanes(scripts: Scripts, at: QueueKeys) -> list[str]:
    """Return the lists of those methods whose tasks wait apart."""
    with reading():
        return [at.lane(method) for method in texts(await scripts.client.smembers(at.lanes))]


async def backlog(scripts: Scripts, at: QueueKeys, places: Sequence[str]) -> tuple[list[int], int]:
    """Return how many keys stand in each list of a queue, and of how many of them at least the tasks have ended.

    Args:
        scripts: Has the client.
        at: The queue's keys.
        places: All lists in which tasks wait: the queue's own, and the lanes.
    """
    with reading():
        pipeline = scripts.client.pipeline(transaction=False)
        for place in places:
            pipeline.llen(place)
        pipeline.zcard(at.delayed)
        pipeline.zcard(at.scheduled)
        pipeline.hget(at.counts, "waiting")
        *lengths, delayed, scheduled, waiting = await pipeline.execute()
    # What waits stands there, or waits for a time, or was taken just now.
    known = int(waiting) if waiting and waiting.isdigit() else 0
    return lengths, max(0, sum(lengths) + delayed + scheduled - known)
