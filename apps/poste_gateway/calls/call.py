"""One call: validated, then sent by the direct road, the queued one, or first by one and then by the other."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aiohttp import web
from google.rpc import status_pb2

from poste import protojson
from poste.domain.codes import Code
from poste.domain.task import TaskState
from poste.domain.task_id import TaskId, TaskIds
from poste.rpc.catalogue import MethodKind, Service
from poste.rpc.http_rules.rules import ANY_VERB, READING
from poste.runtime import metrics, tracing
from poste.upstream.outgoing_call import OutgoingCall
from poste.upstream.replica_pool import ReplicaPool
from poste.v1 import mom_service_pb2, task_pb2
from poste_gateway.access.identity import identity_of
from poste_gateway.calls import direct, keeping, keyed, protocols, request_body, streams
from poste_gateway.calls.enqueuer import Acceptance, Enqueuer, Known
from poste_gateway.calls.offload import LARGE_MESSAGE, Offload
from poste_gateway.calls.protocols import REST, Protocol
from poste_gateway.calls.streams import OpenStreams
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.catalogue.route_table import Match
from poste_gateway.grpc_status import problem_of
from poste_gateway.http import forwarded_headers, preferences
from poste_gateway.http.callback_urls import CallbackUrls
from poste_gateway.http.idempotency import REPLAYED
from poste_gateway.http.not_before import NOT_BEFORE
from poste_gateway.http.preferences import Preferences
from poste_gateway.http.problem_types import (
    GATEWAY_BUSY,
    KEY_IN_USE,
    OF_CODE,
    OUTCOME_UNKNOWN,
    SERVICE_AWAY,
)
from poste_gateway.http.problems import RETRY_AFTER, Problem
from poste_gateway.http.responses import AccessRecord, Response, make_room, room_for
from poste_gateway.http.streamed import client_left
from poste_gateway.http.unprintable import unreadable
from poste_gateway.limits.clients import client_of
from poste_gateway.limits.fair_queue import Full
from poste_gateway.limits.refusals import refuse
from poste_gateway.tasks import retry_after, task_view
from poste_gateway.tasks.task_reader import TaskReader

T = TypeVar("T")
_UNARY: Final = MethodKind.UNARY
_NO_ROOM: Final = "The service answered, and there is no room for its answer while so many are not taken."
_TOO_LATE: Final = "It was not answered within the time that its client set."


@dataclass(frozen=True, slots=True)
class CallServices:
    """What calls need on their way, whichever it is.

    Attributes:
        catalogue: The services, their replicas and routes.
        enqueuer: Has calls kept.
        task_reader: Waits for their ends.
        offload: Reads large bodies, and writes large answers.
        ids: Mints their ids.
        max_wait_seconds: The longest wait that a client is granted.
        body_seconds: How long a client may take to bring a call's body.
        open_streams: The streams that are open.
        callback_urls: Which URLs may be told of their tasks' ends.
        guarded: Clients show keys.
    """

    catalogue: ServiceCatalogue
    enqueuer: Enqueuer
    task_reader: TaskReader
    offload: Offload
    ids: TaskIds
    max_wait_seconds: float
    body_seconds: float
    open_streams: OpenStreams
    callback_urls: CallbackUrls
    guarded: bool


async def answer(
    request: web.BaseRequest, match: Match, call_services: CallServices, account: AccessRecord
) -> Response:
    """Answer one call.

    Raises:
        Problem: It ends with an error.
    """
    method = match.method
    account.service, account.method = method.service, method.name
    # The same from here on: the catalogue may change while the body is received.
    service, pool = call_services.catalogue.services[method.service], call_services.catalogue.pools[method.service]
    prefer = preferences.read(
        request.headers,
        method.policy,
        max_wait_seconds=call_services.max_wait_seconds,
        callback_urls=call_services.callback_urls,
    )
    protocol = protocols.of(request, match.route)
    if protocol is not REST:
        account.note("protocol", protocol.name)
    streaming = method.kind is not _UNARY
    if streaming:
        streams.check(method, prefer)
    names, guarded = service.policy.headers.request, call_services.guarded
    metadata = forwarded_headers.forwarded(names, protocol.own_names, guarded).read(request)
    if guarded:
        metadata = identity_of(request).metadata + metadata
    message = await request_body.read(
        request, match, protocol, call_services.offload, seconds=call_services.body_seconds
    )
    if streaming:
        return await streams.StreamCall(
            request,
            match,
            protocol=protocol,
            service=service,
            pool=pool,
            prefer=prefer,
            message=message,
            metadata=metadata,
            account=account,
            offload=call_services.offload,
            open_streams=call_services.open_streams,
        ).answer()
    # By position: keywords would make this one of a call's dearest lines.
    call = _Call(call_services, request, match, protocol, service, pool, prefer, message, metadata, account)
    return await call.run()


class _Call:
    """One call on its way."""

    def __init__(  # noqa: PLR0917 - made once for each call, in one place
        self,
        call_services: CallServices,
        request: web.BaseRequest,
        match: Match,
        protocol: Protocol,
        service: Service,
        pool: ReplicaPool,
        prefer: Preferences,
        message: bytes,
        metadata: str,
        account: AccessRecord,
    ) -> None:
        self._call_services = call_services
        self._request = request
        self._service = service
        self._pool = pool
        self._match = match
        self._protocol = protocol
        self._method = method = match.method
        route = match.route
        self._prefer = prefer
        self._message = message
        self._metadata = metadata
        #: The metadata that its handler set.
        self._returned = ""
        self._account = account
        #: Whether the wait that its client asked for is honoured: too many may wait already.
        self._may_wait = True
        #: What tells its request from others', if it has an idempotency key; and whether an earlier call had that.
        self._digest = ""
        self._replayed = False
        #: It is for reading only: by a route that takes any verb, too.
        self._reads = route.safe or (route.verb == ANY_VERB and request.method in READING)
        self._may_queue = service.queueable and method.policy.queue_when_away and not (prefer.no_queue or self._reads)

    def run(self) -> Coroutine[Any, Any, Response]:
        """Choose the road, and return the coroutine that takes it."""
        wait, repeatable = self._prefer.wait_seconds, self._method.policy.repeatable
        if self._prefer.idempotency_key or self._prefer.not_before_ms:
            return self._kept()
        if not self._may_queue:
            return self._direct(wait)
        if wait is None:
            return self._queued(0.0) if self._prefer.respond_async else self._direct(None)
        # A call that can't be repeated could not be queued once the wait is over: it is queued first.
        if wait == 0 or (not repeatable and wait < self._method.policy.timeout_seconds):
            return self._queued(wait)
        return self._direct(wait)

    async def _kept(self) -> Response:
        """Have the call kept and wait for its end, or answer by what became of the first one with its key."""
        keeping.check_may_be(self._prefer, self._method.policy, reads=self._reads)
        keeping.check_time(NOT_BEFORE, self._prefer.not_before_ms, identity_of(self._request))
        if not self._service.queueable:
            raise self._away(keeping.NO_CONSUMER)
        if self._prefer.idempotency_key:
            digest = functools.partial(keyed.digest, self._method.input, self._message)
            self._digest = await self._made(digest, len(self._message), accepted=False)
        return await self._queued(keeping.wait_seconds(self._prefer, self._method.policy, self._pool))

    async def _direct(self, wait: float | None) -> Response:
        self._account.road = "direct"
        begin = time.monotonic()
        repeatable = self._method.policy.repeatable
        # By position: keywords would make this one of a call's dearest lines.
        outgoing = OutgoingCall(
            self._method.path,
            self._message,
            self._account.request_id,
            self._account.traceparent,
            client_of(self._request),
            repeatable,
            self._metadata,
            self._make_room,
            self._take_returned,
            (),
        )
        # A call that must not run twice is cut short by an explicit limit only: its outcome would stay unknown.
        wait_seconds = self._prefer.limit_seconds if wait is None or not repeatable else wait
        connection: Any = self._request.protocol
        # A call that changes nothing is given up once its client has gone: its handler's work would be of no use.
        connection.for_client_only = self._method.policy.no_side_effects
        try:
            outcome = await direct.call(self._pool, self._method, outgoing, wait_seconds=wait_seconds)
        except asyncio.CancelledError:
            if not client_left(self._request):
                raise
            raise Problem(OF_CODE[Code.CANCELLED], "The client has gone.") from None
        finally:
            connection.for_client_only = False
        if isinstance(outcome, bytes):
            if not room_for(self._request, len(outcome)):
                raise self._no_room()
            return await self._answered(outcome)
        return await self._unanswered(outcome, 0.0 if wait is None else wait - (time.monotonic() - begin))

    async def _unanswered(
        self, outcome: direct.Failed | direct.NoRoom | direct.Unknown | direct.Away, wait: float
    ) -> Response:
        """Queue a call that was not answered directly, if it may be; its client waits so many seconds more.

        Raises:
            Problem: It may not be, or the service answered with an error.
        """
        match outcome:
            case direct.Failed(status):
                raise await self._failed(status)
            case direct.NoRoom():
                if self._request.transport is not None:
                    # Otherwise no client was refused: it has left.
                    refuse("answers", peer=self._request.remote or "", service=self._service.name)
                raise self._no_room()
            case direct.Unknown(overdue):
                why = f" {self._overdue()}" if overdue else ""
                detail = f"The call was sent, and what became of it is not known.{why} It was not run again."
                raise Problem(OUTCOME_UNKNOWN, detail)
            case direct.Away(reason, impatient, overdue):
                self._account.note("reason", reason)
                if impatient and self._ends_here():
                    raise Problem(OF_CODE[Code.DEADLINE_EXCEEDED], _TOO_LATE)
                if not self._may_queue:
                    raise self._not_kept(reason, overdue=overdue)
                if not impatient:
                    metrics.failovers(self._service.name, reason).inc()
                return await self._queued(wait)

    def _ends_here(self) -> bool:
        """Return whether the call is over with its client's time: that was its deadline, not its patience."""
        wait, limit = self._prefer.wait_seconds, self._prefer.limit_seconds
        return self._protocol.deadline_ends_calls and limit is not None and (wait is None or wait >= limit)

    async def _failed(self, status: status_pb2.Status) -> Problem:
        """Return the problem for a status, with the metadata that the handler set."""
        problem = await self._made(functools.partial(problem_of, status, self._service), status.ByteSize())
        if self._returned:
            problem.headers = {**self._protocol.returned_headers(self._returned, self._service), **problem.headers}
        return problem

    def _take_returned(self, metadata: str) -> None:
        """Keep the metadata that its handler set."""
        self._returned = metadata

    def _make_room(self, size: int, decided: Callable[[bool], None]) -> Callable[[], None]:
        return make_room(self._request, size, decided)

    def _not_kept(self, reason: str, *, overdue: bool) -> Problem:
        """Return the problem of a call that was not answered directly, and may not be queued."""
        why = f"{self._overdue() if overdue else direct.AWAY_DETAILS[reason]} {self._why_not_kept()}"
        if reason != direct.PEER_CALLS:
            return self._away(why)
        refuse(reason, peer=client_of(self._request), service=self._service.name)
        return Problem(GATEWAY_BUSY, why, headers={**RETRY_AFTER, **self._applied()})

    def _no_room(self) -> Problem:
        """Return the problem of a call that ran, but whose answer there is no room for."""
        if self._method.policy.repeatable:
            return Problem(GATEWAY_BUSY, _NO_ROOM, headers=RETRY_AFTER)
        return Problem(OUTCOME_UNKNOWN, f"{_NO_ROOM} The call was not run again.")

    def _overdue(self) -> str:
        """Return the problem of a call that timed out, with whose timeout it was: that is the one to raise."""
        seconds = self._method.policy.timeout_seconds
        return f"It was not answered within {seconds:g} s, the timeout_seconds of {self._method.path.lstrip('/')}."

    async def _queued(self, wait: float) -> Response:
        """Enqueue the call, then wait for its end as long as its client wishes."""
        self._account.road = "queued"
        # What an attempt set that came to nothing is not the kept call's.
        self._returned = ""
        keeping.check_agreed(self._call_services.catalogue)
        task_id = keeping.mint(self._call_services.ids, self._method, self._prefer, identity_of(self._request))
        self._account.note("task", task_id.text)
        traced = tracing.wanted(self._account.traceparent)
        known = await (self._keep_traced(task_id) if traced else self._keep(task_id, self._account.traceparent))
        if known is not None:
            return await self._repeated(keyed.first_id(self._call_services.ids, self._service.name, known), wait)
        task = await self._wait(task_id, wait)
        if task is not None:
            return await self._waited_for(task_id, task)
        not_before_ms = self._prefer.not_before_ms
        accepted = task_view.to_accepted(task_id, self._method, not_before_ms=not_before_ms)
        return self._accepted(task_id, accepted, later=self._turn(not_before_ms))

    async def _wait(self, task_id: TaskId, seconds: float) -> task_pb2.Task | None:
        """Wait for a task's end as long as its client wishes; returns it as it was last read, None if it was not."""
        if seconds <= 0 or self._prefer.respond_when_queued:
            return None
        try:
            return await self._call_services.task_reader.wait(task_id, seconds, peer=client_of(self._request))
        except Full:
            self._may_wait = False
            return None

    async def _repeated(self, task_id: TaskId, wait: float) -> Response:
        """Answer as the first call with this one's idempotency key was, or will be, answered.

        It waits only for as long as its client says: the first one's client waits already.
        """
        self._account.note("task", task_id.text)
        self._replayed = True
        task = await self._call_services.task_reader.get(task_id)
        if self._prefer.wait_seconds and not task_view.state_of(task).final:
            task = await self._wait(task_id, wait) or task
        if task_view.state_of(task) is TaskState.RUNNING and not self._prefer.respond_async:
            place = {"Location": task_view.location(task_id)}
            raise Problem(KEY_IN_USE, "A call with this key runs now.", headers={**RETRY_AFTER, **place})
        try:
            return await self._waited_for(task_id, task)
        except Problem as problem:
            problem.headers = {**problem.headers, REPLAYED: "true"}
            raise

    async def _waited_for(self, task_id: TaskId, task: task_pb2.Task) -> Response:
        """Answer with what became of the task while its client waited: as directly, if it came to its end."""
        state = task_view.state_of(task)
        if state is TaskState.SUCCEEDED:
            return await self._result(task_id, task)
        size = task.ByteSize()
        problem = await self._made(functools.partial(task_view.error_of, task, self._service), size)
        if state is TaskState.FAILED and problem is not None:
            raise problem
        value = await self._made(functools.partial(task_view.to_value, task_id, task, self._service), size)
        # It may have ended without a result (expired, cancelled, dead): waiting longer changes nothing then.
        return self._accepted(task_id, value, later=retry_after.of_task(task))

    async def _result(self, task_id: TaskId, task: task_pb2.Task) -> Response:
        peer = client_of(self._request)
        async with self._call_services.task_reader.whole(task_id, task, peer=peer, patient=True) as whole:
            if not room_for(self._request, len(whole.response)):
                detail = f"{_NO_ROOM} It is kept: read it at the path that Location names."
                raise Problem(GATEWAY_BUSY, detail, headers={**RETRY_AFTER, "Location": task_view.location(task_id)})
            return await self._answered(whole.response)

    def _accepted(self, task_id: TaskId, value: Any, later: Mapping[str, str]) -> Response:
        """Answer with the task as JSON values; `later` has the header that says when to ask again, if at all."""
        self._account.outcome = "QUEUED"
        place = {"Location": task_view.location(task_id)}
        return self._protocol.kept(value, {**place, **later, **self._applied()})

    def _turn(self, not_before_ms: int) -> Mapping[str, str]:
        """Return when to ask for a call that was kept just now."""
        if not_before_ms and (later_seconds := not_before_ms / 1000 - time.time()) > 0:
            return retry_after.of_seconds(later_seconds)
        turns = self._call_services.enqueuer.turns
        return retry_after.of_seconds(turns.get(self._service.name)) if turns else RETRY_AFTER

    async def _keep_traced(self, task_id: TaskId) -> Known | None:
        """Enqueue the call, in a span of its own, which becomes the parent of its handler's span."""
        span = tracing.begin(f"enqueue {self._service.name}", "producer", parent=self._account.traceparent)
        kept = False
        try:
            known = await self._keep(task_id, span.traceparent)
            kept = True
            return known
        finally:
            span.end(failed=not kept, poste__task__key=task_id.key)

    async def _keep(self, task_id: TaskId, traceparent: str) -> Known | None:
        """Enqueue the call; returns the first one with its idempotency key, if another was.

        Raises:
            Problem: It is not, or that is unknown.
        """
        new, quota = self._new(task_id, traceparent), keeping.quota_of(identity_of(self._request))
        said = await self._call_services.enqueuer.enqueue(new, self._method.schema, quota)
        if isinstance(said, Known):
            return said
        if said is Acceptance.ACCEPTED:
            return None
        problem = keeping.refusal(said, task_id, self._call_services.ids)
        if said is Acceptance.UNKNOWN:
            self._account.note("task", self._call_services.ids.with_acceptance_unknown(task_id).text)
        elif said is Acceptance.NO_CONSUMER:
            problem.headers = {**problem.headers, **self._applied()}
        raise problem

    def _away(self, detail: str) -> Problem:
        return Problem(SERVICE_AWAY, detail, headers={**RETRY_AFTER, **self._applied()})

    def _why_not_kept(self) -> str:
        """Return why a call may not be queued; its client's preference and its method's setting are named first."""
        if self._reads:
            return f"The call was not kept: a {self._request.method} never is."
        ruled = self._prefer.no_queue or not self._method.policy.queue_when_away
        return "The call was not kept." if ruled else keeping.NO_CONSUMER

    def _new(self, task_id: TaskId, traceparent: str) -> mom_service_pb2.NewTask:
        new = keeping.new_task(self._method, task_id, self._message, self._prefer)
        new.traceparent = traceparent
        new.request_id = self._account.request_id
        if self._digest:
            new.request_digest = self._digest
        if self._match.route.response_field:
            new.response_field = self._match.route.response_field
        if self._metadata:
            kept, own_names = self._service.policy.headers.kept, self._protocol.own_names
            new.metadata = forwarded_headers.kept(self._request, self._metadata, kept, own_names=own_names)
        return new

    async def _answered(self, response: bytes) -> Response:
        """Answer with the service's response."""
        size = len(response)
        if size <= LARGE_MESSAGE:
            return self._written(response)
        return await self._made(functools.partial(self._written, response), size)

    async def _made(self, make: Callable[[], T], size: int, *, accepted: bool = True) -> T:
        """Make something of a message of so many bytes; in a thread if it is large.

        A call that was accepted, or has run, can't be refused any more for want of room.
        """
        if size <= LARGE_MESSAGE:
            return make()
        return await self._call_services.offload.run(make, peer=client_of(self._request), size=size, accepted=accepted)

    def _written(self, response: bytes) -> Response:
        try:
            return self._protocol.answer(self._match, self._service, response, self._returned, self._applied())
        except protojson.UnprintableError as error:
            raise unreadable(error, service=self._service.name, method=self._method.name) from error

    def _applied(self) -> dict[str, str]:
        """Return the headers that say which preferences were honoured, and that another call was answered so."""
        if self._prefer is preferences.NONE:
            return {}
        names = []
        if self._prefer.respond_async and self._may_queue:
            names.append("respond-async")
        wait = self._prefer.wait_seconds if self._may_wait else None
        if wait is not None and (self._may_queue or self._method.policy.repeatable):
            names.append(preferences.wait_applied(wait))
            if self._prefer.respond_when_queued:
                names.append("respond-when-queued")
        if self._prefer.no_queue:
            names.append("no-queue")
        return {**preferences.applied(*names), **({REPLAYED: "true"} if self._replayed else {})}
