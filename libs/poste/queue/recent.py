"""The newest tasks of a queue, whatever became of them: for whoever wants to see what goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from poste.domain.errors import StoreUnreached
from poste.domain.task import TaskState
from poste.queue import damaged
from poste.queue.connection import texts
from poste.queue.damaged import DamagedRecord, instant_ms
from poste.queue.keys import KEYS, Keys
from poste.queue.tasks import TaskRecord, Tasks, read_record, ttls_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import redis.asyncio as redis

#: Without the request and the result: a list of those would have no bound.
_FIELDS: Final = ("s", "m", "c", "x", "r", "a", "z", "w", "d", "y", "h")


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
            count: How many of the newest are looked at; no more than `tasks.RECENT` are remembered.

        Raises:
            StoreUnreached, StoreLost: Redis did not answer.
        """
        at = self._keys.of(queue)
        try:
            keys = texts(await self._client.lrange(at.recent, 0, count - 1))
            pipeline = self._client.pipeline(transaction=False)
            for key in keys:
                pipeline.hmget(at.record(key), _FIELDS)
            pipeline.time()
            *found, (seconds, microseconds) = await pipeline.execute(raise_on_error=False)
        except RedisError as error:
            raise StoreUnreached(str(error)) from error
        now = seconds * 1000 + microseconds // 1000
        tasks = []
        for key, fields in zip(keys, found, strict=True):
            try:
                tasks.append(await self._read(queue, key, damaged.fields_of(fields), now))
            except DamagedRecord as error:
                damaged.tell(queue, key, str(error))
        return [task for task in tasks if task is not None]

    async def _read(self, queue: str, key: str, fields: Sequence[Any], now: int) -> RecentTask | None:
        state, _, _, expire, result_ttl, *_, ttl_ms, claimed_only = fields
        if state is None:
            return None
        overdue = state == TaskState.QUEUED.value.encode() and instant_ms(expire, "expire time") <= now
        if claimed_only or overdue:
            # Overdue, and nobody has looked at it yet: looking settles it. Or perhaps it has not begun.
            record = (await self._tasks.read(queue, key, most_bytes=0)).record
        else:
            record = read_record(key, [*fields[:-2], None, None], now)
        if record is None:
            return None
        return RecentTask(record, *ttls_of(ttl_ms, result_ttl))
