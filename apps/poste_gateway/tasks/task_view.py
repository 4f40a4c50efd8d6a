"""A task as its client sees it."""

from __future__ import annotations

import datetime as dt
import functools
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from poste import protojson
from poste.domain.codes import ENDS_UNTOLD, code_of
from poste.domain.task import TaskState
from poste.domain.task_id import TaskId, TaskIds
from poste.rpc.catalogue import Method, Service
from poste.rpc.task_enums import EVENT_OF, REASON_OF, STATE_OF
from poste.v1 import mom_service_pb2, task_pb2
from poste_gateway.grpc_status import problem_of
from poste_gateway.http.problem_types import OUTCOME_UNKNOWN, SCHEMA_CHANGED, UNREADABLE_ANSWER
from poste_gateway.http.problems import Problem
from poste_gateway.http.unprintable import unreadable

TASKS: Final = "/v1/tasks/"
_QUEUED: Final = TaskState.QUEUED.name
#: How each millisecond of a second is spelt: to spell one anew costs several times as much.
_FRACTIONS: Final = tuple(f".{milliseconds:03}Z" for milliseconds in range(1000))


def listed_id(ids: TaskIds, queue: str, listed: mom_service_pb2.DeadTask | mom_service_pb2.ListedTask) -> TaskId:
    """Make the id of a task that a list has: the very one that was given out."""
    return ids.remake(
        queue,
        listed.task.key,
        create_ms=listed.task.create_time.ToMilliseconds(),
        task_ttl_seconds=listed.task_ttl_seconds,
        result_ttl_seconds=listed.result_ttl_seconds,
    )


def to_listed(ids: TaskIds, listed: mom_service_pb2.ListedTask) -> dict[str, Any]:
    """Return a task of a list as JSON values."""
    value = to_summary(listed_id(ids, listed.task.service, listed), listed.task)
    if listed.HasField("end_time"):
        value["endTime"] = time(listed.end_time)
    return value


def location(task_id: TaskId) -> str:
    """Return the path of a task."""
    return TASKS + task_id.text


def state_of(task: task_pb2.Task) -> TaskState:
    """Return where a task is in its life."""
    return STATE_OF[task.state]


def to_value(task_id: TaskId, task: task_pb2.Task, service: Service | None) -> dict[str, Any]:
    """Return the task as JSON values.

    Args:
        task_id: Its id.
        task: Its record.
        service: Its service; None if that is not in the catalogue any more.
    """
    value = to_summary(task_id, task)
    try:
        if task.HasField("response"):
            value["response"] = response_value(task, service)
        problem = error_of(task, service)
    except Problem as unreadable:
        problem = unreadable
    if problem is not None:
        # A task may be retried for a day: meanwhile its client sees the error of the latest attempt.
        value["error" if state_of(task).final else "lastError"] = problem.to_value(location(task_id))
    return value


def to_summary(task_id: TaskId, task: task_pb2.Task) -> dict[str, Any]:
    """Return the task as JSON values, but for its response or error."""
    value: dict[str, Any] = {
        "id": task_id.text,
        "service": task.service,
        "method": task.method,
        "state": state_of(task).name,
        "createTime": time(task.create_time),
    }
    if task.HasField("not_before_time"):
        value["notBeforeTime"] = time(task.not_before_time)
    if task.HasField("expire_time"):
        value["expireTime"] = time(task.expire_time)
    value["attempt"] = task.attempt
    if task.cancel_requested:
        value["cancelRequested"] = True
    if task.dead_reason in REASON_OF:
        value["reason"] = REASON_OF[task.dead_reason].value
    return value


def to_accepted(task_id: TaskId, method: Method, *, not_before_ms: int = 0) -> dict[str, Any]:
    """Return a task as it is right after its acceptance, as `to_summary` would have it of its record.

    `expireTime` is reckoned by this gateway's clock here; in the record by the store's, from the acceptance on.
    """
    due_ms = task_id.create_ms
    value: dict[str, Any] = {
        "id": task_id.text,
        "service": method.service,
        "method": method.name,
        "state": _QUEUED,
        "createTime": _instant(due_ms),
    }
    if not_before_ms:
        value["notBeforeTime"] = _instant(not_before_ms)
        due_ms = max(due_ms, not_before_ms)
    value["expireTime"] = _instant(due_ms + task_id.task_ttl_seconds * 1000)
    value["attempt"] = 0
    return value


def to_history(history: mom_service_pb2.GetTaskHistoryResponse) -> dict[str, Any]:
    """Return a task's history as JSON values."""
    return {"events": [to_event(event) for event in history.events], "truncated": history.truncated}


def event_name(event: task_pb2.TaskEvent) -> str:
    """Return what clients read that something is called which happened to a task."""
    return EVENT_OF[event.type].value


def to_event(event: task_pb2.TaskEvent) -> dict[str, Any]:
    """Return something that happened to a task as JSON values."""
    value: dict[str, Any] = {"time": time(event.time), "event": event_name(event)}
    if event.HasField("not_before_time"):
        value["notBeforeTime"] = time(event.not_before_time)
    if event.attempt:
        value["attempt"] = event.attempt
    if event.code and (code := code_of(event.code)):
        value["code"] = code.name
    if event.state in STATE_OF:
        value["state"] = STATE_OF[event.state].name
    if event.dead_reason in REASON_OF:
        value["reason"] = REASON_OF[event.dead_reason].value
    return value


def response_value(task: task_pb2.Task, service: Service | None) -> Any:
    """Return the response of a task that succeeded, as JSON values.

    Raises:
        Problem: It can't be written as JSON.
    """
    method = None if service is None else service.find(task.method)
    if method is None:
        raise Problem(UNREADABLE_ANSWER, "The service's description is not in the catalogue any more.")
    try:
        return protojson.to_value(method.output, task.response, _answered_field(task, method))
    except protojson.UnprintableError as error:
        raise unreadable(error, service=task.service, method=task.method) from error


def _answered_field(task: task_pb2.Task, method: Method) -> str:
    """Return the one field of the response that its client is answered with; empty if it is all, or is no more."""
    return task.response_field if task.response_field in method.output.fields_by_name else ""


def error_of(task: task_pb2.Task, service: Service | None) -> Problem | None:
    """Return the problem that the direct road would have answered with, None if the task has no error."""
    if task.dead_reason == task_pb2.DEAD_REASON_OUTCOME_UNKNOWN:
        # Where its handler ended, or was cut off, without saying whether it had run, that says why.
        said = task.error.message if code_of(task.error.code) in ENDS_UNTOLD else ""
        detail = "The call may have run, and what became of it is not known"
        return Problem(OUTCOME_UNKNOWN, f"{detail}: {said}." if said else f"{detail}.")
    if task.dead_reason == task_pb2.DEAD_REASON_SCHEMA_CHANGED:
        return Problem(SCHEMA_CHANGED, f"It was not run: {task.error.message}.")
    return problem_of(task.error, service) if task.HasField("error") else None


def time(stamp: Timestamp) -> str:
    """Spell an instant as RFC 3339 has it, to the millisecond."""
    return _instant(stamp.seconds * 1000 + stamp.nanos // 1_000_000)


def _instant(milliseconds: int) -> str:
    return _second(milliseconds // 1000) + _FRACTIONS[milliseconds % 1000]


@functools.lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    """Spell a second: those of calls that come together are the same."""
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
