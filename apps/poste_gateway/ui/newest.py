"""The newest tasks of all queues. A queue's are read again when its figures change, or after a while."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from poste.domain.task_id import TaskIds
from poste_gateway.mom import Mom, MomAway
from poste_gateway.tasks import task_view

#: How many are shown.
_COUNT: Final = 20
#: How long the tasks of a quiet queue are not read again, in seconds; then those whose results expired disappear.
_FRESH_SECONDS: Final = 10.0
#: While no task of a queue is open, one of these figures changes whenever one of its newest tasks does.
_CHANGING: Final = ("enqueued", "ended", "dead")
_OPEN: Final = ("queued", "running", "delayed", "scheduled")

_Figures = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Known:
    """One queue's newest tasks, and when and at which figures they were read."""

    tasks: list[dict[str, Any]]
    changing: tuple[Any, ...]
    quiet: bool
    end: float


class Newest:
    """Lists the newest tasks."""

    def __init__(self, mom: Mom, ids: TaskIds) -> None:
        """Begin with nothing read.

        Args:
            mom: The middleware.
            ids: Makes the tasks' ids from their keys.
        """
        self._mom = mom
        self._ids = ids
        self._known: dict[str, _Known] = {}

    async def of(self, queues: Mapping[str, _Figures]) -> list[dict[str, Any]]:
        """Return the newest tasks of some queues, the newest first, as JSON values.

        Args:
            queues: The queues' figures by their names.
        """
        self._known = {name: known for name, known in self._known.items() if name in queues}
        found = await asyncio.gather(*(self._of_one(name, figures) for name, figures in queues.items()))
        tasks = [task for some in found for task in some]
        return sorted(tasks, key=lambda task: str(task["createTime"]), reverse=True)[:_COUNT]

    async def _of_one(self, queue: str, figures: _Figures) -> list[dict[str, Any]]:
        now = asyncio.get_running_loop().time()
        changing = tuple(figures[name] for name in _CHANGING)
        quiet = not any(figures[name] for name in _OPEN)
        known = self._known.get(queue)
        if known is not None and quiet and known.quiet and known.changing == changing and now < known.end:
            return known.tasks
        try:
            recent = await self._mom.list_recent_tasks(queue, _COUNT)
        except MomAway:
            return [] if known is None else known.tasks
        tasks = [task_view.to_summary(task_view.listed_id(self._ids, queue, one), one.task) for one in recent]
        self._known[queue] = _Known(tasks, changing, quiet, now + _FRESH_SECONDS)
        return tasks
