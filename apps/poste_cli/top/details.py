"""What `poste top` shows behind a row: of a service what is dead and why and its newest tasks, of a task its life."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from poste.client import CalledWith, Client, ClientError, DeadGroup, Task
from poste.domain.shown import visible
from poste_cli import life_story, sentences
from poste_cli.top import words

#: How many of a service's newest tasks are read, and how many dead letters of each group.
_NEWEST: Final = 20
_LETTERS: Final = 3
#: A line, and the id of the task that it leads to; None if it leads nowhere.
Line = tuple[Text, str | None]


class Detail(ABC):
    """A view that opens from a row.

    Attributes:
        title: What it is of.
        lines: What it shows.
    """

    def __init__(self, title: str) -> None:
        self.title = visible(title)
        self.lines: list[Line] = [(Text("One moment …", "dim"), None)]

    async def read(self, client: Client) -> None:
        """Bring it up to date; what can't be read is said in it."""
        try:
            self.lines = [*await self._read(client)]
        except ClientError as error:
            self.lines = [(Text(visible(str(error)), "bold red"), None)]

    @abstractmethod
    async def _read(self, client: Client) -> Iterator[Line]: ...


class ServiceDetail(Detail):
    """A service: its dead letters in groups, and its newest tasks."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._name = name

    async def _read(self, client: Client) -> Iterator[Line]:
        groups = await client.dead_groups(self._name, newest=_LETTERS)
        return self._lines(groups, await client.tasks(self._name, count=_NEWEST))

    def _lines(self, groups: Sequence[DeadGroup], tasks: Sequence[Task]) -> Iterator[Line]:
        yield Text("DEAD LETTERS", "bold"), None
        if not groups:
            yield Text("Nothing is dead.", "dim"), None
        for group in groups:
            what = f"{group.count:,} of {group.method}: {sentences.WHY_DEAD.get(group.reason, group.reason)}"
            yield Text(visible(what), "red"), None
            for task in group.newest:
                died = f"{task.die_time.astimezone():%m-%d %H:%M:%S}" if task.die_time else "?"
                detail = (task.error or {}).get("detail", "")
                yield Text.assemble((f"  {died}  ", "dim"), visible(f"{detail or task.id}")), task.id
            if group.count > len(group.newest):
                more = f"  … and {group.count - len(group.newest):,} older: poste dead {self._name}"
                yield Text(visible(f"{more} --method {group.method} --reason {group.reason}"), "dim"), None
        yield Text(), None
        yield Text("NEWEST TASKS", "bold"), None
        if not tasks:
            yield Text("No call was kept so far; one is when its service is away.", "dim"), None
        for task in tasks:
            state = words.state(task.state.name)
            state.pad_right(max(0, 12 - state.cell_len))
            yield Text.assemble(state, visible(f"{task.method}  "), (visible(task.id), "dim")), task.id


class TaskDetail(Detail):
    """A task: what became of it and why, its request, and its history."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"Task {task_id}")
        self._id = task_id

    async def _read(self, client: Client) -> Iterator[Line]:
        return self._lines(await client.called_with(self._id))

    def _lines(self, found: CalledWith) -> Iterator[Line]:
        task = found.task
        for line in sentences.ended_badly(task) or [f"{task.service}/{task.method} is {task.state.name}."]:
            yield Text(visible(line)), None
        if task.last_error:
            yield Text(visible(f"Last error: {task.last_error.get('code')}: {task.last_error.get('detail')}")), None
        yield Text(), None
        yield Text("REQUEST", "bold"), None
        for name, value in sentences.called_with(found).items():
            if value:
                yield Text(visible(f"{name}: {value}"), "dim"), None
        if found.request is not None:
            for line in json.dumps(found.request, indent=2, ensure_ascii=False).splitlines():
                yield Text(visible(line)), None
        yield Text(), None
        yield Text("HISTORY", "bold"), None
        for time, after, event, details in life_story.rows(found.history):
            yield Text(visible(f"{time}  {after:>12}  {event:<16}  {details}")), None
