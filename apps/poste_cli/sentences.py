"""Says in a sentence what became of a call that was kept, why, and what can be done next."""

from __future__ import annotations

from typing import Any, Final

from poste.client import CalledWith, Task
from poste.domain.task import DeadReason, TaskState

WHY_DEAD: Final = {
    DeadReason.ATTEMPTS.value: "its handler failed until its attempts or its time were used up",
    DeadReason.CRASHES.value: "the process that ran it died, too often to try again",
    DeadReason.OUTCOME_UNKNOWN.value: "it may have run, which can't be found out, and it must not run twice",
    DeadReason.RESPONSE_TOO_LARGE.value: "its handler answered with more than can be kept",
    DeadReason.SCHEMA_CHANGED.value: "it was not run, for its method's schema changed since it was accepted",
    DeadReason.DAMAGED.value: "its record in the store can't be read",
}
_TIME: Final = "%Y-%m-%d %H:%M:%S"
#: What an operator is to do before a replay, by the reason.
_FIRST: Final = {
    DeadReason.ATTEMPTS.value: "once that is mended",
    DeadReason.CRASHES.value: "once it is known what kills the process",
    DeadReason.OUTCOME_UNKNOWN.value: "if it did not run",
    DeadReason.SCHEMA_CHANGED.value: "once the old schema is back, or by the new one with --as-is",
    DeadReason.RESPONSE_TOO_LARGE.value: "once it answers with less",
}


def ended_badly(task: Task) -> list[str] | None:
    """Return lines on a call that is DEAD or FAILED, or that an operator cancelled; None of any other."""
    what = f"{task.service}/{task.method}"
    if task.state is TaskState.CANCELLED and task.reason == DeadReason.OPERATOR.value:
        return [f"{what} is CANCELLED: an operator cancelled it while it waited. It has to be made again."]
    if task.state not in (TaskState.DEAD, TaskState.FAILED):
        return None
    tried = f"after {task.attempt} attempt{'' if task.attempt == 1 else 's'}"
    again = f"poste replay {task.id}"
    if task.state is TaskState.FAILED:
        kept = task.document.get("expireTime", "")
        lines = [f"{what} FAILED {tried}: its handler answered with an error.", *_said(task.error)]
        return [*lines, f"It can be run again until {kept}, by an operator: {again}"]
    reason = task.reason or ""
    lines = [f"{what} is DEAD ({reason}) {tried}: {WHY_DEAD.get(reason, reason)}.", *_said(task.error)]
    if reason == DeadReason.DAMAGED.value:
        return [*lines, f"An operator can give it up for good: poste purge {task.id}"]
    first = _FIRST.get(reason)
    return [*lines, f"An operator can run it again{f' {first}' if first else ''}: {again}"]


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
    reason = f", {task.reason}" if task.reason else ""
    ended = f", ended {task.end_time:{_TIME}}" if task.end_time else ""
    times = f"accepted {task.create_time:{_TIME}}{ended} UTC"
    return f"{task.method}  {task.state.name}{reason}, attempt {task.attempt}, {times}"


def died(task: Task) -> str:
    """Say of a listed dead letter why and when Poste gave it up, and what its last attempt failed with."""
    time = f"{task.die_time:{_TIME}}" if task.die_time else "?"
    what = f"{task.service}/{task.method}  {task.reason}, attempt {task.attempt}, died {time} UTC"
    return f"{what}  {(task.error or {}).get('detail', '')}".rstrip()
