"""What became of a task so far: what its record knows, and nothing that would have to be guessed.

The record keeps when its latest claim began, and a note of each attempt that did not end the task (`note` in the
scripts' prelude). So a task that simply ran has a history too, and its record is no larger for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from poste.domain.errors import StoreUnreached
from poste.domain.task import DeadReason, TaskEventType, TaskState
from poste.queue.connection import text
from poste.queue.keys import KEYS, Keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import redis.asyncio as redis

    from poste.queue.tasks import Tasks

_FIELDS: Final = ("s", "c", "a", "b", "w", "z", "d", "v")
#: What the letters of the notes stand for; `d` is an end as DEAD that was followed by a replay.
_NOTED: Final = {
    "r": TaskEventType.RETRIED,
    "c": TaskEventType.CRASHED,
    "g": TaskEventType.GIVEN_BACK,
    "d": TaskEventType.ENDED,
    "p": TaskEventType.REPLAYED,
}
_OF_ATTEMPTS: Final = (TaskEventType.RETRIED, TaskEventType.CRASHED, TaskEventType.GIVEN_BACK)


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """Something that happened to a task.

    Attributes:
        time: When, in seconds since the epoch.
        type: What.
        attempt: Which attempt it is about; None if it is about none.
        state: The final state, if it ended.
        dead_reason: Why, if it ended as DEAD.
    """

    time: float
    type: TaskEventType
    attempt: int | None = None
    state: TaskState | None = None
    dead_reason: DeadReason | None = None


@dataclass(frozen=True, slots=True)
class History:
    """A task's events as they happened, none if there is no record.

    `truncated`: earlier attempts are not told any more. `now` is Redis' time, in seconds since the epoch.
    """

    events: Sequence[TaskEvent]
    truncated: bool
    now: float


class Histories:
    """The histories of all tasks on one Redis."""

    def __init__(self, client: redis.Redis, tasks: Tasks, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._tasks = tasks

    async def read(self, queue: str, key: str) -> History:
        """Read a task's history.

        Raises:
            StoreUnreached, StoreLost: Redis did not answer.
        """
        # That settles it if it is overdue, and knows whether its result's time is over.
        reading = await self._tasks.read(queue, key, most_bytes=0)
        if reading.record is None:
            return History([], truncated=False, now=reading.now)
        try:
            fields = await self._client.hmget(self._keys.of(queue).record(key), _FIELDS)
        except RedisError as error:
            raise StoreUnreached(str(error)) from error
        if fields[0] is None:
            return History([], truncated=False, now=reading.now)
        record = {name: text(value) for name, value in zip(_FIELDS, fields, strict=True) if value is not None}
        accepted, *rest = _events(record)
        if rest:
            # The gateway's clock may be ahead of Redis'.
            accepted = replace(accepted, time=min(accepted.time, rest[0].time))
        return History([accepted, *rest], truncated=record.get("v", "").startswith(";"), now=reading.now)


def _events(record: Mapping[str, str]) -> Iterator[TaskEvent]:
    yield TaskEvent(_seconds(record["c"]), TaskEventType.ACCEPTED)
    for one in filter(None, record.get("v", "").split(";")):
        yield from _noted(*one.split(" "))
    if "b" in record:
        yield TaskEvent(_seconds(record["b"]), TaskEventType.STARTED, int(record["a"]))
    if "w" in record:
        # Nothing but its end can follow, so it belongs to the latest claim.
        yield TaskEvent(_seconds(record["w"]), TaskEventType.CANCEL_REQUESTED)
    state = TaskState(record["s"])
    if state.final:
        yield _ended(record["z"], state, record.get("d", ""))


def _noted(letter: str, attempt: str, begin: str, time: str, word: str) -> Iterator[TaskEvent]:
    kind = _NOTED[letter]
    if begin:
        yield TaskEvent(_seconds(begin), TaskEventType.STARTED, int(attempt))
    if kind is TaskEventType.ENDED:
        yield _ended(time, TaskState.DEAD, word)
    else:
        yield TaskEvent(_seconds(time), kind, int(attempt) if kind in _OF_ATTEMPTS else None)


def _ended(time: str, state: TaskState, reason: str) -> TaskEvent:
    dead_reason = DeadReason(reason) if state is TaskState.DEAD else None
    return TaskEvent(_seconds(time), TaskEventType.ENDED, state=state, dead_reason=dead_reason)


def _seconds(milliseconds: str) -> float:
    return int(milliseconds) / 1000
