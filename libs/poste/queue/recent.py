"""Lists the newest tasks of a queue, whatever their state, for operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poste.domain.task import TaskState
from poste.queue import damaged, record
from poste.queue.connection import texts
from poste.queue.damaged import DamagedRecord, instant
from poste.queue.errors import reading
from poste.queue.keys import KEYS, Keys
from poste.queue.record import Fields, TaskRecord
from poste.queue.tasks import Tasks

if TYPE_CHECKING:
    import redis.asyncio as redis

#: Without the request and the result: a list of those would have no bound.
_FIELDS: Final = (
    *(name for name in record.SHOWN if name not in {record.RESPONSE, record.ERROR}),
    *(record.TASK_TTL, record.NOT_BEGUN),
)


@dataclass(frozen=True, slots=True)
class RecentTask:
    """A task without its response and error. The times to live, in seconds, are those of its id."""

    record: TaskRecord
    task_ttl_seconds: int
    result_ttl_seconds: int


class Recent:
    """The newest tasks of all queues on one Redis."""

    def __init__(self, client: redis.Redis, tasks: Tasks, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._tasks = tasks

    async def newest(self, queue: str, *, count: int) -> list[RecentTask]:
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
            pipeline = self._client.pipeline(transaction=False)
            for key in keys:
                pipeline.hmget(at.record(key), _FIELDS)
            pipeline.time()
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

    async def _read(self, queue: str, key: str, fields: Fields, now: float) -> RecentTask | None:
        state = fields[record.STATE]
        if state is None:
            return None
        waits = state == TaskState.QUEUED.value.encode()
        if fields[record.NOT_BEGUN] or (waits and instant(fields[record.EXPIRE], "expire time") <= now):
            # Overdue, and not settled yet: reading settles it. Or perhaps it has not begun.
            task = (await self._tasks.read(queue, key, most_bytes=0)).record
        else:
            task = record.read(key, fields, now=now)
        if task is None:
            return None
        return RecentTask(task, *record.ttls_of(fields))
