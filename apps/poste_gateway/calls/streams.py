"""One call of a streaming method: direct or not at all, for no client would read what is kept of a stream.

What goes wrong before the first message is an ordinary problem, with its status. After that, or once the head was sent
because no message came for a while, it is told in the stream's last line.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from aiohttp import hdrs, web

from poste import protojson
from poste.domain.codes import Code
from poste.rpc.catalogue import Method, MethodKind, Service
from poste.rpc.statuses import is_too_large
from poste.rpc.turns import Crowd
from poste.runtime import logs, metrics
from poste.upstream.failure import LOST, SILENT, Failure
from poste.upstream.outgoing_call import OutgoingCall
from poste.upstream.replica import Replica
from poste.upstream.replica_pool import ReplicaPool
from poste.upstream.streams import End, Stream
from poste_gateway.calls import direct, shapes
from poste_gateway.calls.offload import LARGE_MESSAGE, Offload
from poste_gateway.calls.protocols import Protocol
from poste_gateway.catalogue.route_table import Match
from poste_gateway.grpc_status import problem_of
from poste_gateway.http import preferences
from poste_gateway.http.busy import busy
from poste_gateway.http.callback_urls import CALLBACK
from poste_gateway.http.framings import Framing
from poste_gateway.http.idempotency import IDEMPOTENCY_KEY
from poste_gateway.http.not_before import NOT_BEFORE
from poste_gateway.http.preferences import Preferences
from poste_gateway.http.problem_types import (
    NOT_CALLABLE,
    OF_CODE,
    OUTCOME_UNKNOWN,
    PAYLOAD_TOO_LARGE,
    SERVICE_AWAY,
    STREAM_CUT,
)
from poste_gateway.http.problems import RETRY_AFTER, Problem, defect, invalid
from poste_gateway.http.responses import NO_STORE, UNCOUNTED_BYTES, AccessRecord, make_room
from poste_gateway.http.streamed import CutShortError, Streamed, client_left
from poste_gateway.http.unprintable import unreadable
from poste_gateway.limits.clients import client_of

_log: Final = logs.get("streams")
#: How long the first message is waited for before the head is sent without it, in seconds. Who follows events wants to
#: know that it does; and a problem that comes later has no status any more.
_HEAD_SECONDS: Final = 5.0
#: How long nothing may be sent before a sign of life is, in seconds: some proxies cut what is idle for half a minute.
_IDLE_SECONDS: Final = 15.0
#: How much of a gateway's grace its streams have when it stops, so that there is time to tell their clients.
_GRACE_SHARE: Final = 0.8
#: A proxy that buffers would hold messages back.
_HEADERS: Final = {**NO_STORE, "X-Accel-Buffering": "no"}
#: Whose calls have no limit of one client's: those that come through a proxy are of many.
_NO_CLIENT: Final = ""


class OpenStreams:
    """The streams of all clients: how many there may be, and their end with the gateway's."""

    def __init__(self, most: int, *, max_message_bytes: int) -> None:
        """Begin with none.

        Args:
            most: How many may be open; half of them one client's.
            max_message_bytes: How large a message may be.
        """
        self.max_message_bytes = max_message_bytes
        self._crowd = Crowd(most=most, of_one_peer=max(1, most // 2), unlimited=_NO_CLIENT)
        self._open: set[Stream] = set()

    def begin(self, client: str, service: str) -> None:
        """Count a client's stream in, `end` counts it out.

        Raises:
            Problem: There are as many as may be.
        """
        if not self._crowd.begin(client):
            detail = "As many streams are open as this gateway bears, of this client or of all. Nothing was done."
            raise busy("streams", detail, peer=client, service=service)
        metrics.streams_open.inc()

    def end(self, client: str) -> None:
        """Count a client's stream out."""
        self._crowd.end(client)
        metrics.streams_open.dec()

    def add(self, stream: Stream) -> None:
        """Know of one that began."""
        self._open.add(stream)

    def remove(self, stream: Stream) -> None:
        """Forget one that is over."""
        self._open.discard(stream)

    async def end_with(self, stopping: asyncio.Event, grace_seconds: float) -> None:
        """End those that are still open when most of a stop's grace is over. Never returns."""
        await stopping.wait()
        await asyncio.sleep(_GRACE_SHARE * grace_seconds)
        while True:
            for stream in [*self._open]:
                stream.end()
            await asyncio.sleep(grace_seconds / 100)


def check(method: Method, prefer: Preferences) -> None:
    """Check that a streaming method can be called so.

    Raises:
        Problem: It can't.
    """
    if method.kind.streams_requests:
        what = "a stream" if method.kind is MethodKind.CLIENT_STREAMING else "a stream, and answers with one"
        detail = f"{method.path.lstrip('/')} takes {what}: call it by gRPC. Nothing was done."
        raise Problem(NOT_CALLABLE, detail)
    if prefer.respond_async:
        raise invalid(preferences.PREFER, "can't be respond-async for a method that streams: it is never queued")
    if prefer.idempotency_key:
        raise invalid(IDEMPOTENCY_KEY, "can't be honoured for a method that streams: a call with a key is kept")
    if prefer.callback_url:
        raise invalid(CALLBACK, "can't be told of a method that streams: it is never queued")
    if prefer.not_before_ms:
        raise invalid(NOT_BEFORE, "can't be honoured for a method that streams: a call for later is kept")


@dataclass(frozen=True, slots=True)
class StreamCall:
    """One call on its way.

    Attributes:
        request: The HTTP request.
        match: What it calls.
        protocol: How its answer is written.
        service: The method's service.
        pool: Its replicas.
        prefer: What its client prefers.
        message: The serialized request message.
        metadata: What of its headers goes with it.
        account: What the access log says of it.
        offload: Writes large messages.
        open_streams: Counts it.
    """

    request: web.BaseRequest
    match: Match
    protocol: Protocol
    service: Service
    pool: ReplicaPool
    prefer: Preferences
    message: bytes
    metadata: str
    account: AccessRecord
    offload: Offload
    open_streams: OpenStreams

    async def answer(self) -> Streamed:
        """Call the method, and return the answer with the stream of its messages.

        Raises:
            Problem: It failed before the first one.
        """
        # Of its own, for the metrics: a stream may last for hours.
        self.account.road = "stream"
        client = client_of(self.request)
        self.open_streams.begin(client, self.service.name)
        connection: Any = self.request.protocol
        # It is of use to its client alone, and ends with it.
        connection.for_client_only = True
        answered = False
        try:
            streamed = await _Messages(self).begin()
            answered = True
        except asyncio.CancelledError:
            if not client_left(self.request):
                raise
            raise Problem(OF_CODE[Code.CANCELLED], "The client has gone.") from None
        finally:
            connection.for_client_only = False
            if not answered:
                self.open_streams.end(client)
        return streamed


class _Begun(NamedTuple):
    """A stream, and its first message, or its end, if that came soon."""

    stream: Stream
    first: bytes | End | None


class _Messages:
    """The messages of one call, as its client gets them."""

    def __init__(self, call: StreamCall) -> None:
        self._call = call
        self._client = client_of(call.request)
        self._returned = self._trailing = ""
        self._sent = 0
        self._stream: Stream
        self._framing: Framing
        self._parts: AsyncGenerator[bytes, None]

    async def begin(self) -> Streamed:
        """Have the stream begin, and wait a moment for the first message.

        Raises:
            Problem: It failed before that.
        """
        begun = await self._opened()
        if not isinstance(begun, _Begun):
            raise self._not_opened(begun)
        self._stream, first = begun
        self._call.open_streams.add(self._stream)
        try:
            accept = ",".join(self._call.request.headers.getall(hdrs.ACCEPT, []))
            self._framing = self._call.protocol.framing(self._call.match, accept)
            described = {"Content-Type": self._framing.media_type or shapes.UNKNOWN}
            line = None
            if isinstance(first, bytes):
                line, of_body = await self._line(first)
                described |= of_body
            self._parts = self._made(first, line)
            headers = {**_HEADERS, **self._returned_headers(), **described, **self._applied()}
            return Streamed(self._parts, self._close, headers=headers)
        except BaseException:
            await self._abandon()
            raise

    async def _opened(self) -> _Begun | direct.Failed | direct.Away | direct.Unknown:
        """Call a replica, and another if that is proved to do no harm; returns the stream and how it begins."""
        call, method, account = self._call, self._call.match.method, self._call.account
        outgoing = OutgoingCall(
            method.path,
            call.message,
            account.request_id,
            account.traceparent,
            self._client,
            method.policy.repeatable,
            call.metadata,
            returned=self._take_returned,
        )
        wait = call.prefer.limit_seconds if call.prefer.wait_seconds is None else call.prefer.wait_seconds
        end = None if wait is None else time.monotonic() + wait
        tried: list[Replica] = []
        reason = ""
        while True:
            replica = await call.pool.pick_for_stream(tried, method.name)
            if isinstance(replica, str):
                return direct.Away(reason or replica)
            timeout, impatient = direct.time_left(method, end)
            if timeout <= 0:
                return direct.Away("timeout", impatient=True)
            if tried:
                # What another one set is not this one's.
                self._returned = ""
            sent = asyncio.get_running_loop().time()
            begun = await _begun(replica, outgoing, timeout)
            if not isinstance(begun, Failure):
                return begun
            tried.append(replica)
            outcome = direct.outcome_of(call.pool, method, begun, tried, sent=sent, impatient=impatient)
            if not isinstance(outcome, str):
                # There is always room for what is not there.
                return outcome if not isinstance(outcome, direct.NoRoom) else direct.Unknown(overdue=False)
            reason = outcome

    def _not_opened(self, outcome: direct.Failed | direct.Away | direct.Unknown) -> Problem:
        match outcome:
            case direct.Failed(status):
                problem = self._of_status(Failure(status))
                problem.headers = {**self._returned_headers(), **problem.headers}
                return problem
            case direct.Unknown():
                return Problem(OUTCOME_UNKNOWN, "The call was sent, and what became of it is not known.")
            case direct.Away(reason):
                self._call.account.note("reason", reason)
                if reason == "timeout":
                    return Problem(OF_CODE[Code.DEADLINE_EXCEEDED], self._overdue())
                detail = f"{direct.AWAY_DETAILS[reason]} A stream is never queued: nothing was kept."
                return Problem(SERVICE_AWAY, detail, headers=RETRY_AFTER)

    def _take_returned(self, metadata: str) -> None:
        self._returned = metadata

    def _returned_headers(self) -> dict[str, str]:
        return self._call.protocol.returned_headers(self._returned, self._call.service)

    def _applied(self) -> dict[str, str]:
        prefer = self._call.prefer
        waits = [] if prefer.wait_seconds is None else [preferences.wait_applied(prefer.wait_seconds)]
        return preferences.applied(*waits, *(["no-queue"] if prefer.no_queue else []))

    async def _made(self, first: bytes | End | None, line: bytes | None) -> AsyncGenerator[bytes, None]:
        """Yield what is sent, part by part, until the end."""
        framing, usage = self._framing, self._usage
        try:
            message = first
            while not isinstance(message, End):
                if line is not None:
                    self._sent += 1
                    yield line
                    # The client has taken it.
                    usage.answered()
                elif message is None:
                    yield framing.idle
                line, message = None, await self._stream.next(_IDLE_SECONDS)
                if isinstance(message, bytes):
                    line, _ = await self._line(message)
            self._trailing = message.metadata
            if message.failure is not None:
                raise self._ended_with(message.failure)  # noqa: TRY301 - told as those of its messages are
        except Problem as problem:
            yield self._last(problem)
        except Exception:  # noqa: BLE001 - the edge, as in the dispatcher: logged once, and told without details
            _log.exception("stream failed", method=self._call.match.method.path)
            yield self._last(defect())
        else:
            yield framing.end(self._trailing)

    def _last(self, problem: Problem) -> bytes:
        """Return the last line of a stream that ends with a problem.

        Raises:
            CutShortError: There is no place for one.
        """
        self._call.account.outcome = problem.kind.outcome
        line = self._framing.problem(problem, self._call.request.rel_url.raw_path, self._trailing)
        if line is None:
            raise CutShortError(problem.detail) from problem
        return line

    @property
    def _usage(self) -> Any:
        protocol: Any = self._call.request.protocol
        return protocol.usage

    async def _line(self, message: bytes) -> tuple[bytes, dict[str, str]]:
        """Return a message as it stands in the body, and the headers that describe it, once there is room for it.

        Raises:
            Problem: There is none, or it can't be written.
        """
        match, size = self._call.match, len(message)
        if size > UNCOUNTED_BYTES and not await self._room(size):
            raise self._no_room()
        if size <= LARGE_MESSAGE:
            written = self._written(message)
        else:
            make = functools.partial(self._written, message)
            written = await self._call.offload.run(make, peer=self._client, size=size, accepted=True)
        metrics.stream_messages_total.add((self._call.service.name, match.method.name))
        body = self._framing.message(written.body)
        # Default values are written too: few bytes may have become many.
        if len(body) > UNCOUNTED_BYTES and not self._usage.promise(len(body)):
            raise self._no_room()
        return body, written.headers

    def _written(self, message: bytes) -> shapes.Written:
        match = self._call.match
        try:
            return self._call.protocol.message(match, message)
        except protojson.UnprintableError as error:
            raise unreadable(error, service=match.method.service, method=match.method.name) from error

    async def _room(self, size: int) -> bool:
        """Wait until there is room for a message; returns whether there is."""
        decision: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def decided(room: bool) -> None:
            if not decision.done():
                decision.set_result(room)

        over = make_room(self._call.request, size, decided)
        try:
            return await decision
        finally:
            over()

    def _no_room(self) -> Problem:
        detail = "There is no room for the stream's next message while so many are not taken: it is not whole."
        return busy("answers", detail, peer=self._call.request.remote or "", service=self._call.service.name)

    def _ended_with(self, failed: Failure) -> Problem:
        """Return the problem of a stream that was not ended by its service, or not well."""
        if self._stream.cut:
            return Problem(STREAM_CUT, "The gateway stops: the stream is not whole.")
        if failed is SILENT:
            return Problem(OF_CODE[Code.DEADLINE_EXCEEDED], self._overdue())
        if failed is LOST or failed.code is Code.UNAVAILABLE:
            return Problem(STREAM_CUT, "The service, or the connection to it, became unavailable.")
        return self._of_status(failed)

    def _of_status(self, failed: Failure) -> Problem:
        if is_too_large(failed.status):
            most = self._call.open_streams.max_message_bytes
            return Problem(PAYLOAD_TOO_LARGE, f"A message of a stream may have {most} bytes, and this one has more.")
        return problem_of(failed.status, self._call.service)

    def _overdue(self) -> str:
        method, wait = self._call.match.method, self._call.prefer
        limit = wait.wait_seconds if wait.wait_seconds is not None else wait.limit_seconds
        if limit is not None and limit < method.policy.timeout_seconds:
            return f"The stream was not over within {limit:g} s, the time that its client set."
        seconds = method.policy.timeout_seconds
        return f"The stream was not over within {seconds:g} s, the timeout_seconds of {method.path.lstrip('/')}."

    async def _abandon(self) -> None:
        self._call.open_streams.remove(self._stream)
        await self._stream.close()

    async def _close(self) -> None:
        """End the call, however far it has come."""
        account = self._call.account
        if self._call.request.transport is None and account.outcome == "OK":
            account.outcome = Code.CANCELLED.name
        account.note("messages", self._sent)
        self._call.open_streams.end(self._client)
        await self._parts.aclose()
        await self._abandon()


async def _begun(replica: Replica, outgoing: OutgoingCall, timeout_seconds: float) -> _Begun | Failure:
    """Call a replica; returns the stream, or what it failed with before its first message."""
    probe = replica.circuit.on_start()
    stream: Stream | Failure | None = None
    kept = False
    try:
        stream = await replica.stream(outgoing, timeout_seconds)
        if isinstance(stream, Failure):
            return stream
        first = await stream.next(_HEAD_SECONDS)
        if isinstance(first, End) and first.failure is not None:
            return first.failure
        kept = True
        if first is not None:
            replica.circuit.record_success()
        return _Begun(stream, first)
    finally:
        replica.circuit.on_finish(probe=probe)
        if isinstance(stream, Stream) and not kept:
            await stream.close()
