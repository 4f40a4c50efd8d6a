"""What the gateway answers, typed. Each keeps the JSON that it was read from, so that nothing is lost on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from poste.domain.task import TaskEventType, TaskState

#: The kind of a method that streams nothing.
UNARY: Final = "unary"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered, at once.

    Attributes:
        response: The response message as ProtoJSON; of a stream's message, by a route with a `response_body`, any JSON.
        streamed: It is one of a stream's messages.
    """

    response: Any
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A call that was kept, as it is now.

    Attributes:
        id: What it is asked for by.
        service: The full name of its service.
        method: The short name of its method.
        state: Where it is in its life.
        create_time: When it was accepted.
        not_before_time: It does not run before; None if it could at once.
        expire_time: While it waits, when it is given up; once it ended, until when its result is kept; None: for ever.
        attempt: How often a process has taken it up.
        cancel_requested: It runs, and was asked to stop.
        reason: Why Poste gave it up, or `operator` if one cancelled it; otherwise None.
        die_time: When Poste gave it up; None unless it was read from the list of what died.
        end_time: When it ended; None if it has not, or was not found by a filter.
        response: The response message as ProtoJSON; None unless it SUCCEEDED.
        error: The problem that the direct road would have answered with; None unless it ended with one.
        last_error: The same of its latest attempt, if that failed and there is to be another.
        document: The task as it came.
    """

    id: str
    service: str
    method: str
    state: TaskState
    create_time: datetime
    not_before_time: datetime | None
    expire_time: datetime | None
    attempt: int
    cancel_requested: bool
    reason: str | None
    die_time: datetime | None
    end_time: datetime | None
    response: dict[str, Any] | None
    error: dict[str, Any] | None
    last_error: dict[str, Any] | None
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Task:
        """Take a task from its JSON.

        Raises:
            KeyError: A member that every task has is missing.
            TypeError: A member is of another type.
            ValueError: A member's value is not known.
        """
        return cls(
            id=str(document["id"]),
            service=str(document["service"]),
            method=str(document["method"]),
            state=TaskState[document["state"]],
            create_time=datetime.fromisoformat(document["createTime"]),
            not_before_time=_time(document.get("notBeforeTime")),
            expire_time=_time(document.get("expireTime")),
            attempt=int(document["attempt"]),
            cancel_requested=bool(document.get("cancelRequested", False)),
            reason=document.get("reason"),
            die_time=_time(document.get("dieTime")),
            end_time=_time(document.get("endTime")),
            response=document.get("response"),
            error=document.get("error"),
            last_error=document.get("lastError"),
            document=document,
        )


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """Something that happened to a kept call.

    Attributes:
        time: When.
        type: What.
        attempt: Which attempt it is about; None if it is about none.
        state: The final state, if it ended.
        reason: Why Poste gave it up, if it ended as DEAD; `operator` if one cancelled it.
        code: The code of the error that an attempt failed with, if it was retried.
        not_before_time: If it was accepted for later: it does not run before.
    """

    time: datetime
    type: TaskEventType
    attempt: int | None
    state: TaskState | None
    reason: str | None
    code: str | None
    not_before_time: datetime | None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> TaskEvent:
        """Take an event from its JSON; raises as `Task.read` does."""
        attempt, state = document.get("attempt"), document.get("state")
        return cls(
            time=datetime.fromisoformat(document["time"]),
            type=TaskEventType(document["event"]),
            attempt=None if attempt is None else int(attempt),
            state=None if state is None else TaskState[state],
            reason=document.get("reason"),
            code=document.get("code"),
            not_before_time=_time(document.get("notBeforeTime")),
        )


@dataclass(frozen=True, slots=True)
class History:
    """What became of a kept call so far: all that is known of it.

    Attributes:
        events: As they happened.
        truncated: It was tried so often that earlier attempts are not listed any more.
        document: The history as it came.
    """

    events: tuple[TaskEvent, ...]
    truncated: bool
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> History:
        """Take a history from its JSON; raises as `Task.read` does."""
        events = tuple(TaskEvent.read(event) for event in document["events"])
        return cls(events=events, truncated=bool(document["truncated"]), document=document)


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """What Poste gave up of one method for one reason: how many calls, and the newest of them, the newest first."""

    method: str
    reason: str
    count: int
    newest: tuple[Task, ...]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> DeadGroup:
        """Take the group from its JSON; raises as `Task.read` does."""
        newest = tuple(Task.read(task) for task in document["newest"])
        return cls(str(document["method"]), str(document["reason"]), int(document["count"]), newest)


@dataclass(frozen=True, slots=True)
class CalledWith:
    """What a kept call was called with, as an operator sees it.

    Attributes:
        task: The call as it is now, its error with what no client sees.
        history: What became of it so far.
        request: The request message as ProtoJSON, secrets masked; None if it is no longer kept, or can't be read.
        masked: The paths of the fields that are masked.
        unreadable: Why it can't be read; None if it can be, or is no longer kept.
        headers: The headers of its client that its handler gets.
        request_id: The id of its client's request, None if it is not known.
        document: All of it as it came.
    """

    task: Task
    history: History
    request: dict[str, Any] | None
    masked: tuple[str, ...]
    unreadable: str | None
    headers: Mapping[str, tuple[str, ...]]
    request_id: str | None
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> CalledWith:
        """Take it from its JSON; raises as `Task.read` does."""
        return cls(
            task=Task.read(document["task"]),
            history=History.read(document),
            request=document["request"],
            masked=tuple(document["masked"]),
            unreadable=document.get("unreadable"),
            headers={name: tuple(values) for name, values in document["headers"].items()},
            request_id=document["requestId"],
            document=document,
        )


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a catalogued service.

    Attributes:
        name: Its short name.
        path: Its default route.
        routes: Every route, as verb and path.
        not_served: Each route that its annotations ask for and that is not there, with the reason.
        idempotent: Running it twice does no harm.
        away: What becomes of its calls while the service is away: `queue` or `reject`.
        kind: `unary`, `server-streaming`, `client-streaming` or `bidi-streaming`.
        callable: Whether it can be called by REST: not if it takes a stream.
    """

    name: str
    path: str
    routes: tuple[str, ...]
    not_served: Mapping[str, str]
    idempotent: bool
    away: str
    kind: str
    callable: bool

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Method:
        """Take a method from its JSON; raises as `Task.read` does."""
        return cls(
            name=str(document["name"]),
            path=str(document["path"]),
            routes=tuple(str(route) for route in document["routes"]),
            not_served={str(one["route"]): str(one["reason"]) for one in document["notServed"]},
            idempotent=bool(document["idempotent"]),
            away=str(document["away"]),
            # A gateway that does not say has no others.
            kind=str(document.get("kind", UNARY)),
            callable=bool(document.get("callable", True)),
        )


@dataclass(frozen=True, slots=True)
class Service:
    """A catalogued service as the gateway sees it now.

    Attributes:
        name: Its full name.
        availability: `up` if a call would go direct; otherwise why not: `away` or `busy`.
        queueable: Whether its calls can be kept while it is away: it was up once, with the worker library.
        queued: How many calls wait for it; None while that is unknown.
        methods: What it can be asked for.
        document: The service as it came.
        away_reason: Why it can't be connected to, where that may be for a certificate; None if it is not known.
    """

    name: str
    availability: str
    queueable: bool
    queued: int | None
    methods: tuple[Method, ...]
    document: Mapping[str, Any] = field(repr=False)
    away_reason: str | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Service:
        """Take a service from its JSON; raises as `Task.read` does."""
        queued = document.get("queued")
        return cls(
            name=str(document["name"]),
            availability=str(document["availability"]),
            queueable=bool(document["queueable"]),
            queued=None if queued is None else int(queued),
            methods=tuple(Method.read(method) for method in document["methods"]),
            document=document,
            away_reason=document.get("awayReason"),
        )


@dataclass(frozen=True, slots=True)
class Moving:
    """What a move of calls to another service's queue did, or would do.

    Attributes:
        moved: How many calls were moved, or would be.
        refused: How many were not, for that service could not run them.
        unfit: Why: the method's short name and the reason, of each.
    """

    moved: int
    refused: int
    unfit: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Moving:
        """Take it from its JSON; raises as `Task.read` does."""
        return cls(
            moved=int(document["moved"] if "moved" in document else document["matched"]),
            refused=int(document["refused"]),
            unfit=tuple((str(one["method"]), str(one["reason"])) for one in document["unfit"]),
        )


@dataclass(frozen=True, slots=True)
class Registered:
    """A service of a server that was to be registered.

    Attributes:
        name: Its full name.
        methods: The short names of its methods that can be called.
        refused: Why it is not registered; None if it is.
        document: The service as it came.
    """

    name: str
    methods: tuple[str, ...]
    refused: str | None
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Registered:
        """Take it from its JSON; raises as `Task.read` does."""
        refused = document.get("refused")
        return cls(
            name=str(document["name"]),
            methods=tuple(str(name) for name in document.get("methods", ())),
            refused=None if refused is None else str(refused),
            document=document,
        )


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A service that was taken out of the catalogue, and what may bring it back.

    Attributes:
        service: Its name.
        waiting: How many of its calls wait in its queue: they run if it registers again in time, else they expire.
        replicas: How many of its replicas were known to live: each brings it back as soon as it registers again.
        shipped: The deployment's catalogue file names it: it comes back when a middleware starts with that.
        document: The answer as it came.
    """

    service: str
    waiting: int
    replicas: int
    shipped: bool
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Forgotten:
        """Take it from its JSON; raises as `Task.read` does."""
        return cls(
            service=str(document["service"]),
            waiting=int(document["waiting"]),
            replicas=int(document["replicas"]),
            shipped=bool(document["shipped"]),
            document=document,
        )


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A call whose end could not be told to its client's URL.

    Attributes:
        id: Its task's id; None if the store lost it with the rest of its record.
        service: Its service.
        method: Its method's short name.
        state: How it ended.
        end_time: When.
        url: What was to be told.
        tries: How often that was tried.
        failure: What went wrong the last time.
        document: The answer as it came.
    """

    id: str | None
    service: str
    method: str
    state: TaskState
    end_time: datetime
    url: str
    tries: int
    failure: str
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Undelivered:
        """Take it from its JSON; raises as `Task.read` does."""
        return cls(
            id=document["id"],
            service=str(document["service"]),
            method=str(document["method"]),
            state=TaskState[document["state"]],
            end_time=datetime.fromisoformat(document["endTime"]),
            url=str(document["url"]),
            tries=int(document["tries"]),
            failure=str(document["failure"]),
            document=document,
        )


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue in figures; each open task is counted once.

    Attributes:
        queue: Its name.
        service: The service whose calls wait in it.
        queued: Calls that could be taken now.
        running: Calls that a process has taken.
        delayed: Calls that wait for their next attempt.
        scheduled: Calls that their clients want not to run yet.
        dead: Calls that Poste gave up.
        held_aside: Those of them that it did not run, for their method's schema changed.
        undelivered: Calls whose ends could not be told to their clients' URLs.
        kept: Calls that ended, and whose results are kept.
        kept_bytes: The store's memory that those take.
        held_bytes: The store's memory that all takes that the queue holds.
        max_held_bytes: How much that may be: at that no call is kept any more.
        oldest_age_seconds: The age of the call that waits longest; None if none waits.
        paused: Nothing is taken from it.
        stands_still: Nothing is taken from it, for results that are kept take all the memory that it may have.
        consumers: Processes that take from it.
        document: The queue as it came.
    """

    queue: str
    service: str
    queued: int
    running: int
    delayed: int
    scheduled: int
    dead: int
    held_aside: int
    undelivered: int
    kept: int
    kept_bytes: int
    held_bytes: int
    max_held_bytes: int
    oldest_age_seconds: float | None
    paused: bool
    stands_still: bool
    consumers: int
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Queue:
        """Take a queue from its JSON; raises as `Task.read` does."""
        oldest = document.get("oldestAgeSeconds")
        return cls(
            queue=str(document["queue"]),
            service=str(document["service"]),
            queued=int(document["queued"]),
            running=int(document["running"]),
            delayed=int(document["delayed"]),
            scheduled=int(document["scheduled"]),
            dead=int(document["dead"]),
            held_aside=int(document.get("heldAside", 0)),
            undelivered=int(document.get("undelivered", 0)),
            kept=int(document.get("kept", 0)),
            kept_bytes=int(document.get("keptBytes", 0)),
            held_bytes=int(document.get("heldBytes", 0)),
            max_held_bytes=int(document.get("maxHeldBytes", 0)),
            oldest_age_seconds=None if oldest is None else float(oldest),
            paused=bool(document["paused"]),
            stands_still=bool(document.get("standsStill", False)),
            consumers=int(document.get("consumers", 0)),
            document=document,
        )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
