"""What the middleware does with tasks: accept, read, cancel, complete, count."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from poste.domain import sizes
from poste.domain.errors import StoreError, StoreLost, StoreUnreached
from poste.domain.policy import DEFAULT_MAX_HELD_BYTES, QueuePolicy
from poste.domain.task import TaskState
from poste.queue import damaged, record
from poste.queue.connection import text, texts
from poste.queue.damaged import DamagedRecord, instant
from poste.queue.durability import Durability, Proof, on_reply
from poste.queue.errors import reading, writing
from poste.queue.keys import KEYS, Keys, QueueKeys
from poste.queue.record import RECORD_BYTES, TaskRecord
from poste.queue.scripts import Scripts
from poste.queue.steps import task as steps
from poste.queue.steps.task import Accepted, Completed, NewTask, Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import redis.asyncio as redis

#: How many of the tasks that are tried next are read, for what they wait for.
_NEXT: Final = 1000
#: What `to_read` goes by.
_WAITED_FOR: Final = (record.STATE, record.EXPIRE, record.NOT_BEGUN, record.WAITED)
_QUEUED: Final = TaskState.QUEUED.value.encode()
_OPEN: Final = (_QUEUED, TaskState.RUNNING.value.encode())


@dataclass(frozen=True, slots=True)
class Reading:
    """A task (None if there is no record, or its result's TTL is over) and Redis' time, seconds since the epoch.

    `left_out_bytes`: how large its response is, if it is left out of the record for that.
    `purge_time`: if there is no record, up to when what had ended in its queue was purged; None if never.
    """

    record: TaskRecord | None
    now: float
    left_out_bytes: int = 0
    purge_time: float | None = None


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """One queue, each task counted once; and what was ever done in it, by the scripts' words for it.

    `kept` are those that ended and are not DEAD, for as long as their results are kept, and a 32nd of that at most. The
    bytes are what each kind takes in Redis, its records included. `stands_still`: none is started, for what ended takes
    as many bytes as it may.
    """

    name: str
    queued: int
    running: int
    delayed: int
    dead: int
    kept: int
    waiting_bytes: int
    kept_bytes: int
    dead_bytes: int
    consumers: int
    oldest_age_seconds: float | None
    paused: bool
    stands_still: bool
    totals: Mapping[str, int]

    @property
    def held_bytes(self) -> int:
        """What all that it holds takes, but for what runs."""
        return self.waiting_bytes + self.kept_bytes + self.dead_bytes


class Tasks:
    """The tasks of all queues on one Redis."""

    def __init__(self, client: redis.Redis, proof: Proof = on_reply, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client, proof)
        self._known: set[str] = set()
        #: By queue: until when, by Redis' time in seconds, all that happened in it is on disk; and who finds that out.
        self._synced: defaultdict[str, float] = defaultdict(float)
        self._syncing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def enqueue(
        self,
        queue: str,
        tasks: Sequence[NewTask],
        policy: QueuePolicy,
        durability: Durability,
        *,
        max_held_bytes: int = DEFAULT_MAX_HELD_BYTES,
    ) -> list[Accepted]:
        """Accept tasks; what is answered "accepted" is on disk.

        Args:
            queue: The queue's name.
            tasks: What is to be kept.
            policy: How much may wait.
            durability: What a reply of its Redis proves.
            max_held_bytes: How many bytes all that the queue holds may take.

        Raises:
            StoreUnreached: None was accepted.
            StoreLost: Any may have been accepted.
        """
        if queue not in self._known:
            try:
                with writing():
                    await self._client.sadd(self._keys.queues, queue)
            except StoreLost as error:
                # Whether it is noted or not: no task was sent.
                raise StoreUnreached(str(error)) from error
            self._known.add(queue)
        at = self._keys.of(queue)
        return await steps.enqueue(
            self._scripts, at, tasks, policy, max_held_bytes=max_held_bytes, durability=durability
        )

    async def read(self, queue: str, key: str, *, watch: bool = False, most_bytes: int = sizes.MAX_MESSAGE) -> Reading:
        """Read a task; with `watch`, its end is published on `Keys.ended_channel`. An end that is returned is on disk.

        Args:
            queue: The queue's name.
            key: The task's key.
            watch: Somebody waits for its end.
            most_bytes: A response that is larger is left out.

        Raises:
            StoreError: Redis did not answer, or it is not on disk yet.
        """
        found, end_time = await self._read(queue, key, watch=watch, most_bytes=most_bytes)
        if end_time is not None:
            await self._wait_for_disk(queue, end_time)
        return found

    async def cancel(self, queue: str, key: str) -> Reading:
        """Cancel a waiting task, ask a running one to stop, and read it; what is returned is on disk.

        Raises:
            StoreUnreached: Nothing was cancelled.
            StoreLost: It may be, or is and is not on disk yet.
        """
        at = self._keys.of(queue)
        await steps.cancel(self._scripts, at, key)
        try:
            # One that was cancelled has no response, and one that has a response is not cancelled any more.
            found, _ = await self._read(queue, key, watch=False, most_bytes=0)
            if await self._scripts.must_wait(queue):
                await self._scripts.sync(at.barrier)
        except StoreError as error:
            # Nothing came of the reading; the cancellation stands.
            raise StoreLost(str(error)) from error
        return found

    async def _read(self, queue: str, key: str, *, watch: bool, most_bytes: int) -> tuple[Reading, float | None]:
        """Read a task; the second is when it ended, by Redis' time, None if it has not."""
        found = await steps.read(self._scripts, self._keys.of(queue), key, watch=watch, most_bytes=most_bytes)
        if found.fields is None:
            return Reading(None, found.now, purge_time=found.purge_time), None
        try:
            task, end_time = record.read(key, found.fields, now=found.now), record.end_time_of(found.fields)
        except DamagedRecord as error:
            damaged.report(queue, key, str(error))
            return Reading(None, found.now), None
        return Reading(task, found.now, found.left_out_bytes), end_time

    async def _wait_for_disk(self, queue: str, end_time: float) -> None:
        """Wait until what was written at a time is on disk. Who reads an end must not see another one later."""
        if end_time < self._synced[queue] or not await self._scripts.must_wait(queue):
            return
        async with self._syncing[queue]:
            # One wait serves all that came before it.
            if end_time >= self._synced[queue]:
                self._synced[queue] = await self._scripts.sync(self._keys.of(queue).barrier)

    async def complete(self, queue: str, reports: Sequence[Report]) -> list[Completed]:
        """Store what handlers ended with; what is answered is on disk, for the service forgets its result then.

        Raises:
            StoreError: Redis did not answer, or it is not on disk yet; report again.
        """
        return await steps.complete(self._scripts, self._keys.of(queue), reports)

    async def now(self) -> float:
        """Return Redis' time, in seconds since the epoch; of a cluster, that of one of its servers.

        Raises:
            StoreUnreached, StoreNotRead: Redis did not answer.
        """
        with reading():
            seconds, microseconds = await self._client.time()
        return float(seconds + microseconds / 1e6)

    def forget_queues(self) -> None:
        """Note each queue anew when it is next given a task: Redis was emptied, and knows none."""
        self._known.clear()

    async def queues(self) -> list[str]:
        """Return the names of the queues there are.

        Raises:
            StoreUnreached, StoreNotRead: Redis did not answer.
        """
        with reading():
            found = await self._client.smembers(self._keys.queues)
        return sorted(texts(found))

    async def delayed_methods(self, queue: str) -> list[str]:
        """Return the methods of those tasks that are tried again next, a thousand at most.

        Raises:
            StoreUnreached, StoreNotRead: Redis did not answer.
        """
        at = self._keys.of(queue)
        with reading():
            keys = texts(await self._client.zrange(at.delayed, 0, _NEXT - 1))
            pipeline = self._client.pipeline(transaction=False)
            for key in keys:
                pipeline.hget(at.record(key), record.METHOD)
            return texts(method for method in await pipeline.execute() if method)

    async def to_read(self, queue: str, keys: Sequence[str]) -> list[str]:
        """Return which of the tasks that are waited for are worth reading again; that costs less than reading them.

        Args:
            queue: The queue's name.
            keys: The tasks' keys, those of one batch.

        Returns:
            The keys of those that have ended or are gone, that are overdue (reading settles them), and whose ends would
            not be published, for their records lack the flag that a client waits.

        Raises:
            StoreUnreached, StoreNotRead: Redis did not answer.
        """
        at = self._keys.of(queue)
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hmget(at.record(key), _WAITED_FOR)
        pipeline.time()
        with reading():
            *found, (seconds, microseconds) = await pipeline.execute(raise_on_error=False)
        now = seconds + microseconds / 1e6
        return [key for key, reply in zip(keys, found, strict=True) if _is_to_be_read(reply, now)]

    async def figures(self, queue: str) -> QueueFigures:
        """Count a queue's tasks.

        Raises:
            StoreUnreached, StoreNotRead: Redis did not answer.
        """
        at = self._keys.of(queue)
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hgetall(at.counts)
        pipeline.hgetall(at.kept)
        pipeline.zcard(at.delayed)
        pipeline.zcard(at.dead)
        pipeline.zcard(at.leases)
        pipeline.lindex(at.ready, -1)
        pipeline.zrange(at.delayed, 0, 0)
        pipeline.time()
        with reading():
            fields, stretches, delayed, dead, leases, front, retries, time = await pipeline.execute()
            created = await self._create_times(at, texts(key for key in (front, *retries) if key))
        counts = {text(name): value for name, value in fields.items() if value.lstrip(b"-").isdigit()}
        now = int(time[0]) + int(time[1]) / 1e6
        ages = [now - create_time for create_time in created]
        kept, kept_bytes = count_kept(stretches)
        waiting = int(counts.get("waiting", 0))
        return QueueFigures(
            name=queue,
            queued=max(0, waiting - delayed),
            running=int(counts.get("running", 0)),
            delayed=delayed,
            dead=dead,
            kept=kept,
            waiting_bytes=int(counts.get("bytes", 0)) + waiting * RECORD_BYTES,
            kept_bytes=kept_bytes,
            dead_bytes=int(counts.get("dead_bytes", 0)),
            consumers=leases,
            oldest_age_seconds=max(0.0, *ages) if ages else None,
            paused="paused" in counts,
            stands_still="budget" in counts and int(counts.get("ended_bytes", 0)) >= int(counts["budget"]),
            totals={name[1:]: int(value) for name, value in counts.items() if name.startswith("+")},
        )

    async def _create_times(self, at: QueueKeys, keys: Sequence[str]) -> list[float]:
        """Return when tasks were created, in seconds since the epoch: of each whose record can be read."""
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hmget(at.record(key), [record.CREATE])
        found = []
        for key, reply in zip(keys, await pipeline.execute(raise_on_error=False) if keys else (), strict=True):
            try:
                (create,) = damaged.fields_of(reply)
                # There is no record any more.
                if create is not None:
                    found.append(instant(create, "create time"))
            except DamagedRecord as error:
                damaged.report(at.queue, key, str(error))
        return found


def _is_to_be_read(reply: Any, now: float) -> bool:
    """Return whether a task that is waited for is to be read, by HMGET's answer; also if that makes no sense."""
    try:
        state, expiry, not_begun, waited = damaged.fields_of(reply)
        if not waited or state not in _OPEN:
            return True
        waits = state == _QUEUED or not_begun
        return bool(waits and instant(expiry, "expire time") <= now)
    except (DamagedRecord, StoreError):
        return True


def count_kept(stretches: Mapping[bytes, bytes]) -> tuple[int, int]:
    """Add up what the scripts have counted as kept: returns how many, and their bytes."""
    counted = {text(stretch): int(figure) for stretch, figure in stretches.items()}
    count = sum(figure for stretch, figure in counted.items() if not stretch.endswith("b"))
    return count, sum(counted.values()) - count
