"""Lists tasks of a queue, for operators: the newest, and those that a filter finds.

Each comes without its request, response and error: a list of those would have no bound.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poste.domain.task import TaskState
from poste.queue import damaged, record
from poste.queue.connection import server_of, texts, time_of
from poste.queue.damaged import DamagedRecord, instant
from poste.queue.errors import reading
from poste.queue.keys import KEYS, Keys
from poste.queue.record import Fields, TaskRecord
from poste.queue.task_filter import Search, TaskFilter
from poste.queue.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis.asyncio as redis

_FIELDS: Final = (
    *(name for name in record.SHOWN if name not in {record.RESPONSE, record.ERROR}),
    *(record.TASK_TTL, record.NOT_BEGUN),
)
#: How many of a server's keys one step of a search (`SCAN`) reads: the fewest and the most.
_SCAN: Final = (10, 1000)
#: How long one call searches, in seconds.
_SEARCH_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class ListedTask:
    """A task without its response and error.

    `end_time` is in seconds since the epoch, None if it has not ended. The times to live, in seconds, are those of its
    id.
    """

    record: TaskRecord
    end_time: float | None
    task_ttl_seconds: int
    result_ttl_seconds: int


@dataclass(frozen=True, slots=True)
class FoundPage:
    """What a part of a search found, in no order, and where to go on; None at the end."""

    tasks: list[ListedTask]
    behind: Search | None


class TaskLists:
    """Lists the tasks of all queues on one Redis."""

    def __init__(self, client: redis.Redis, tasks: Tasks, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._tasks = tasks

    async def newest(self, queue: str, *, count: int) -> list[ListedTask]:
        """List the newest tasks, the newest first, without those that are not kept any more.

        Args:
            queue: The queue's name.
            count: How many of the newest are read; no more than `steps.task.RECENT` are remembered.

        Raises:
            StoreUnreached, StoreLost, StoreNotRead: Redis did not answer.
        """
        at = self._keys.of(queue)
        with reading():
            keys = texts(await self._client.lrange(at.recent, 0, count - 1))
        return await self._read_all(queue, keys)

    async def search(self, queue: str, wanted: TaskFilter, *, count: int, behind: Search | None = None) -> FoundPage:
        """Find tasks that a filter matches.

        There is no list of most of them, for keeping one would cost every call: they are searched for among all keys of
        the queue's server. What is on record all the time is found; what comes or goes meanwhile may be.

        Args:
            queue: The queue's name.
            wanted: Which tasks.
            count: About how many; a search for rare ones ends after half a second with what it has.
            behind: Where to go on.

        Raises:
            StoreUnreached, StoreLost, StoreNotRead: Redis did not answer.
        """
        at, end = self._keys.of(queue), time.monotonic() + _SEARCH_SECONDS
        server = await server_of(self._client, at.counts)
        if behind is None:
            behind = Search(round(await time_of(server), 3), 0)
        found: list[ListedTask] = []
        fewest, most = _SCAN
        while True:
            step = min(max(fewest, count - len(found)), most)
            with reading():
                cursor, records = await server.scan(behind.cursor, match=at.any_record, count=step)
            keys = [name.rpartition(":")[2] for name in texts(name for name in records if name.isascii())]
            found += [one for one in await self._read_all(queue, keys) if _is_meant(one, wanted, behind.until_time)]
            if not cursor:
                return FoundPage(found, None)
            behind = Search(behind.until_time, int(cursor))
            if len(found) >= count or time.monotonic() > end:
                return FoundPage(found, behind)

    async def _read_all(self, queue: str, keys: Sequence[str]) -> list[ListedTask]:
        """Read tasks, without those that are not kept any more."""
        if not keys:
            return []
        at = self._keys.of(queue)
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hmget(at.record(key), _FIELDS)
        pipeline.time()
        with reading():
            *found, (seconds, microseconds) = await pipeline.execute(raise_on_error=False)
        now = seconds + microseconds / 1e6
        tasks = []
        for key, reply in zip(keys, found, strict=True):
            try:
                fields = dict(zip(_FIELDS, damaged.fields_of(reply), strict=True))
                tasks.append(await self._read(queue, key, fields, now))
            except DamagedRecord as error:
                damaged.report(queue, key, str(error))
        return [task for task in tasks if task is not None]

    async def _read(self, queue: str, key: str, fields: Fields, now: float) -> ListedTask | None:
        state = fields[record.STATE]
        if state in {None, record.MOVED}:
            return None
        waits = state == TaskState.QUEUED.value.encode()
        if fields[record.NOT_BEGUN] or (waits and instant(fields[record.EXPIRE], "expire time") <= now):
            # Overdue, and not settled yet: reading settles it. Or perhaps it has not begun.
            task = (await self._tasks.read(queue, key, most_bytes=0)).record
        else:
            task = record.read(key, fields, now=now)
        if task is None:
            return None
        end_time = record.end_time_of(fields) if task.state.final else None
        return ListedTask(task, end_time, *record.ttls_of(fields))


def _is_meant(one: ListedTask, wanted: TaskFilter, until_time: float) -> bool:
    by_then = one.end_time is None or one.end_time <= until_time
    return by_then and wanted.matches(one.record, one.end_time, now=until_time)
