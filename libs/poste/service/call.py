"""One run of a handler: what came with the call, and what the handler says of it. Handlers see it by a `context`."""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Never

import grpc
import grpc.aio

from poste.domain import carried, traceparents
from poste.domain.codes import Code, code_of
from poste.queue.consumer import ClaimedTask
from poste.rpc.channels import NOT_RUN
from poste.runtime import logs
from poste.service.outcome import STATUS_CODES, Metadata, Metadatum, Outcome, sound, unexpected

#: Metadata that names the client's request; every line of the log that the handler writes says it.
REQUEST_ID: Final = "x-request-id"
#: Metadata with the number of this attempt, for the handler; 1 unless the caller says otherwise.
ATTEMPT: Final = "poste-attempt"
#: Metadata with the queued task that a handler runs, its id and its key; clients can't set it.
TASK_ID: Final = "poste-task-id"
TASK_KEY: Final = "poste-task-key"

#: How long before a caller's deadline its call is refused if it did not get a thread, at most, in seconds.
REFUSAL_SECONDS: Final = 0.25

_log = logs.get("call")
_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")


class Stage(enum.Enum):
    """How a call is out of the ordinary; None is that it is not."""

    #: It waits for a process: its handler has not started.
    WAITING = enum.auto()
    #: It took too long, and was cancelled for it.
    OVERDUE = enum.auto()
    #: It took too long, did not heed that, and was left behind.
    LEFT = enum.auto()


@dataclass(slots=True, eq=False)
class Call:
    """One run of a handler, and what the handler says about it.

    Attributes:
        given: The metadata that came with the call, if it came by itself.
        headers: What of its client's headers came with it, if it came in company (`poste.domain.carried`).
        initial_metadata: What the handler sends before its answer, where that travels with it.
        request_id: The client's request; empty if none is known, or if it is queued.
        attempt: Which try of it this is.
        peer: Who called, in gRPC's spelling.
        deadline: When it is over, by the monotonic clock; None if never.
        wire: gRPC's own context on the direct road.
        traceparent: Where its caller's trace is (W3C); empty if it is in none.
        trace_id: The trace that its handler is a part of; empty if it is in none.
        over: The handler's answer counts no more: it ended, or was cancelled.
        task: The asyncio task that runs it, `method`, whose handler it is, and `timeout_seconds`, which it has: its
            runner's own.
        begin: Called in the handler's thread when it begins, if that is not at once; None if it is not needed.
        leave: Called with a call whose handler is overdue and can't be ended, and its outcome; None if not needed.
        stage: How it is out of the ordinary; None if it is not.
        queued: The queued task, as it was claimed; None if it is none.
    """

    given: Metadata = ()
    request_id: str = ""
    attempt: int = 1
    peer: str = "poste:queue"
    deadline: float | None = None
    wire: grpc.aio.ServicerContext[Any, Any] | None = None
    traceparent: str = ""
    trace_id: str = ""
    code: Code = Code.OK
    status_code: grpc.StatusCode | None = None
    details: str = ""
    trailing_metadata: Metadata = ()
    headers: str = ""
    initial_metadata: Metadata = ()
    aborted: bool = False
    cancelled: bool = False
    over: bool = False
    callbacks: tuple[Callable[[], object], ...] = ()
    task: Any = None
    method: Any = None
    timeout_seconds: float | None = None
    begin: Callable[[], object] | None = None
    leave: Callable[[Call, Outcome], object] | None = None
    stage: Stage | None = None
    queued: ClaimedTask | None = None

    def names(self) -> Mapping[str, str]:
        """Return what a line of the log calls it."""
        if self.queued is not None:
            return self.queued.names()
        return {"request_id": self.request_id} if self.request_id else {}

    def metadata(self) -> Metadata:
        """Return what came with the call; if it came in company, what would have come with it. Few handlers ask."""
        if self.given:
            return self.given
        traceparent = "" if self.traceparent == traceparents.UNRECORDED else self.traceparent
        queued = self.queued
        pairs = (
            (REQUEST_ID, self.request_id if queued is None else queued.request_id),
            (TASK_ID, "" if queued is None else queued.names().get("task", "")),
            (TASK_KEY, "" if queued is None else queued.key),
            (ATTEMPT, str(self.attempt)),
            (traceparents.HEADER, traceparent),
        )
        own = tuple(Metadatum(key, value) for key, value in pairs if value)
        return own + tuple(Metadatum(key, value) for key, value in carried.read(self.headers)) if self.headers else own

    def remaining_seconds(self) -> float | None:
        """Return how long its caller waits yet, in seconds; None if for ever."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def patience_seconds(self) -> float | None:
        """Return how long it may wait for a thread, in seconds; None if for ever."""
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        # Its caller must still be answered in time that it was not run.
        return max(0.0, left - min(REFUSAL_SECONDS, left / 10))

    def set_code(self, code: grpc.StatusCode | int) -> None:
        """Set the code that the call ends with."""
        self.code = code_of(code) if isinstance(code, int) else Code(code.value[0])
        self.status_code = STATUS_CODES[self.code]

    def abort(self, code: grpc.StatusCode | int, details: str | None, trailing_metadata: Any) -> Never:
        """End the call with an error, whatever the handler does from now on.

        Raises:
            grpc.aio.AbortError: Always, to leave the handler.
        """
        if self.aborted:
            raise grpc.aio.UsageError("abort was called before")
        trailers = checked(trailing_metadata or ())
        self.set_code(code)
        if self.code is Code.OK:
            raise ValueError("abort needs a code other than OK")
        self.details = words_of(details) or self.details
        self.trailing_metadata = trailers or self.trailing_metadata
        self.aborted = True
        raise grpc.aio.AbortError("aborted by the handler")

    def failure(self) -> Outcome:
        """Return the error that the handler set or aborted with."""
        return Outcome(
            self.code,
            sound(self.details),
            trailing_metadata=self.trailing_metadata,
            initial_metadata=self.initial_metadata,
        )

    def failed_by(self, error: BaseException) -> Outcome:
        """Return what it means that the handler raised something unexpected."""
        if self.code is Code.OK:
            return unexpected(error)
        # It had said what went wrong before it raised, as the generated base class does: those words count.
        said = self.failure()
        return said if said.details else said._replace(details=unexpected(error).details)

    def close(self) -> None:
        """Call what waits for the end. From now on the wire, which may be gone, is not touched any more."""
        self.over = True
        callbacks, self.callbacks = self.callbacks, ()
        for callback in callbacks:
            try:
                callback()
            except BaseException:  # noqa: BLE001 - an author's code: it must not keep the others from their call
                _log.exception("a handler's done callback failed")


def words_of(details: object) -> str:
    """Return what a handler gave as a status' text as such: gRPC finds out too late that it is none."""
    return details if isinstance(details, str) else "" if details is None else str(details)


def checked(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """Return trailing metadata in gRPC's spelling.

    gRPC finds out too late what it can't send, and its client would wait for an answer until its deadline.

    Raises:
        ValueError: gRPC can't send it.
    """
    pairs = []
    for key, value in metadata:
        if key == NOT_RUN:
            continue  # copied from another call: that this one did not run is not a handler's to say
        if not _KEY.fullmatch(key):
            raise ValueError(f"metadata key {key!r}: lower-case letters, digits and `_-.` only")
        if key.endswith("-bin"):
            pairs.append(Metadatum(key, value.encode() if isinstance(value, str) else bytes(value)))
            continue
        text = value if isinstance(value, str) else value.decode("ascii", "replace")
        if not _PRINTABLE.fullmatch(text):
            raise ValueError(f"metadata {key!r}: printable ASCII only, or a key that ends in -bin")
        pairs.append(Metadatum(key, text))
    return tuple(pairs)
