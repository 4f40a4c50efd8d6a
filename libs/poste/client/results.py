"""What a kept call came to, for programs that want its result and nothing else."""

from __future__ import annotations

from typing import Any, Final

from poste.client.answers import Task
from poste.client.errors import ClientError, Problem
from poste.domain.task import TaskState

#: The HTTP status of a problem that does not say its own: no gateway of today leaves it out.
_STATUS: Final = 500


class NotFinished(ClientError):  # noqa: N818 - a state of the call, read at the `except`
    """The call was kept, and has not ended within the time that was to be waited: it goes on.

    Attributes:
        task: The call as it is: its `id` is what `Client.task` and `Client.cancel` take.
    """

    def __init__(self, task: Task, *, request_id: str) -> None:
        super().__init__(f"task {task.id} is still {task.state.name}", request_id=request_id)
        self.task = task


class NoResult(ClientError):  # noqa: N818 - the same
    """The call was kept, and ended without having been run to its end: it was cancelled, or its time was over.

    Attributes:
        task: The call as it ended.
    """

    def __init__(self, task: Task, *, request_id: str) -> None:
        super().__init__(f"task {task.id} has ended as {task.state.name}", request_id=request_id)
        self.task = task


def result_of(task: Task, *, request_id: str) -> Any:
    """Return the response that a task ended with.

    Raises:
        Problem: It ended with an error: the one that the direct road would have answered with.
        NotFinished: It has not ended.
        NoResult: It ended without either.
    """
    if not task.state.final:
        raise NotFinished(task, request_id=request_id)
    if task.error is not None:
        raise Problem(task.error, status=int(task.error.get("status", _STATUS)), request_id=request_id)
    if task.state is not TaskState.SUCCEEDED:
        raise NoResult(task, request_id=request_id)
    return task.response
