"""Between the words for a task and the enums of `poste.v1`: who writes them and who reads them go by one table."""

from __future__ import annotations

from typing import Final

from poste.domain.task import DeadReason, TaskEventType, TaskState
from poste.v1 import task_pb2

#: What is written.
STATES: Final = {state: task_pb2.TaskState.Value(f"TASK_STATE_{state.name}") for state in TaskState}
REASONS: Final = {reason: task_pb2.DeadReason.Value(f"DEAD_REASON_{reason.name}") for reason in DeadReason}
EVENTS: Final = {event: task_pb2.TaskEventType.Value(f"TASK_EVENT_TYPE_{event.name}") for event in TaskEventType}

#: What is read; what a newer Poste wrote may not be in it.
STATE_OF: Final = {number: state for state, number in STATES.items()}
REASON_OF: Final = {number: reason for reason, number in REASONS.items()}
EVENT_OF: Final = {number: event for event, number in EVENTS.items()}
