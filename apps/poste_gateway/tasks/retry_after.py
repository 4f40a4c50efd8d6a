"""When a client that waits for its task is to ask again: the measured time until its turn, where that is known.

Where it is not known (its service is away, nothing was started of late, or it waits for another attempt) it is no
estimate but a pause: a tenth of the time that the task has waited, a minute at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Final

from poste.domain.task import TaskState
from poste.v1 import task_pb2
from poste_gateway.http.problems import RETRY_AFTER
from poste_gateway.tasks.task_view import state_of

#: The longest time that is told, in seconds: what is measured now says little of what is later.
_MOST_SECONDS: Final = 3600
#: The longest pause, in seconds, and its share of the time that was waited.
_MOST_PAUSE_SECONDS: Final = 60
_PAUSE_SHARE: Final = 0.1


def of_task(task: task_pb2.Task) -> Mapping[str, str]:
    """Return the header for a task as it is; none if it has ended."""
    state = state_of(task)
    if state.final:
        return {}
    if state is not TaskState.QUEUED:
        return RETRY_AFTER
    if task.HasField("turn_seconds"):
        return of_seconds(task.turn_seconds)
    waited = time.time() - task.create_time.ToMilliseconds() / 1000
    return of_seconds(min(_MOST_PAUSE_SECONDS, waited * _PAUSE_SHARE))


def of_seconds(seconds: float | None) -> Mapping[str, str]:
    """Return the header for a time, in whole seconds as RFC 9110 has it; a second if it is not known."""
    return RETRY_AFTER if seconds is None else {"Retry-After": str(min(_MOST_SECONDS, max(1, math.ceil(seconds))))}
