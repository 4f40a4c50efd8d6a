"""Tasks, as the queue has them, in the messages of `poste.v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from poste.domain.codes import Code
from poste.domain.task import DeadReason, TaskState
from poste.rpc.statuses import too_large
from poste.rpc.task_enums import EVENTS, REASONS, STATES
from poste.v1 import mom_service_pb2, task_pb2

if TYPE_CHECKING:
    from poste.queue.history import History
    from poste.queue.record import TaskRecord
    from poste.queue.tasks import Reading

_WITHOUT_ERROR: Final = (TaskState.SUCCEEDED, TaskState.CANCELLED)
#: What the error says where no handler left one.
_DEFAULT_ERRORS: Final = {
    DeadReason.ATTEMPTS: status_pb2.Status(code=Code.UNKNOWN, message="every attempt failed"),
    DeadReason.CRASHES: status_pb2.Status(code=Code.INTERNAL, message="the service's process died each time it ran"),
    DeadReason.OUTCOME_UNKNOWN: status_pb2.Status(
        code=Code.UNKNOWN, message="it may or may not have run, and it must not run twice"
    ),
    DeadReason.RESPONSE_TOO_LARGE: too_large("the response is too large to be kept"),
    DeadReason.SCHEMA_CHANGED: status_pb2.Status(
        code=Code.FAILED_PRECONDITION, message="the method's schema is not the one that the call was accepted under"
    ),
    DeadReason.OPERATOR: status_pb2.Status(code=Code.CANCELLED, message="an operator cancelled it while it waited"),
    DeadReason.DAMAGED: status_pb2.Status(code=Code.DATA_LOSS, message="the task's record can't be read"),
}
#: In place of an error that is none.
_UNREADABLE_ERROR: Final = status_pb2.Status(code=Code.DATA_LOSS, message="what it failed with can't be read")


class TaskFields(TypedDict, total=False):
    """The fields that GetTaskResponse and CancelTaskResponse share."""

    task: task_pb2.Task
    read_time: Timestamp
    purge_time: Timestamp


def fields_of(reading: Reading, *, turn_seconds: float | None = None) -> TaskFields:
    """Spell a reading; `turn_seconds` is how much longer the task waits, if that is known."""
    fields = TaskFields(read_time=timestamp(reading.now))
    if reading.record is not None:
        fields["task"] = of_record(reading.queue, reading.record)
        fields["task"].response_bytes = reading.left_out_bytes
        if turn_seconds is not None:
            fields["task"].turn_seconds = turn_seconds
    elif reading.purge_time is not None:
        fields["purge_time"] = timestamp(reading.purge_time)
    return fields


def clock(now: float) -> mom_service_pb2.ReadClockResponse:
    """Spell the store's time, in seconds since the epoch."""
    return mom_service_pb2.ReadClockResponse(read_time=timestamp(now))


def history(found: History) -> mom_service_pb2.GetTaskHistoryResponse:
    """Spell a task's history."""
    return mom_service_pb2.GetTaskHistoryResponse(
        events=[
            task_pb2.TaskEvent(
                time=timestamp(event.time),
                type=EVENTS[event.type],
                attempt=event.attempt or 0,
                state=STATES[event.state] if event.state else task_pb2.TASK_STATE_UNSPECIFIED,
                code=event.code or 0,
                dead_reason=REASONS[event.dead_reason] if event.dead_reason else task_pb2.DEAD_REASON_UNSPECIFIED,
                not_before_time=None if event.not_before_time is None else timestamp(event.not_before_time),
            )
            for event in found.events
        ],
        truncated=found.truncated,
        read_time=timestamp(found.now),
        purge_time=None if found.purge_time is None else timestamp(found.purge_time),
        mark=found.mark,
    )


def of_record(queue_name: str, record: TaskRecord) -> task_pb2.Task:
    """Spell a task, with its result if it has ended."""
    task = task_pb2.Task(
        service=queue_name,
        method=record.method,
        key=record.key,
        state=STATES[record.state],
        create_time=timestamp(record.create_time),
        attempt=record.attempt,
        cancel_requested=record.cancel_requested,
        response_field=record.response_field,
    )
    if record.not_before_time is not None:
        task.not_before_time.CopyFrom(timestamp(record.not_before_time))
    if record.expire_time is not None:
        task.expire_time.CopyFrom(timestamp(record.expire_time))
    if record.state is TaskState.SUCCEEDED:
        task.response = record.response or b""
    if record.dead_reason is not None:
        task.dead_reason = REASONS[record.dead_reason]
        task.error.CopyFrom(_DEFAULT_ERRORS[record.dead_reason])
    # If the task died of its crashes, or ended without an error, the recorded error is an earlier attempt's.
    shown = record.dead_reason is not DeadReason.CRASHES and record.state not in _WITHOUT_ERROR
    if record.error is not None and shown:
        task.error.CopyFrom(_status(record.error))
    return task


def _status(serialized: bytes) -> status_pb2.Status:
    try:
        return status_pb2.Status.FromString(serialized)
    except DecodeError:
        return _UNREADABLE_ERROR


def timestamp(seconds: float) -> Timestamp:
    """Spell an instant, in seconds since the epoch."""
    stamp = Timestamp()
    stamp.FromMilliseconds(round(seconds * 1000))
    return stamp
