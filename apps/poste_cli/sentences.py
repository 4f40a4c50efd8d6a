"""Says in a sentence what became of a call that was kept, why, and what can be done next."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from poste.client import CalledWith, Task
from poste.domain.task import DeadReason, TaskState
from poste_cli import printing

WHY_DEAD: Final = {
    DeadReason.ATTEMPTS.value: "its handler failed until its attempts or its time were used up",
    DeadReason.CRASHES.value: "the process that ran it died, too often to try again",
    DeadReason.OUTCOME_UNKNOWN.value: "it may have run, which can't be found out, and it must not run twice",
    DeadReason.RESPONSE_TOO_LARGE.value: "its handler answered with more than can be kept",
    DeadReason.SCHEMA_CHANGED.value: "it was not run, for its method's schema changed since it was accepted",
    DeadReason.DAMAGED.value: "its record in the store can't be read",
}
_SHORT: Final = "%Y-%m-%d %H:%M:%S"
_TIME: Final = f"{_SHORT} %Z"
#: What an operator is to do before a replay, by the reason.
_FIRST: Final = {
    DeadReason.ATTEMPTS.value: "once that is mended",
    DeadReason.CRASHES.value: "once it is known what kills the process",
    DeadReason.OUTCOME_UNKNOWN.value: "if it did not run",
    DeadReason.SCHEMA_CHANGED.value: "once the old schema is back, or by the new one with --as-is",
    DeadReason.RESPONSE_TOO_LARGE.value: "once it answers with less",
}


def ended_badly(task: Task) -> list[str] | None:
    """Return lines on a call that is DEAD or FAILED, or that an operator cancelled; None of any other.

    What is indented is to be copied: a command.
    """
    what = f"{task.service}/{task.method}"
    if task.state is TaskState.CANCELLED and task.reason == DeadReason.OPERATOR.value:
        return [f"{what} is CANCELLED: an operator cancelled it while it waited. It has to be made again."]
    if task.state not in (TaskState.DEAD, TaskState.FAILED):
        return None
    tried = _tried(task)
    again = f"  poste replay {task.id}"
    if task.state is TaskState.FAILED:
        until = f" until {moment(task.expire_time)}" if task.expire_time else ""
        lines = [f"{what} FAILED {tried}: its handler answered with an error.", *_said(task.error)]
        return [*lines, f"It can be run again{until}, by an operator:", again]
    reason = task.reason or ""
    lines = [f"{what} is DEAD ({reason}) {tried}: {WHY_DEAD.get(reason, reason)}.", *_said(task.error)]
    if reason == DeadReason.DAMAGED.value:
        return [*lines, "An operator can give it up for good:", f"  poste purge {task.id}"]
    first = _FIRST.get(reason)
    return [*lines, f"An operator can run it again{f' {first}' if first else ''}:", again]


def _said(error: dict[str, Any] | None) -> list[str]:
    if not error:
        return []
    return [f"  {error.get('code', '')}: {error.get('detail') or error.get('title', '')}"]


def called_with(found: CalledWith) -> dict[str, object]:
    """Return what is known of a call beside its request, as names and values."""
    missing = f"can't be read: {found.unreadable}" if found.unreadable else "no longer kept"
    headers = {name: ", ".join(values) for name, values in found.headers.items()}
    return {
        "called by": f"request {found.request_id}" if found.request_id else None,
        **{f"  {name}": value for name, value in headers.items()},
        "masked": ", ".join(found.masked) or None,
        "request": missing if found.request is None else "",
    }


def listed(task: Task) -> str:
    """Say of a listed call where it is in its life, when it was accepted, and when it ended."""
    times = f"accepted {moment(task.create_time)}"
    if task.end_time:
        times = f"accepted {task.create_time.astimezone():{_SHORT}}, ended {moment(task.end_time)}"
    return f"{task.method}  {_state(task)}, {times}"


def died(task: Task) -> str:
    """Say of a listed dead letter why and when Poste gave it up, and what its last attempt failed with."""
    time = moment(task.die_time) if task.die_time else "?"
    return f"{task.service}/{task.method}  {_state(task)}, died {time}  {(task.error or {}).get('detail', '')}".rstrip()


def moment(time: dt.datetime) -> str:
    """Write an instant on this host's clock, with its zone: the logs' are in UTC."""
    return f"{time.astimezone():{_TIME}}"


def state(task: Task) -> str:
    """Say where a call is in its life, and why, if that is known: `DEAD (attempts)`."""
    return f"{task.state.name} ({task.reason})" if task.reason else task.state.name


def _state(task: Task) -> str:
    if task.state is TaskState.RUNNING:
        return f"RUNNING, attempt {task.attempt}"
    return f"{state(task)} {_tried(task)}" if task.attempt else state(task)


def _tried(task: Task) -> str:
    return f"after {printing.number(task.attempt, 'attempt')}"
