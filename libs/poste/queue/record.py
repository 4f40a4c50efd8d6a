"""The record of a task: what each of its one-letter fields holds, and its one reader.

It is the hash `<prefix>:{queue}:task:<key>`::

    m  the method's short name
    q  the request; '' once it is not needed any more: DEAD and FAILED tasks keep it, for a replay
    K  '1' if it is FAILED and keeps its request
    s  the state (`domain.task.TaskState`), or M: it is on its way to another queue, or has got there (`queue.moves`)
    T  the move that takes it there, `<name> <state that it had> <queue>`
    c  when it was created, by the clock of the gateway that made its id, ms
    x  when it is given up while it waits, ms
    y  how long it may wait, from its acceptance (or B) and from each replay on, ms
    r  its result's time to live, s
    n  '1' if it must not run twice
    p  the call's place in its trace, if it is in one
    g  the id that its client was given, for logs, without the queue's name (`domain.task_id.without_queue`): Redis
       keeps a hash small for as long as no value has more than 64 bytes; if it was moved, `@` and that name behind it
    G  the id of its client's request, for logs
    a  attempts
    t  the fencing token of its claim, `<incarnation>:<seq>`
    b  when its latest claim began, until that is noted, ms
    h  who would know if it had begun, while it is claimed, must not run twice and has not (`has_not_begun`)
    f  failures
    i  those of them that were unexpected
    k  crashes that it suffered alone
    u  crashes that it suffered in company
    w  when a running one was asked to stop, ms
    l  who is to be told of its end: '1' if a client waits for it, 'c' (`CALLBACK`) if its client's URL is to be told
    o  the response
    e  the error (google.rpc.Status), also the last one of what waits to be tried again
    d  why it is dead, or was cancelled, if not by its client (`domain.task.DeadReason`)
    z  when it ended, ms; of what has got to another queue, when it left
    v  what became of earlier attempts (`append_event`)
    j  until when it is kept, if that is not its result's time, ms: it was purged as DEAD, or its client's URL is to be
       told
    A  the one field of the response that its client is answered with, if it is not all of it
    H  the headers of its client that its handler gets (`domain.carried`), if any
    V  the fingerprint of the schema that its method had when it was accepted (`queue.schema_store`); none: it runs
       under whatever schema its service has
    I  the digest of its request, if its client gave it an idempotency key
    W  its client's URL, which is told of its end, if there is one
    N  how often that failed, since when it is tried, in ms, and what went wrong last
    B  when it may run at first, ms, if its client said so; `x` is counted from then
    C  the client on whose account it is, if that had a quota when it was accepted (`count_for`)

(The functions that are named stand in `lua/prelude.lua`.) Only the scripts write it. What stands there may be
written by another program, or damaged, all the same: `damaged` has what to do with that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from poste.domain import input_rules
from poste.domain.task import DeadReason, TaskState
from poste.queue.damaged import DamagedRecord, instant, whole

METHOD: Final = "m"
STATE: Final = "s"
CREATE: Final = "c"
EXPIRE: Final = "x"
TASK_TTL: Final = "y"
RESULT_TTL: Final = "r"
ATTEMPTS: Final = "a"
BEGIN: Final = "b"
NOT_BEGUN: Final = "h"
STOP: Final = "w"
RESPONSE: Final = "o"
ERROR: Final = "e"
REASON: Final = "d"
END: Final = "z"
NOTES: Final = "v"
WAITED: Final = "l"
ID_REST: Final = "g"
REQUEST_ID: Final = "G"
ANSWERED: Final = "A"
SCHEMA: Final = "V"
REQUEST: Final = "q"
KEEPS_REQUEST: Final = "K"
TRACE: Final = "p"
HEADERS: Final = "H"
MOVE: Final = "T"
#: The state of what has left for another queue.
MOVED: Final = b"M"
CALLBACK_URL: Final = "W"
CALLBACK_TRIES: Final = "N"
NOT_BEFORE: Final = "B"
CLIENT: Final = "C"

#: What `WAITED` says where a client's URL is to be told of the end.
CALLBACK: Final = "c"

#: What the script `read` returns of a record, in its order.
SHOWN: Final = (
    *(STATE, METHOD, CREATE, EXPIRE, RESULT_TTL, ATTEMPTS, END, STOP, REASON, RESPONSE, ERROR, ANSWERED, NOT_BEFORE),
)

#: The longest time to live that an id can hold, in seconds; and the most attempts that a record counts.
MAX_SECONDS: Final = 2**32 - 1
MAX_ATTEMPTS: Final = 2**31 - 1
#: What a task takes in Redis beside its request, response and error, in bytes: the least, measured, is 320 while it
#: waits and 390 once it has ended, with what logs call it by and its schema's fingerprint. So many tiny ones
#: count as what they are.
RECORD_BYTES: Final = 400

#: What was read of a record, by the field's letter: None, or no entry, is what is not there or was not asked for.
Fields: TypeAlias = Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task as it is. Times are in seconds since the epoch; `expire_time` is None for a DEAD one.

    `create_time` is by the clock of the gateway that made its id, everything else by Redis'. `response_field` is the
    one that its client is answered with; empty if it is all of it. `not_before_time`: it could not run before; None if
    it could at once.
    """

    key: str
    method: str
    state: TaskState
    create_time: float
    expire_time: float | None
    attempt: int
    cancel_requested: bool
    dead_reason: DeadReason | None
    response: bytes | None
    error: bytes | None
    response_field: str = ""
    not_before_time: float | None = None

    @property
    def due_time(self) -> float:
        """When its wait for its turn began."""
        return max(self.create_time, self.not_before_time or 0.0)


def read(key: str, fields: Fields, *, now: float) -> TaskRecord | None:
    """Read a task.

    Args:
        key: Its key.
        fields: Those of `SHOWN`; the request, the response and the error may be left out.
        now: Redis' time, in seconds since the epoch.

    Returns:
        None if its result's TTL is over: the hash itself may live a little longer.

    Raises:
        DamagedRecord: It is no task's.
    """
    state_letter, method, reason = fields[STATE], fields[METHOD], fields[REASON]
    try:
        state = TaskState(state_letter.decode())  # type: ignore[union-attr]
        dead_reason = DeadReason(reason.decode()) if reason else None
        called = method.decode()  # type: ignore[union-attr]
    except (ValueError, AttributeError) as damage:
        raise DamagedRecord(f"state, reason or method: {damage}") from damage
    if state is TaskState.DEAD and dead_reason is None:
        raise DamagedRecord("it is dead and does not say why")
    create_time = instant(fields[CREATE], "create time")
    expire_time: float | None = instant(fields[EXPIRE], "expire time")
    if state is TaskState.DEAD:
        expire_time = None
    elif state.final:
        # An id's time may be ahead of Redis', and is what its result's time to live is judged by.
        kept_seconds = whole(fields[RESULT_TTL], "result TTL", most=MAX_SECONDS)
        end_time = instant(fields[END], "end time")
        # Rounded to the milliseconds that instants are written in: a sum of floats may be off by a bit.
        expire_time = min(round(max(end_time, create_time) + kept_seconds, 3), input_rules.LAST_SECOND)
        if expire_time <= now:
            return None
    return TaskRecord(
        key=key,
        method=called,
        state=state,
        create_time=create_time,
        expire_time=expire_time,
        attempt=whole(fields[ATTEMPTS] or b"0", "attempts", most=MAX_ATTEMPTS),
        cancel_requested=bool(fields[STOP]) and not state.final,
        dead_reason=dead_reason,
        response=fields.get(RESPONSE) if state is TaskState.SUCCEEDED else None,
        error=fields.get(ERROR) or None,
        response_field=(fields.get(ANSWERED) or b"").decode("ascii", "replace"),
        not_before_time=not_before_of(fields),
    )


def not_before_of(fields: Fields) -> float | None:
    """Return when a task could run at first, in seconds since the epoch; None if it could at once.

    Raises:
        DamagedRecord: It is no instant.
    """
    not_before = fields[NOT_BEFORE]
    return None if not_before is None else instant(not_before, "not-before time")


def end_time_of(fields: Fields) -> float | None:
    """Return when a task ended, in seconds since the epoch by Redis' time; None if it has not.

    Raises:
        DamagedRecord: It is no instant.
    """
    end = fields[END]
    return None if end is None else instant(end, "end time")


def ttls_of(fields: Fields) -> tuple[int, int]:
    """Return the times to live of a task's id, that of the task and that of its result, in seconds.

    Raises:
        DamagedRecord: They are none.
    """
    task_ttl_seconds = whole(fields[TASK_TTL], "task TTL", most=MAX_SECONDS * 1000) // 1000
    return task_ttl_seconds, whole(fields[RESULT_TTL], "result TTL", most=MAX_SECONDS)
