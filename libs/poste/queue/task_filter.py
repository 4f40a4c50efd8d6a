"""Which tasks are meant, by state, method, reason and age; and a place in a search for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from poste.domain.task import DeadReason, TaskState
    from poste.queue.record import TaskRecord


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Those of which all of it is true.

    Attributes:
        states: Their state is one of these; none: any.
        method: Their method's short name; empty: any.
        reason: Why they are DEAD, or were cancelled; None: whatever the reason.
        min_age_seconds: So long ago they ended, or, of those that have not, they were accepted.
    """

    states: frozenset[TaskState] = frozenset()
    method: str = ""
    reason: DeadReason | None = None
    min_age_seconds: int = 0

    def matches(self, task: TaskRecord, end_time: float | None, *, now: float) -> bool:
        """Return whether a task is meant, by its age at `now`; times are in seconds since the epoch."""
        if (self.states and task.state not in self.states) or self.method not in ("", task.method):
            return False
        if self.reason not in (None, task.dead_reason):
            return False
        since = task.create_time if end_time is None else end_time
        return not self.min_age_seconds or since <= now - self.min_age_seconds


ANY: Final = TaskFilter()


@dataclass(frozen=True, slots=True)
class Search:
    """A place in a search among all keys of a queue's server, or of all servers: where that goes on.

    Of what ended, it finds what had by `until_time` (seconds, Redis' time): one that is run again meanwhile, and ends
    once more, is not found once more.
    """

    until_time: float
    cursor: int
    #: Which server, of those there are; of one queue's it is 0.
    server: int = 0
