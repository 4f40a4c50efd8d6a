"""What the middleware does with tasks: accept, read, cancel, complete. `queues` counts them."""

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
from poste.queue.connection import time_of
from poste.queue.damaged import DamagedRecord, instant
from poste.queue.durability import Durability, Proof, on_reply
from poste.queue.errors import reading, writing
from poste.queue.keys import KEYS, Keys
from poste.queue.moves import Moves
from poste.queue.record import TaskRecord
from poste.queue.scripts import Scripts
from poste.queue.steps import task as steps
from poste.queue.steps.task import Accepted, Completed, NewTask, Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis.asyncio as redis

#: What `to_read` goes by.
_WAITED_FOR: Final = (record.STATE, record.EXPIRE, record.NOT_BEGUN, record.WAITED)
_QUEUED: Final = TaskState.QUEUED.value.encode()
_OPEN: Final = (_QUEUED, TaskState.RUNNING.value.encode())


@dataclass(frozen=True, slots=True)
class Reading:
    """A task (None if there is no record, or its result's TTL is over) and Redis' time, seconds since the epoch.

    `queue`: the one that it is in, for it may have been moved; without a record, the one that was asked.
    `left_out_bytes`: how large its response is, if it is left out of the record for that.
    `purge_time`: if there is no record, up to when what had ended in its queue was purged; None if never.
    """

    record: TaskRecord | None
    now: float
    queue: str
    left_out_bytes: int = 0
    purge_time: float | None = None


class Tasks:
    """The tasks of all queues on one Redis."""

    def __init__(self, client: redis.Redis, proof: Proof = on_reply, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client, proof)
        self._moves = Moves(client, proof, keys)
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
            watch: A client waits for its end.
            most_bytes: A response that is larger is left out.

        Raises:
            StoreError: Redis did not answer, or it is not on disk yet.
        """
        found, end_time = await self._read(queue, key, watch=watch, most_bytes=most_bytes)
        if end_time is not None:
            await self._wait_for_disk(found.queue, end_time)
        return found

    async def cancel(self, queue: str, key: str) -> Reading:
        """Cancel a waiting task, ask a running one to stop, and read it; what is returned is on disk.

        Raises:
            StoreUnreached: Nothing was cancelled.
            StoreLost: It may be, or is and is not on disk yet.
        """
        at = self._keys.of(queue)
        if not await steps.cancel(self._scripts, at, key):
            elsewhere = (await self._moves.find(queue, key)).elsewhere(queue)
            if elsewhere is not None:
                return await self.cancel(elsewhere, key)
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
            purge_time = found.purge_time
            if found.may_have_moved:
                place = await self._moves.find(queue, key)
                purge_time = place.purge_time
                # A record of this queue that can't be read is found in it again.
                if (elsewhere := place.elsewhere(queue)) is not None:
                    return await self._read(elsewhere, key, watch=watch, most_bytes=most_bytes)
            return Reading(None, found.now, queue, purge_time=purge_time), None
        try:
            task, end_time = record.read(key, found.fields, now=found.now), record.end_time_of(found.fields)
        except DamagedRecord as error:
            damaged.report(queue, key, str(error))
            return Reading(None, found.now, queue), None
        return Reading(task, found.now, queue, found.left_out_bytes), end_time

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
        return await time_of(self._client)

    def forget_queues(self) -> None:
        """Note each queue anew when it is next given a task: Redis was emptied, and knows none."""
        self._known.clear()

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
