"""Which calls of a queue an operator means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from poste.domain.task import TaskState


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Those of which all of it is true.

    Attributes:
        states: Their state is one of these; none: what the verb means by itself (any, of a list).
        method: Their method's short name; empty: any.
        reason: Why they are DEAD, or were cancelled; empty: whatever the reason.
        min_age_seconds: So long ago they ended, or, of those that have not, they were accepted.
    """

    states: tuple[TaskState, ...] = ()
    method: str = ""
    reason: str = ""
    min_age_seconds: int = 0

    def query(self, **more: str) -> str:
        """Return it, and more parameters, as the query of a request; what is empty is left out."""
        pairs = [("state", state.name) for state in self.states]
        pairs += [("method", self.method), ("reason", self.reason), ("minAgeSeconds", str(self.min_age_seconds or ""))]
        return urlencode([(name, value) for name, value in (*pairs, *more.items()) if value])


ALL: Final = TaskFilter()
