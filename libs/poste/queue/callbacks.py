"""What is told of tasks' ends to their clients' URLs: what is due, what came of it, and what could not be told.

The step that ends a task notes it as due, in the same write. A gateway leases what is due, tells it, and says what came
of it; if it dies another is given it once the lease is over. So each end is told at least once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poste.domain import sizes
from poste.queue import damaged, record
from poste.queue.connection import text
from poste.queue.damaged import DamagedRecord
from poste.queue.durability import Proof, on_reply
from poste.queue.errors import reading
from poste.queue.keys import KEYS, Keys
from poste.queue.moves import Moves
from poste.queue.scripts import Scripts
from poste.queue.steps import callbacks as steps
from poste.queue.steps import task as task_steps
from poste.queue.steps.callbacks import Settled, Settlement

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis.asyncio as redis

    from poste.queue.record import TaskRecord

#: How long who took one has for telling it, in seconds: longer than a try may take.
LEASE_SECONDS: Final = 60.0
#: How many are told again by one step.
_REDELIVERED_AT_ONCE: Final = 500
_FIELDS: Final = (record.CALLBACK_URL, record.CALLBACK_TRIES, record.ID_REST)


@dataclass(frozen=True, slots=True)
class Callback:
    """An end that is to be told.

    Attributes:
        record: The task; a large response is left out.
        left_out_bytes: How large that is then.
        end_time: When it ended, in seconds since the epoch.
        url: What is told.
        id_rest: The task's id, without the queue's name; empty if it is not known.
        failures: How often it failed.
        failure: What went wrong the last time.
    """

    record: TaskRecord
    left_out_bytes: int
    end_time: float
    url: str
    id_rest: str
    failures: int
    failure: str


class Callbacks:
    """What is told of the tasks of all queues on one Redis."""

    def __init__(self, client: redis.Redis, proof: Proof = on_reply, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client, proof)
        self._moves = Moves(client, proof, keys)

    async def lease(self, queue: str, *, count: int) -> list[Callback]:
        """Take ends of a queue's tasks that are due, for a minute.

        Raises:
            StoreError: Redis did not answer; what was taken is due again in a minute.
        """
        keys = await steps.lease(self._scripts, self._keys.of(queue), count=count, lease_seconds=LEASE_SECONDS)
        return await self._read_all(queue, keys, most_bytes=sizes.LARGE)

    async def settle(self, queue: str, settlements: Sequence[Settlement]) -> list[Settled]:
        """Store what came of telling URLs.

        Raises:
            StoreError: Redis did not answer; what was not stored is due again when its lease is over.
        """
        return await steps.settle(self._scripts, self._keys.of(queue), settlements)

    async def undelivered(self, queue: str, *, count: int) -> list[Callback]:
        """List what could not be told, without responses, the longest given up first.

        Raises:
            StoreError: Redis did not answer.
        """
        keys = await steps.undelivered(self._scripts, self._keys.of(queue), count)
        return await self._read_all(queue, keys, most_bytes=0)

    async def redeliver(self, queue: str, keys: Sequence[str] = ()) -> int:
        """Have what could not be told be told again: of these tasks, or of all; returns how many.

        Raises:
            StoreError: Redis did not answer.
        """
        at, count = self._keys.of(queue), 0
        for key in keys:
            # It may have been moved to another queue.
            place = (await self._moves.find(queue, key)).queue
            count += await steps.redeliver(self._scripts, at if place is None else self._keys.of(place), [key])
        if keys:
            return count
        while some := await steps.undelivered(self._scripts, at, _REDELIVERED_AT_ONCE):
            count += await steps.redeliver(self._scripts, at, some)
        return count

    async def _read_all(self, queue: str, keys: Sequence[str], *, most_bytes: int) -> list[Callback]:
        found, over = [], []
        for key in keys:
            callback = await self._read(queue, key, most_bytes)
            if callback is None:
                over.append(Settlement(key, 0, "told"))
            else:
                found.append(callback)
        if over:
            # There is no record any more: it leaves the lists.
            await self.settle(queue, over)
        return found

    async def _read(self, queue: str, key: str, most_bytes: int) -> Callback | None:
        at = self._keys.of(queue)
        found = await task_steps.read(self._scripts, at, key, watch=False, most_bytes=most_bytes)
        with reading():
            url, tries, id_rest = await self._client.hmget(at.record(key), _FIELDS)
        if found.fields is None:
            return None
        try:
            end_time = record.end_time_of(found.fields)
            # Its result's time may be over: it is kept for this.
            task = record.read(key, found.fields, now=0.0)
        except DamagedRecord as error:
            damaged.report(queue, key, str(error))
            return None
        if task is None or end_time is None or url is None:
            # It was replayed, and is told of its next end.
            return None
        failures, _, why = text(tries or b"").partition(" ")
        return Callback(
            task,
            found.left_out_bytes,
            end_time,
            text(url),
            text(id_rest or b""),
            int(failures) if failures.isdigit() else 0,
            why.partition(" ")[2],
        )
