"""What the middleware does with tasks: accept, read, cancel, complete, count."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from redis.exceptions import RedisError, ResponseError

from poste.domain import door, sizes
from poste.domain.errors import StoreUnreached
from poste.domain.policy import DEFAULT_MAX_HELD_BYTES, MAX_ENQUEUE_AGE_SECONDS, QueuePolicy, RetryPolicy
from poste.domain.task import DeadReason, TaskState
from poste.queue import damaged
from poste.queue.connection import text, texts
from poste.queue.damaged import DamagedRecord, instant_ms, whole
from poste.queue.durability import Durability, Proof, on_reply
from poste.queue.keys import KEYS, Keys, QueueKeys
from poste.queue.scripts import Argument, Scripts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import redis.asyncio as redis

#: How many of a queue's newest tasks are remembered, for whoever wants to see them.
RECENT: Final = 1000
#: The longest time to live that an id can tell, in seconds; and how many attempts a task is told to have had, at most.
MAX_SECONDS: Final = 2**32 - 1
MAX_ATTEMPTS: Final = 2**31 - 1
#: What a task takes in Redis beside its request, response and error, in bytes, as the scripts count it.
RECORD_BYTES: Final = 300
#: How many of those that are tried next are looked at for what they wait for.
_NEXT: Final = 1000
#: Where the script `read` has a task's end.
_END: Final = 6

Accepted = Literal["accepted", "full", "spent", "clock"]
Completed = Literal["succeeded", "cancelled", "failed", "dead", "retried", "replayed", "refused"]
Ending = Literal["ok", "cancelled", "final", "large", "retry", "defect", "silent", "overdue"]
#: Ends after which a task may be tried again.
_FAILURES: Final = frozenset[Ending]({"retry", "defect", "silent", "overdue"})


class NewTask(NamedTuple):
    """A call to be kept. Times are in seconds (since the epoch); `traceparent` is empty if it is in no trace."""

    key: str
    method: str
    request: bytes
    create_time: float
    task_ttl_seconds: int
    result_ttl_seconds: int
    repeatable: bool
    traceparent: str = ""


class Report(NamedTuple):
    """What a handler ended with under one claim.

    `ending`: ok (payload: the response), cancelled, final (payload: the error), large (payload: an error that says that
    it answered with more than can be kept), retry (a later try may go better), defect (it failed in a way that nobody
    foresaw), silent (it ended without saying whether it had run: retried if that does no harm), overdue (silent, for
    its time was over). `retry`: how its method's tasks are tried again.
    """

    key: str
    token: str
    ending: Ending
    payload: bytes = b""
    retry: RetryPolicy = RetryPolicy()


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task as it is. Times are in seconds since the epoch; `expire_time` is None for a DEAD one.

    `create_time` is by the clock of the gateway that made its id, everything else by Redis'.
    """

    key: str
    method: str
    state: TaskState
    create_time: float
    expire_time: float | None
    attempt: int
    cancel_requested: bool
    dead_reason: DeadReason | None
    response: bytes | None
    error: bytes | None


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
    bytes are what each kind takes in Redis, its records included.
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
        #: By queue: until when, in ms by Redis' time, all that happened in it is on disk; and who finds that out.
        self._synced: defaultdict[str, int] = defaultdict(int)
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
        at = self._keys.of(queue)
        if queue not in self._known:
            try:
                await self._client.sadd(self._keys.queues, queue)
            except RedisError as error:
                raise StoreUnreached(str(error)) from error
            self._known.add(queue)
        arguments: list[Argument] = [policy.max_length, policy.max_bytes, max_held_bytes]
        arguments += (MAX_ENQUEUE_AGE_SECONDS * 1000, RECENT)
        arguments.append("" if durability is Durability.AS_TOLD else "1")
        for task in tasks:
            arguments += (
                task.key,
                task.method,
                task.request,
                round(task.create_time * 1000),
                task.task_ttl_seconds * 1000,
                task.result_ttl_seconds,
                "" if task.repeatable else "1",
                task.traceparent,
            )
        results = await self._scripts.run(
            "enqueue",
            [at.ready, at.counts, at.recent, *(at.record(task.key) for task in tasks)],
            arguments,
            barrier=at.barrier if durability is Durability.ON_WAITAOF else None,
        )
        return [result.decode() for result in results]

    async def read(self, queue: str, key: str, *, watch: bool = False, most_bytes: int = sizes.MAX_MESSAGE) -> Reading:
        """Read a task; with `watch`, its end is told on `Keys.ended_channel`. An end that is told is on disk.

        Args:
            queue: The queue's name.
            key: The task's key.
            watch: Somebody waits for its end.
            most_bytes: A response that is larger is left out.

        Raises:
            StoreUnreached, StoreLost: Redis did not answer, or it is not on disk yet.
        """
        reading, end_ms = await self._read(queue, key, watch=watch, most_bytes=most_bytes)
        if end_ms is not None:
            await self._wait_for_disk(queue, end_ms)
        return reading

    async def cancel(self, queue: str, key: str) -> Reading:
        """Cancel a waiting task, ask a running one to stop, and read it; what is told is on disk.

        Raises:
            StoreUnreached, StoreLost: Redis did not answer, or it is not on disk yet.
        """
        at = self._keys.of(queue)
        await self._scripts.run("cancel", [at.delayed, at.counts, at.kept, at.dead, at.record(key)], [key])
        # One that was cancelled has no response, and one that has a response is not cancelled any more.
        reading, _ = await self._read(queue, key, watch=False, most_bytes=0)
        if await self._scripts.must_wait(queue):
            await self._scripts.sync(at.barrier)
        return reading

    async def _read(self, queue: str, key: str, *, watch: bool, most_bytes: int) -> tuple[Reading, int | None]:
        """Read a task; the second is when it ended, in ms by Redis' time, None if it has not."""
        at = self._keys.of(queue)
        touched = [at.delayed, at.counts, at.kept, at.dead, at.record(key)]
        reply = await self._scripts.run("read", touched, [key, "1" if watch else "0", most_bytes])
        now, found = int(reply[0]), reply[1]
        if not isinstance(found, list):
            return Reading(None, now / 1000, purge_time=None if found is None else int(found) / 1000), None
        try:
            record, end = read_record(key, found, now), found[_END]
            end_ms = None if end is None else instant_ms(end, "end time")
        except DamagedRecord as error:
            damaged.tell(queue, key, str(error))
            return Reading(None, now / 1000), None
        return Reading(record, now / 1000, reply[2]), end_ms

    async def _wait_for_disk(self, queue: str, end_ms: int) -> None:
        """Wait until what was written at a time is on disk. Who reads an end must not see another one later."""
        if end_ms < self._synced[queue] or not await self._scripts.must_wait(queue):
            return
        async with self._syncing[queue]:
            # One wait serves all that came before it.
            if end_ms >= self._synced[queue]:
                self._synced[queue] = await self._scripts.sync(self._keys.of(queue).barrier)

    async def complete(self, queue: str, reports: Sequence[Report]) -> list[Completed]:
        """Store what handlers ended with; what is answered is on disk, for the service forgets its result then.

        Raises:
            StoreUnreached, StoreLost: Redis did not answer, or it is not on disk yet; report again.
        """
        at = self._keys.of(queue)
        touched = [at.counts, at.kept, at.delayed, at.dead]
        arguments: list[Argument] = []
        for report in reports:
            touched += (at.record(report.key), at.taken(report.token.rpartition(":")[0]))
            terms = _terms(report.retry) if report.ending in _FAILURES else ""
            arguments += (report.key, report.token, report.ending, report.payload, terms)
        results = await self._scripts.run_kept(at, "complete", touched, arguments)
        return [result.decode() for result in results]

    async def now(self) -> float:
        """Return Redis' time, in seconds since the epoch; of a cluster, that of one of its servers.

        Raises:
            StoreUnreached: Redis did not answer.
        """
        try:
            seconds, microseconds = await self._client.time()
        except RedisError as error:
            raise StoreUnreached(str(error)) from error
        return float(seconds + microseconds / 1e6)

    def forget_queues(self) -> None:
        """Note each queue anew when it is next given a task: Redis was emptied, and knows none."""
        self._known.clear()

    async def queues(self) -> list[str]:
        """Return the names of the queues there are.

        Raises:
            StoreUnreached: Redis did not answer.
        """
        try:
            found = await self._client.smembers(self._keys.queues)
        except RedisError as error:
            raise StoreUnreached(str(error)) from error
        return sorted(texts(found))

    async def delayed_methods(self, queue: str) -> list[str]:
        """Return the methods of those tasks that are tried again next, a thousand at most.

        Raises:
            StoreUnreached: Redis did not answer.
        """
        at = self._keys.of(queue)
        try:
            keys = texts(await self._client.zrange(at.delayed, 0, _NEXT - 1))
            pipeline = self._client.pipeline(transaction=False)
            for key in keys:
                pipeline.hget(at.record(key), "m")
            return texts(method for method in await pipeline.execute() if method)
        except RedisError as error:
            raise StoreUnreached(str(error)) from error

    async def figures(self, queue: str) -> QueueFigures:
        """Count a queue's tasks.

        Raises:
            StoreUnreached: Redis did not answer.
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
        try:
            fields, stretches, delayed, dead, leases, front, retries, time = await pipeline.execute()
            oldest = texts(key for key in (front, *retries) if key)
            created = [await self._created_ms(at, key) for key in oldest]
        except RedisError as error:
            raise StoreUnreached(str(error)) from error
        counts = {text(name): value for name, value in fields.items() if value.lstrip(b"-").isdigit()}
        now = int(time[0]) + int(time[1]) / 1e6
        ages = [now - create_ms / 1000 for create_ms in created if create_ms is not None]
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
            totals={name[1:]: int(value) for name, value in counts.items() if name.startswith("+")},
        )

    async def _created_ms(self, at: QueueKeys, key: str) -> int | None:
        """Tell when a task was created; None if there is none any more, or nobody can tell."""
        try:
            create = await self._client.hget(at.record(key), "c")
            return None if create is None else instant_ms(create, "create time")
        except (ResponseError, DamagedRecord) as error:
            damaged.tell(at.queue, key, str(error))
            return None


def count_kept(stretches: Mapping[bytes, bytes]) -> tuple[int, int]:
    """Add up what the scripts have counted as kept: returns how many, and their bytes."""
    counted = {text(stretch): int(figure) for stretch, figure in stretches.items()}
    count = sum(figure for stretch, figure in counted.items() if not stretch.endswith("b"))
    return count, sum(counted.values()) - count


def _terms(retry: RetryPolicy) -> str:
    """Spell when a task is tried again, as the script `complete` takes it apart."""
    first, longest = retry.backoff_seconds * 1000, retry.max_backoff_seconds * 1000
    jitter = random.random()  # noqa: S311 - it is no secret
    return f"{retry.max_attempts or 0} {retry.max_defects} {first} {longest} {jitter}"


def read_record(key: str, fields: Sequence[Any], now: int) -> TaskRecord | None:
    """Build a record from what the script `read` returns of it.

    None if its result's TTL is over: the hash itself may live a little longer.

    Raises:
        DamagedRecord: It is none.
    """
    state_letter, method, create, expire, ttl, attempts, end, stop, reason, response, error = fields
    try:
        state = TaskState(state_letter.decode())
        dead_reason = DeadReason(reason.decode()) if reason else None
        called = method.decode()
    except (ValueError, AttributeError) as damage:
        raise DamagedRecord(f"state, reason or method: {damage}") from damage
    if state is TaskState.DEAD and dead_reason is None:
        raise DamagedRecord("it is dead and does not say why")
    create_ms = instant_ms(create, "create time")
    expire_ms: int | None = instant_ms(expire, "expire time")
    if state is TaskState.DEAD:
        expire_ms = None
    elif state.final:
        # An id's time may be ahead of Redis', and is what its result's time to live is judged by.
        kept_seconds = whole(ttl, "result TTL", most=MAX_SECONDS)
        expire_ms = min(max(instant_ms(end, "end time"), create_ms) + kept_seconds * 1000, door.LAST_SECOND * 1000)
        if expire_ms <= now:
            return None
    return TaskRecord(
        key=key,
        method=called,
        state=state,
        create_time=create_ms / 1000,
        expire_time=None if expire_ms is None else expire_ms / 1000,
        attempt=whole(attempts or b"0", "attempts", most=MAX_ATTEMPTS),
        cancel_requested=bool(stop) and not state.final,
        dead_reason=dead_reason,
        response=response if state is TaskState.SUCCEEDED else None,
        error=error or None,
    )


def ttls_of(task_ttl_ms: bytes | None, result_ttl: bytes | None) -> tuple[int, int]:
    """Return the times to live of a task's id, in seconds.

    Raises:
        DamagedRecord: They are none.
    """
    most = MAX_SECONDS
    return whole(task_ttl_ms, "task TTL", most=most * 1000) // 1000, whole(result_ttl, "result TTL", most=most)
