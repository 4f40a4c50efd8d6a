"""Counts what died by method and reason: what an operator has to decide on is a cause, not each of its letters.

Only these two fields are read of most records. No count of them is kept: it would cost every task that dies, and is
asked for by people alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from poste.domain.task import DeadReason, TaskState
from poste.queue import damaged, record
from poste.queue.damaged import DamagedRecord
from poste.queue.errors import reading
from poste.queue.keys import KEYS, Keys
from poste.queue.operators import DeadLetter, Operators, Place
from poste.queue.scripts import Scripts
from poste.queue.steps import operator as steps

if TYPE_CHECKING:
    import redis.asyncio as redis

#: How many records are read by one command, and how long one call goes on, in seconds.
_BATCH: Final = 1000
_SECONDS: Final = 0.5
_FIELDS: Final = (record.STATE, record.METHOD, record.REASON)
_DEAD: Final = TaskState.DEAD.value.encode()


@dataclass(slots=True)
class _Group:
    count: int = 0
    newest: list[Place] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """What died of one method, for one reason. `newest` are some of it, the newest first."""

    method: str
    reason: DeadReason
    count: int
    newest: list[DeadLetter]


@dataclass(frozen=True, slots=True)
class GroupedDead:
    """What died, that of the newest first; and how many of the longest dead there was no time for."""

    groups: list[DeadGroup]
    uncounted: int


class DeadGroups:
    """Counts what died in the queues of one Redis."""

    def __init__(self, client: redis.Redis, operators: Operators, keys: Keys = KEYS) -> None:
        self._client = client
        self._operators = operators
        self._scripts = Scripts(client)
        self._keys = keys

    async def of(self, queue: str, *, newest: int) -> GroupedDead:
        """Count what died, the newest first, for half a second at most.

        Args:
            queue: The queue's name.
            newest: Of each group so many are returned.

        Raises:
            StoreUnreached, StoreNotRead: Redis did not answer.
        """
        at, end = self._keys.of(queue), time.monotonic() + _SECONDS
        found: dict[tuple[str, DeadReason], _Group] = {}
        seen = 0
        while True:
            listed = await steps.newest_dead(self._scripts, at, offset=seen, count=_BATCH)
            seen += len(listed)
            await self._count(queue, [Place(die_time, key) for key, die_time in listed], found, newest)
            if len(listed) < _BATCH:
                uncounted = 0
                break
            if time.monotonic() > end:
                with reading():
                    uncounted = max(0, await self._client.zcard(at.dead) - seen)
                break
        groups = [
            DeadGroup(method, reason, group.count, await self._operators.letters(queue, group.newest))
            for (method, reason), group in found.items()
        ]
        return GroupedDead(groups, uncounted)

    async def _count(
        self, queue: str, places: list[Place], found: dict[tuple[str, DeadReason], _Group], newest: int
    ) -> None:
        if not places:
            return
        at = self._keys.of(queue)
        pipeline = self._client.pipeline(transaction=False)
        for place in places:
            pipeline.hmget(at.record(place.key), _FIELDS)
        with reading():
            replies = await pipeline.execute(raise_on_error=False)
        for place, reply in zip(places, replies, strict=True):
            try:
                state, method, reason = damaged.fields_of(reply)
                # One that was replayed or purged since it was listed is passed over.
                if state != _DEAD:
                    continue
                kind = method.decode(), DeadReason(reason.decode())
            except (DamagedRecord, AttributeError, ValueError) as damage:
                damaged.report(queue, place.key, str(damage))
                continue
            group = found.setdefault(kind, _Group())
            group.count += 1
            if len(group.newest) < newest:
                group.newest.append(place)
