"""Logs tasks that ended otherwise than by their handler's answer, in the process that had the script end them.

They expired, were cancelled, or Poste gave them up: the last is a warning, with its reason, for it needs an operator.
Tasks whose process died during an attempt are logged here too: that process can't do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poste.domain.task import TaskState
from poste.domain.task_id import with_queue
from poste.queue.connection import text
from poste.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Sequence

_log: Final = logs.get("ends")
_event_log: Final = logs.EventLog("ends", "task")
#: How what is no text is shown: in a damaged record may stand anything.
_GARBAGE: Final = "backslashreplace"
_DEAD: Final = TaskState.DEAD.value.encode()
_RESULTS: Final = {state.value.encode(): state.name.lower() for state in TaskState} | {b"c": "crashed"}


def log(queue: str, ended: Sequence[Sequence[Any]], *, only_dead: bool = False) -> None:
    """Log the tasks that a script has ended.

    Args:
        queue: The queue's name.
        ended: The list that scripts return as `ends` (`lua/prelude.lua`).
        only_dead: Log dead tasks only: the caller logs the others.
    """
    for record, state, reason, method, attempts, id_rest, request_id in ended:
        facts = {
            **names(queue, text(record).rpartition(":")[2], id_rest, request_id),
            "service": queue,
            "method": text(method or b""),
            "attempt": int(attempts) if attempts and attempts.isdigit() else 0,
        }
        if state == _DEAD:
            _log.warning("task died", **facts, reason=text(reason))
        elif not only_dead:
            why = {"reason": text(reason)} if reason else {}
            _event_log.write({**facts, "result": _RESULTS[state], **why})


def names(queue: str, key: str, id_rest: bytes | None, request_id: bytes | None) -> dict[str, str]:
    """Return what a line of the log calls a task, by what stands in its record: by its key, where that says no more."""
    said = {"task": with_queue(queue, id_rest.decode("ascii", _GARBAGE))} if id_rest else {"key": key}
    if request_id:
        said["request_id"] = request_id.decode("ascii", _GARBAGE)
    return said
