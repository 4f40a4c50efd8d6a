"""What a handler sees of its call: the same on both roads.

`Call` is the state. It has two faces: `AsyncContext` for coroutines, which is grpc.aio's ServicerContext, and
`SyncContext` for plain functions, which is grpc's. Where they touch the wire (initial metadata, compression) the queued
road has none, and nothing happens.
"""

from __future__ import annotations

import asyncio
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

_log = logs.get("context")
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
        self.details = _words(details) or self.details
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


def _words(details: object) -> str:
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


class _Context:
    """What both faces share. None of it waits, so all of it may be called from any thread."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def invocation_metadata(self) -> Any:
        return self._call.metadata()

    def peer(self) -> str:
        return self._call.peer

    def peer_identities(self) -> Iterable[bytes] | None:
        return None

    def peer_identity_key(self) -> str | None:
        return None

    def auth_context(self) -> Mapping[str, Any]:
        return {}

    def time_remaining(self) -> Any:
        deadline = self._call.deadline
        return None if deadline is None else max(deadline - time.monotonic(), 0.0)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._call.set_code(code)

    def code(self) -> Any:
        return self._call.status_code

    def set_details(self, details: str) -> None:
        self._call.details = _words(details)

    def details(self) -> str:
        return self._call.details

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._call.trailing_metadata = checked(trailing_metadata)

    def trailing_metadata(self) -> Any:
        return self._call.trailing_metadata

    def set_compression(self, compression: grpc.Compression) -> None:
        if self._call.wire is not None and not self._call.over:
            self._call.wire.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        if self._call.wire is not None and not self._call.over:
            self._call.wire.disable_next_message_compression()

    def cancelled(self) -> bool:
        return self._call.cancelled or self._call.code is Code.CANCELLED

    def done(self) -> bool:
        return self._call.over or self._call.aborted


class AsyncContext(_Context, grpc.aio.ServicerContext[Any, Any]):
    """The context of an `async def` handler."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Never:
        self._call.abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: Any) -> Never:
        self._call.abort(status.code, status.details, status.trailing_metadata)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        if self._call.over:
            return
        if self._call.wire is not None:
            await self._call.wire.send_initial_metadata(initial_metadata)
        else:
            self._call.initial_metadata = checked(initial_metadata or ())

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        self._call.callbacks += (lambda: callback(self),)

    async def read(self) -> Never:
        raise grpc.aio.UsageError("a unary method has read its request already")

    async def write(self, message: Any) -> Never:
        raise grpc.aio.UsageError("a unary method returns its response")


class SyncContext(_Context, grpc.ServicerContext):
    """The context of a `def` handler, which runs in a thread."""

    def __init__(self, call: Call, loop: asyncio.AbstractEventLoop | None) -> None:
        """Take the loop that the call's wire is in; None if it has none."""
        super().__init__(call)
        self._loop = loop

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> Never:
        self._call.abort(code, details, trailing_metadata)

    def abort_with_status(self, status: Any) -> Never:
        self._call.abort(status.code, status.details, status.trailing_metadata)

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        if self._call.over or self._loop is None:
            return  # and the loop may be closed by now
        if self._call.wire is None:
            self._call.initial_metadata = checked(initial_metadata or ())
            return
        sent = asyncio.run_coroutine_threadsafe(
            AsyncContext(self._call).send_initial_metadata(initial_metadata), self._loop
        )
        sent.result()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        if self._call.over:
            return False
        self._call.callbacks += (callback,)
        return True

    def is_active(self) -> bool:
        return not (self._call.over or self._call.aborted)

    def cancel(self) -> bool:
        if not self.is_active():
            return False
        self._call.set_code(grpc.StatusCode.CANCELLED)
        self._call.aborted = True
        return True
