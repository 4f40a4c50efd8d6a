"""Between the queue's words and the messages of `poste.v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from poste.domain import door, sizes
from poste.domain.codes import ENDS_UNTOLD, PASSING, UNFORESEEN, Code, code_of
from poste.domain.policy import RetryPolicy
from poste.domain.task import DeadReason, TaskState
from poste.queue import damaged
from poste.queue.history import History
from poste.queue.operators import DeadPage, EndedPage, Place, Search
from poste.queue.recent import RecentTask
from poste.queue.record import TaskRecord
from poste.queue.steps.task import NewTask, Report
from poste.queue.tasks import QueueFigures, Reading
from poste.rpc.policies import settled
from poste.rpc.statuses import bounded, is_too_large, response_too_large, too_large
from poste.v1 import catalogue_pb2, mom_service_pb2, task_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from poste.queue.steps.task import Ending
    from poste.rpc.catalogue import Service

_STATES: Final = {
    TaskState.QUEUED: task_pb2.TASK_STATE_QUEUED,
    TaskState.RUNNING: task_pb2.TASK_STATE_RUNNING,
    TaskState.SUCCEEDED: task_pb2.TASK_STATE_SUCCEEDED,
    TaskState.FAILED: task_pb2.TASK_STATE_FAILED,
    TaskState.CANCELLED: task_pb2.TASK_STATE_CANCELLED,
    TaskState.EXPIRED: task_pb2.TASK_STATE_EXPIRED,
    TaskState.DEAD: task_pb2.TASK_STATE_DEAD,
}
_REASONS: Final = {
    DeadReason.ATTEMPTS: task_pb2.DEAD_REASON_ATTEMPTS,
    DeadReason.CRASHES: task_pb2.DEAD_REASON_CRASHES,
    DeadReason.OUTCOME_UNKNOWN: task_pb2.DEAD_REASON_OUTCOME_UNKNOWN,
    DeadReason.RESPONSE_TOO_LARGE: task_pb2.DEAD_REASON_RESPONSE_TOO_LARGE,
    DeadReason.DAMAGED: task_pb2.DEAD_REASON_DAMAGED,
}
_WITHOUT_ERROR: Final = (TaskState.SUCCEEDED, TaskState.CANCELLED)
#: What the error says where no handler left one.
_OBITUARIES: Final = {
    DeadReason.ATTEMPTS: status_pb2.Status(code=Code.UNKNOWN, message="every attempt failed"),
    DeadReason.CRASHES: status_pb2.Status(code=Code.INTERNAL, message="the service's process died each time it ran"),
    DeadReason.OUTCOME_UNKNOWN: status_pb2.Status(
        code=Code.UNKNOWN, message="it may or may not have run, and it must not run twice"
    ),
    DeadReason.RESPONSE_TOO_LARGE: too_large("the response is too large to be kept"),
    DeadReason.DAMAGED: status_pb2.Status(code=Code.DATA_LOSS, message="the task's record can't be read"),
}


#: In place of an error that is none.
_UNREADABLE_ERROR: Final = status_pb2.Status(code=Code.DATA_LOSS, message="what it failed with can't be read")


class Answer(TypedDict, total=False):
    """The fields that GetTaskResponse and CancelTaskResponse share."""

    task: task_pb2.Task
    read_time: Timestamp
    purge_time: Timestamp


def registered(service: Service) -> mom_service_pb2.RegisterServiceResponse:
    """Return what a replica of a service is to know of how it is catalogued."""
    response = mom_service_pb2.RegisterServiceResponse(settings=settled(service.entry))
    for method in service.methods.values():
        for one in method.passed_over:
            response.passed_over.add(method=method.name, verb=one.verb, path=one.path, reason=one.reason)
    return response


def new_task(message: mom_service_pb2.NewTask, *, repeatable: bool) -> NewTask:
    """Read a task that is to be kept."""
    return NewTask(
        key=message.key,
        method=message.method,
        request=message.request,
        create_time=message.create_time.seconds + message.create_time.nanos / 1e9,
        task_ttl_seconds=message.task_ttl_seconds,
        result_ttl_seconds=message.result_ttl_seconds,
        repeatable=repeatable,
        traceparent=message.traceparent,
    )


def report(message: mom_service_pb2.Completion, service: Service | None) -> Report:
    """Read what a handler ended with, and judge whether a later try may go better, and when.

    Args:
        message: What its process reports.
        service: Its service; None if that is not in the catalogue any more.
    """
    match message.WhichOneof("outcome"):
        case "error":
            method = None if service is None else service.find(message.method)
            retry = RetryPolicy() if method is None else method.policy.retry
            error = bounded(message.error)
            return Report(message.key, message.token, _ending(message), error.SerializeToString(), retry)
        case "cancelled":
            return Report(message.key, message.token, "cancelled")
        case _ if len(message.response) > sizes.MAX_PAYLOAD:
            error = response_too_large(len(message.response))
            return Report(message.key, message.token, "large", error.SerializeToString())
        case _:
            # An empty response message serializes to nothing, and is an answer all the same.
            return Report(message.key, message.token, "ok", message.response)


def _ending(message: mom_service_pb2.Completion) -> Ending:
    code = code_of(message.error.code)
    if is_too_large(message.error):
        return "large"
    if message.overdue:
        return "overdue"
    if code in ENDS_UNTOLD:
        return "silent"
    if code in UNFORESEEN:
        return "defect"
    return "retry" if code in PASSING else "final"


def answer(queue: str, reading: Reading) -> Answer:
    """Spell a reading."""
    fields = Answer(read_time=_timestamp(reading.now))
    if reading.record is not None:
        fields["task"] = _task(queue, reading.record)
        fields["task"].response_bytes = reading.left_out_bytes
    elif reading.purge_time is not None:
        fields["purge_time"] = _timestamp(reading.purge_time)
    return fields


def clock(now: float) -> mom_service_pb2.ReadClockResponse:
    """Spell the store's time, in seconds since the epoch."""
    return mom_service_pb2.ReadClockResponse(read_time=_timestamp(now))


def queue(figures: QueueFigures, max_held_bytes: int) -> mom_service_pb2.Queue:
    """Spell one queue's figures, and how much it may hold."""
    return mom_service_pb2.Queue(
        name=figures.name,
        queued=figures.queued,
        running=figures.running,
        delayed=figures.delayed,
        dead=figures.dead,
        kept=figures.kept,
        kept_bytes=figures.kept_bytes,
        held_bytes=figures.held_bytes,
        max_held_bytes=max_held_bytes,
        consumers=figures.consumers,
        oldest_age_seconds=figures.oldest_age_seconds,
        paused=figures.paused,
        stands_still=figures.stands_still,
        enqueued=figures.totals.get("enqueued", 0),
        replayed=figures.totals.get("replayed", 0),
        ended=sum(figures.totals.get(state.value, 0) for state in TaskState if state.final),
    )


def place(page_token: str) -> Place | None:
    """Read where a page begins; None is the start.

    Raises:
        ValueError: This token was never given.
    """
    if not page_token:
        return None
    die_ms, _, key = page_token.partition(".")
    return Place(int(die_ms), key)


def search(page_token: str) -> Search | None:
    """Read where a search for what ended goes on; None is its beginning.

    Raises:
        ValueError: This token was never given.
    """
    if not page_token:
        return None
    until_ms, _, cursor = page_token.partition(".")
    return Search(int(until_ms), int(cursor))


def ended_page(page: EndedPage) -> mom_service_pb2.PurgeEndedTasksResponse:
    """Spell what one part of such a search did."""
    behind = page.behind
    token = "" if behind is None else f"{behind.until_ms}.{behind.cursor}"
    return mom_service_pb2.PurgeEndedTasksResponse(purged=page.purged, next_page_token=token)


def dead_page(queue_name: str, page: DeadPage) -> mom_service_pb2.ListDeadTasksResponse:
    """Spell one page of what died, as much of it as a message may have."""
    response = mom_service_pb2.ListDeadTasksResponse(read_time=_timestamp(page.now))
    behind, size = page.behind, 0
    for task in page.tasks:
        if not _named(queue_name, task.record):
            continue
        spelt = mom_service_pb2.DeadTask(
            task=_task(queue_name, task.record),
            die_time=_timestamp(task.die_time),
            task_ttl_seconds=task.task_ttl_seconds,
            result_ttl_seconds=task.result_ttl_seconds,
        )
        size += spelt.ByteSize()
        if response.tasks and size > sizes.BATCH:
            last = response.tasks[-1]
            behind = Place(last.die_time.ToMilliseconds(), last.task.key)
            break
        response.tasks.append(spelt)
    if behind is not None:
        response.next_page_token = f"{behind.die_ms}.{behind.key}"
    return response


def changes(
    before: Mapping[str, catalogue_pb2.CatalogueService],
    now: Mapping[str, catalogue_pb2.CatalogueService],
    store_id: str,
) -> Iterator[mom_service_pb2.WatchCatalogueResponse]:
    """Spell how the catalogue of a store differs from what was sent, in as many messages as it needs."""
    part, size = mom_service_pb2.WatchCatalogueResponse(store_id=store_id), 0
    part.removed.extend(sorted(before.keys() - now.keys()))
    for name, entry in now.items():
        if before.get(name) == entry:
            continue
        size += entry.ByteSize()
        if part.services and size > sizes.BATCH:
            part.more = True
            yield part
            part, size = mom_service_pb2.WatchCatalogueResponse(store_id=store_id), entry.ByteSize()
        part.services.append(entry)
    yield part


def history(found: History) -> mom_service_pb2.GetTaskHistoryResponse:
    """Spell a task's history."""
    return mom_service_pb2.GetTaskHistoryResponse(
        events=[
            task_pb2.TaskEvent(
                time=_timestamp(event.time),
                type=task_pb2.TaskEventType.Value(f"TASK_EVENT_TYPE_{event.type.name}"),
                attempt=event.attempt or 0,
                state=_STATES[event.state] if event.state else task_pb2.TASK_STATE_UNSPECIFIED,
                dead_reason=_REASONS[event.dead_reason] if event.dead_reason else task_pb2.DEAD_REASON_UNSPECIFIED,
            )
            for event in found.events
        ],
        truncated=found.truncated,
        read_time=_timestamp(found.now),
        purge_time=None if found.purge_time is None else _timestamp(found.purge_time),
    )


def recent(queue_name: str, tasks: Iterable[RecentTask]) -> mom_service_pb2.ListRecentTasksResponse:
    """Spell the newest tasks of a queue, without their results."""
    response = mom_service_pb2.ListRecentTasksResponse()
    for one in tasks:
        if not _named(queue_name, one.record):
            continue
        task = _task(queue_name, one.record)
        task.ClearField("result")
        response.tasks.add(task=task, task_ttl_seconds=one.task_ttl_seconds, result_ttl_seconds=one.result_ttl_seconds)
    return response


def _named(queue_name: str, record: TaskRecord) -> bool:
    """Tell whether a task has a key that an id can be made of: without one it can't be listed."""
    named = door.is_key(record.key)
    if not named:
        damaged.tell(queue_name, record.key, "its key is none")
    return named


def _task(queue_name: str, record: TaskRecord) -> task_pb2.Task:
    task = task_pb2.Task(
        service=queue_name,
        method=record.method,
        key=record.key,
        state=_STATES[record.state],
        create_time=_timestamp(record.create_time),
        attempt=record.attempt,
        cancel_requested=record.cancel_requested,
    )
    if record.expire_time is not None:
        task.expire_time.CopyFrom(_timestamp(record.expire_time))
    if record.state is TaskState.SUCCEEDED:
        task.response = record.response or b""
    if record.dead_reason is not None:
        task.dead_reason = _REASONS[record.dead_reason]
        task.error.CopyFrom(_OBITUARIES[record.dead_reason])
    # Of one that died of its crashes, or ended otherwise after all, it is what an earlier attempt failed with.
    told = record.dead_reason is not DeadReason.CRASHES and record.state not in _WITHOUT_ERROR
    if record.error is not None and told:
        task.error.CopyFrom(_status(record.error))
    return task


def _status(serialized: bytes) -> status_pb2.Status:
    try:
        return status_pb2.Status.FromString(serialized)
    except DecodeError:
        return _UNREADABLE_ERROR


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(round(seconds * 1000))
    return stamp
