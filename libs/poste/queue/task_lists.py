"""Lists tasks: the newest of a queue, and those that a filter finds in a queue or in all.

Each comes without its request, response and error: a list of those would have no bound.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poste.domain import carried
from poste.domain.task import TaskState
from poste.queue import damaged, record
from poste.queue.connection import name_of, server_of, servers_of, texts, time_of
from poste.queue.damaged import DamagedRecord, instant
from poste.queue.errors import reading
from poste.queue.keys import KEYS, Keys
from poste.queue.record import Fields, TaskRecord
from poste.queue.task_filter import Search, TaskFilter
from poste.queue.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis.asyncio as redis

    from poste.queue.connection import Client

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
    """A task without its response and error, and the queue that it is in.

    `end_time` is in seconds since the epoch, None if it has not ended. The times to live, in seconds, are those of its
    id.
    """

    queue: str
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
        return await self._read_all(self._client, [(queue, key) for key in keys])

    async def one(self, queue: str, key: str) -> list[ListedTask]:
        """List the one task of a queue that has a key; none if it is not kept.

        Raises:
            StoreUnreached, StoreLost, StoreNotRead: Redis did not answer.
        """
        return await self._read_all(self._client, [(queue, key)])

    async def search(
        self,
        queue: str,
        wanted: TaskFilter,
        *,
        count: int,
        behind: Search | None = None,
        owner: str = "",
        client: str = "",
    ) -> FoundPage:
        """Find tasks that a filter matches.

        There is no list of most of them, for keeping one would cost every call: they are searched for among all keys of
        the queue's server. What is on record all the time is found; what comes or goes meanwhile may be, and in a
        cluster whose masters change meanwhile what is theirs.

        Args:
            queue: The queue's name; empty: all queues are searched, one server after the other.
            wanted: Which tasks.
            count: About how many; a search for rare ones ends after half a second with what it has.
            behind: Where to go on.
            owner: What their keys end in (`TaskIds.owner_of`).
            client: Whose they are, of those of an owner that several have by chance; empty: any of them.

        Raises:
            StoreUnreached, StoreLost, StoreNotRead: Redis did not answer.
        """
        end = time.monotonic() + _SEARCH_SECONDS
        servers, records = await self._places(queue)
        if behind is None:
            behind = Search(round(await time_of(servers[0]), 3), 0)
        found: list[ListedTask] = []
        said = carried.of_client(client).encode() if client else b""
        fewest, most = _SCAN
        while behind.server < len(servers):
            server, step = servers[behind.server], min(max(fewest, count - len(found)), most)
            with reading():
                cursor, names = await server.scan(behind.cursor, match=records + owner, count=step)
            listed = map(self._keys.split_record, texts(name for name in names if name.isascii()))
            tasks = await self._read_all(server, list(listed), said)
            found += [one for one in tasks if _is_meant(one, wanted, behind.until_time)]
            behind = Search(behind.until_time, int(cursor), behind.server + (not cursor))
            if len(found) >= count or time.monotonic() > end:
                break
        return FoundPage(found, behind if behind.server < len(servers) else None)

    async def _places(self, queue: str) -> tuple[list[Client], str]:
        """Return the servers that have the tasks of a queue, or of all, and what matches their records."""
        if not queue:
            return sorted(await servers_of(self._client), key=name_of), self._keys.any_record
        at = self._keys.of(queue)
        return [await server_of(self._client, at.counts)], at.any_record

    async def _read_all(self, client: Client, names: Sequence[tuple[str, str]], said: bytes = b"") -> list[ListedTask]:
        """Read tasks by their queues and keys, without those that are not kept, or whose headers begin otherwise."""
        if not names:
            return []
        # Headers are the longest field by far.
        asked = (*_FIELDS, record.HEADERS) if said else _FIELDS
        pipeline = client.pipeline(transaction=False)
        for queue, key in names:
            pipeline.hmget(self._keys.of(queue).record(key), asked)
        pipeline.time()
        with reading():
            *found, (seconds, microseconds) = await pipeline.execute(raise_on_error=False)
        now = seconds + microseconds / 1e6
        tasks = []
        for (queue, key), reply in zip(names, found, strict=True):
            try:
                fields = dict(zip(asked, damaged.fields_of(reply), strict=True))
                if (fields.get(record.HEADERS) or b"").startswith(said):
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
        return ListedTask(queue, task, end_time, *record.ttls_of(fields))


def _is_meant(one: ListedTask, wanted: TaskFilter, until_time: float) -> bool:
    by_then = one.end_time is None or one.end_time <= until_time
    return by_then and wanted.matches(one.record, one.end_time, now=until_time)
