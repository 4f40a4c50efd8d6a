"""A task's history: the events that its record has, without any that would have to be guessed.

The record keeps when its latest claim began, and of each attempt that did not end the task what became of it
(`append_event` in the scripts' prelude). So a task that simply ran has a history too, and its record is no larger for
it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from poste.domain.codes import Code, code_of
from poste.domain.task import DeadReason, TaskEventType, TaskState
from poste.queue import damaged, record
from poste.queue.connection import text
from poste.queue.damaged import instant, whole
from poste.queue.errors import reading
from poste.queue.keys import KEYS, Keys
from poste.queue.record import MAX_ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import redis.asyncio as redis

    from poste.queue.tasks import Tasks

_FIELDS: Final = (
    *(record.STATE, record.CREATE, record.ATTEMPTS, record.BEGIN, record.STOP, record.END, record.REASON, record.NOTES),
    record.NOT_BEFORE,
)
_MARKING: Final = (record.STATE, record.ATTEMPTS, record.BEGIN, record.STOP, record.END)
#: So much of the notes' end has the latest one's time.
_MARKED_NOTE: Final = 60
#: What the letters of the notes stand for; `d` and `f` are ends as DEAD and FAILED that were followed by a replay.
_NOTED: Final = {
    "r": TaskEventType.RETRIED,
    "c": TaskEventType.CRASHED,
    "g": TaskEventType.GIVEN_BACK,
    "d": TaskEventType.ENDED,
    "f": TaskEventType.ENDED,
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
        dead_reason: Why, if it ended as DEAD, or was cancelled by an operator.
        code: That of the error that an attempt failed with, if it was retried and that is known.
        not_before_time: If it was accepted: when it could run at first, in seconds since the epoch; None: at once.
    """

    time: float
    type: TaskEventType
    attempt: int | None = None
    state: TaskState | None = None
    dead_reason: DeadReason | None = None
    code: Code | None = None
    not_before_time: float | None = None


@dataclass(frozen=True, slots=True)
class History:
    """A task's events as they happened, none if there is no record.

    `truncated`: earlier attempts are not listed any more. `now` is Redis' time, in seconds since the epoch.
    `purge_time`: if there is no record, up to when what had ended in its queue was purged; None if never.
    `mark` tells it from an earlier or a later one.
    """

    events: Sequence[TaskEvent]
    truncated: bool
    now: float
    purge_time: float | None = None
    mark: str = ""


class Histories:
    """The histories of all tasks on one Redis."""

    def __init__(self, client: redis.Redis, tasks: Tasks, keys: Keys = KEYS) -> None:
        self._client = client
        self._keys = keys
        self._tasks = tasks

    async def read(self, queue: str, key: str, *, watch: bool = False) -> History:
        """Read a task's history; with `watch`, its end is published on `Keys.ended_channel`.

        Raises:
            StoreUnreached, StoreLost, StoreNotRead: Redis did not answer.
        """
        # That settles it if it is overdue, and knows whether its result's time is over.
        found = await self._tasks.read(queue, key, watch=watch, most_bytes=0)
        if found.record is None:
            return History([], truncated=False, now=found.now, purge_time=found.purge_time)
        with reading():
            fields = await self._client.hmget(self._keys.of(found.queue).record(key), _FIELDS)
        if fields[0] is None:
            return History([], truncated=False, now=found.now)
        if fields[0] == record.MOVED:
            # Since then it went to another queue, or is on its way.
            return await self.read(found.queue, key, watch=watch)
        stored = {name: text(value) for name, value in zip(_FIELDS, fields, strict=True) if value is not None}
        events: list[TaskEvent] = []
        complete = True
        for part in _parts(stored):
            try:
                events += part()
            except (ValueError, KeyError, TypeError) as error:
                # The other parts are still returned.
                damaged.report(queue, key, f"a part of its history: {error}")
                complete = False
        if len(events) > 1 and events[0].type is TaskEventType.ACCEPTED:
            # The gateway's clock may be ahead of Redis'.
            events[0] = replace(events[0], time=min(events[0].time, events[1].time))
        truncated = not complete or stored.get(record.NOTES, "").startswith(";")
        return History(events, truncated=truncated, now=found.now, mark=_mark(stored))


def _mark(of: Mapping[str, str]) -> str:
    """Return what tells a record's history from its others. Notes are only added to, and each has its time."""
    return " ".join((*(of.get(name, "") for name in _MARKING), of.get(record.NOTES, "")[-_MARKED_NOTE:]))


def _parts(of: Mapping[str, str]) -> Iterator[Callable[[], list[TaskEvent]]]:
    """Return, for each part of a record's history, what reads its events, in the order in which they happened."""
    yield lambda: [_accepted(of[record.CREATE], of.get(record.NOT_BEFORE))]
    for one in filter(None, of.get(record.NOTES, "").split(";")):
        yield functools.partial(_noted, *one.split(" ", 4))
    if record.BEGIN in of:
        yield lambda: [TaskEvent(_time(of[record.BEGIN]), TaskEventType.STARTED, _attempt(of[record.ATTEMPTS]))]
    if record.STOP in of:
        # Nothing but its end can follow, so it belongs to the latest claim.
        yield lambda: [TaskEvent(_time(of[record.STOP]), TaskEventType.CANCEL_REQUESTED)]
    if TaskState(of[record.STATE]).final:
        yield lambda: [_ended(of[record.END], TaskState(of[record.STATE]), of.get(record.REASON, ""))]


def _accepted(create: str, not_before: str | None) -> TaskEvent:
    not_before_time = None if not_before is None else _time(not_before)
    return TaskEvent(_time(create), TaskEventType.ACCEPTED, not_before_time=not_before_time)


def _noted(letter: str, attempt: str, begin: str, time: str, word: str) -> list[TaskEvent]:
    kind = _NOTED[letter]
    began = [TaskEvent(_time(begin), TaskEventType.STARTED, _attempt(attempt))] if begin else []
    if kind is TaskEventType.ENDED:
        return [*began, _ended(time, TaskState(letter.upper()), word)]
    code = code_of(int(word)) if kind is TaskEventType.RETRIED and word else None
    return [*began, TaskEvent(_time(time), kind, _attempt(attempt) if kind in _OF_ATTEMPTS else None, code=code)]


def _ended(time: str, state: TaskState, reason: str) -> TaskEvent:
    dead_reason = DeadReason(reason) if reason or state is TaskState.DEAD else None
    return TaskEvent(_time(time), TaskEventType.ENDED, state=state, dead_reason=dead_reason)


def _time(written: str) -> float:
    return instant(written.encode(), "the time of an event")


def _attempt(number: str) -> int:
    return whole(number.encode(), "an attempt", most=MAX_ATTEMPTS)
