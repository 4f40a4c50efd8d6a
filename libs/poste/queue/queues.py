"""Which queues there are, and what is in each: figures for operators and Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poste.queue import damaged, record
from poste.queue.connection import text, texts
from poste.queue.damaged import DamagedRecord, instant
from poste.queue.errors import reading
from poste.queue.keys import KEYS, Keys, QueueKeys
from poste.queue.record import RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import redis.asyncio as redis

#: How many of the tasks that are tried next are read, for what they wait for.
_NEXT: Final = 1000


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """One queue, each task counted once; and what was ever done in it, by the scripts' words for it.

    `scheduled` are those that may not run yet. `kept` are those that ended and are not DEAD, for as long as their
    results are kept, and a 32nd of that at most. The bytes are what each kind takes in Redis, its records included.
    `stands_still`: none is started, for what ended takes as many bytes as it may. `lanes` has how many wait for their
    method's turn, by method. `held` are those of the DEAD that are held aside, for their method's schema changed.
    `callbacks` are the ends that are to be told to their clients' URLs, `undelivered` those that could not be.
    """

    name: str
    queued: int
    running: int
    delayed: int
    scheduled: int
    dead: int
    held: int
    callbacks: int
    undelivered: int
    kept: int
    waiting_bytes: int
    kept_bytes: int
    dead_bytes: int
    consumers: int
    oldest_age_seconds: float | None
    paused: bool
    stands_still: bool
    lanes: Mapping[str, int]
    totals: Mapping[str, int]

    @property
    def waiting(self) -> int:
        """How many wait, for whatever."""
        return self.queued + self.delayed + self.scheduled

    @property
    def held_bytes(self) -> int:
        """What all that it holds takes, but for what runs."""
        return self.waiting_bytes + self.kept_bytes + self.dead_bytes


class Queues:
    """The queues on one Redis."""

    def __init__(self, client: redis.Redis, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys

    async def names(self) -> list[str]:
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
        pipeline.zcard(at.scheduled)
        pipeline.zcard(at.dead)
        pipeline.zcard(at.leases)
        pipeline.zcard(at.callbacks)
        pipeline.zcard(at.undelivered)
        pipeline.lindex(at.ready, -1)
        pipeline.zrange(at.delayed, 0, 0)
        pipeline.smembers(at.lanes)
        pipeline.time()
        with reading():
            fields, stretches, *lengths, front, retries, methods, time = await pipeline.execute()
            delayed, scheduled, dead, leases, callbacks, undelivered = lengths
            lanes = await self._lanes(at, texts(methods))
            fronts = (front, *retries, *(oldest for oldest, _ in lanes.values()))
            due = await self._due_times(at, texts(key for key in fronts if key))
        counts = {text(name): value for name, value in fields.items() if value.lstrip(b"-").isdigit()}
        now = int(time[0]) + int(time[1]) / 1e6
        ages = [now - due_time for due_time in due]
        kept, kept_bytes = count_kept(stretches)
        waiting = int(counts.get("waiting", 0))
        return QueueFigures(
            name=queue,
            queued=max(0, waiting - delayed - scheduled),
            running=int(counts.get("running", 0)),
            delayed=delayed,
            scheduled=scheduled,
            dead=dead,
            held=max(0, int(counts.get("held", 0))),
            callbacks=callbacks,
            undelivered=undelivered,
            kept=kept,
            waiting_bytes=int(counts.get("bytes", 0)) + waiting * RECORD_BYTES,
            kept_bytes=kept_bytes,
            dead_bytes=int(counts.get("dead_bytes", 0)),
            consumers=leases,
            oldest_age_seconds=max(0.0, *ages) if ages else None,
            paused="paused" in counts,
            stands_still="budget" in counts and int(counts.get("ended_bytes", 0)) >= int(counts["budget"]),
            lanes={method: length for method, (_, length) in lanes.items()},
            totals={name[1:]: int(value) for name, value in counts.items() if name.startswith("+")},
        )

    async def _lanes(self, at: QueueKeys, methods: Sequence[str]) -> dict[str, tuple[bytes | None, int]]:
        """Return of each method's lane the key of what waits longest, and how many there are."""
        pipeline = self._client.pipeline(transaction=False)
        for method in methods:
            pipeline.lindex(at.lane(method), -1)
            pipeline.llen(at.lane(method))
        found = await pipeline.execute() if methods else []
        return dict(zip(methods, zip(found[::2], found[1::2], strict=True), strict=True))

    async def _due_times(self, at: QueueKeys, keys: Sequence[str]) -> list[float]:
        """Return since when tasks wait for their turn, in seconds since the epoch: of each whose record can be read."""
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hmget(at.record(key), [record.CREATE, record.NOT_BEFORE])
        found = []
        for key, reply in zip(keys, await pipeline.execute(raise_on_error=False) if keys else (), strict=True):
            try:
                create, not_before = damaged.fields_of(reply)
                # There is no record any more.
                if create is not None:
                    found.append(max(instant(create, "create time"), instant(not_before or b"0", "not-before time")))
            except DamagedRecord as error:
                damaged.report(at.queue, key, str(error))
        return found


def count_kept(stretches: Mapping[bytes, bytes]) -> tuple[int, int]:
    """Add up what the scripts have counted as kept: returns how many, and their bytes."""
    counted = {text(stretch): int(figure) for stretch, figure in stretches.items()}
    count = sum(figure for stretch, figure in counted.items() if not stretch.endswith("b"))
    return count, sum(counted.values()) - count
