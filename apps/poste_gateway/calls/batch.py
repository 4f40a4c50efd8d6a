"""Many calls in one request, each of which is kept: `POST /v1/tasks:batch`.

The body is a JSON array, or a line of JSON for each call (`application/x-ndjson`)::

    [{"method": "calculator.v1.SumService/Add", "request": {"a": 2, "b": 3}}, …]

An `idempotencyKey` names a call for good, and `notBefore` is the time before which it does not run, as the headers say
for one. The answer has a result for each call, in their
order, in the same form: the task of one that is on disk, or the problem of one that is not::

    {"results": [{"task": {"id": "…", "state": "QUEUED", …}}, {"error": {"type": "/problems/queue-full", …}}]}

No call waits for its service, be it up or away. One that is wrong or refused holds up no other. From the time that its
calls are read until their results are written a batch takes many times its bytes: few are so at once, in fair turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from aiohttp import web

from poste import protojson
from poste.domain import sizes
from poste.domain.task_id import TaskId
from poste.protojson.errors import quotable
from poste.rpc.catalogue import Method, Service
from poste.runtime import metrics
from poste.runtime.slices import Slices
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.access.identity import Identity, identity_of
from poste_gateway.calls import keeping, keyed, request_body
from poste_gateway.calls.call import CallServices
from poste_gateway.calls.enqueuer import Acceptance, Known
from poste_gateway.http import door, forwarded_headers, idempotency, not_before, preferences
from poste_gateway.http.busy import busy
from poste_gateway.http.framings import NDJSON
from poste_gateway.http.idempotency import IDEMPOTENCY_KEY
from poste_gateway.http.not_before import NOT_BEFORE
from poste_gateway.http.preferences import PREFER, Preferences
from poste_gateway.http.problem_types import (
    GATEWAY_BUSY,
    INVALID_REQUEST,
    NO_ROUTE,
    NOT_JSON,
    TOO_LARGE,
)
from poste_gateway.http.problems import RETRY_AFTER, Problem, invalid, unfit
from poste_gateway.http.responses import JSON, NO_STORE, Response, room_for
from poste_gateway.limits.clients import client_of
from poste_gateway.limits.fair_queue import FairQueue, Full
from poste_gateway.mom import request_id
from poste_gateway.tasks import task_view

PATH: Final = "/v1/tasks:batch"
#: How many calls a request may have.
MOST_CALLS: Final = 10_000
#: How many are under way at once: a few messages to the middleware, between which other clients' calls have their turn.
_AT_ONCE: Final = 512
#: How many batches are read and kept at once, of small ones and of others: while one waits for the middleware, others
#: are read. A small one has some hundred calls: its size, with what is added for them, is no more than this, in bytes.
_SMALL_AT_ONCE: Final = 16
_LARGE_AT_ONCE: Final = 2
_SMALL: Final = 64 * 1024
#: What a call costs beside its bytes, in the same unit: one that is wrong may have two, and is told of all the same.
_CALL_BYTES: Final = 100
#: How much may wait for its turn, in the same unit: some sixteen batches of the most calls.
_MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
#: How long one waits, in seconds: as long as a dozen of the most calls take, and less than most clients wait.
_PATIENCE_SECONDS: Final = 20.0
#: Room for the result of a call that is kept, in bytes: its id, names and times have about so many.
_RESULT_BYTES: Final = 384
_KEY: Final = "idempotencyKey"
_NOT_BEFORE: Final = "notBefore"
_MEMBERS: Final = frozenset({"method", "request", _KEY, _NOT_BEFORE})
#: What says that the middleware, or its store, was not reached.
_NOT_REACHED: Final = (Acceptance.NOT_ACCEPTED, Acceptance.STORE_AWAY, Acceptance.UNKNOWN)

T = TypeVar("T")


class _Asked(NamedTuple):
    """One call as it was read: `request` is serialized; `key` and `digest` are empty without an idempotency key.

    `not_before_ms`: 0 if it says no time of its own.
    """

    service: Service
    method: Method
    request: bytes
    key: str
    digest: str
    not_before_ms: int


class Batches:
    """Handles requests with many calls."""

    def __init__(self, call_services: CallServices) -> None:
        self._call_services = call_services
        self._small = FairQueue(_MAX_WAITING_BYTES, at_once=_SMALL_AT_ONCE)
        self._large = FairQueue(_MAX_WAITING_BYTES, at_once=_LARGE_AT_ONCE)

    async def handle(self, request: web.BaseRequest) -> Response:
        """Have each call kept, and answer for each.

        Raises:
            Problem: The request as a whole is wrong, or nothing can be kept now, or there is no room for it; nothing
                was accepted.
        """
        services = self._call_services
        keeping.check_agreed(services.catalogue)
        as_lines = _is_lines(request)
        _check_headers(request)
        # Before its turn: a client that is slow to bring it keeps no other waiting.
        body = await request_body.read_whole(request, seconds=services.body_seconds)
        peer, size, identity = client_of(request), len(body), identity_of(request)
        size += _CALL_BYTES * min(MOST_CALLS, body.count(b"\n" if as_lines else b","))
        async with self._turn(peer, size):
            read = functools.partial(self._read, body, identity, as_lines=as_lines)
            del body
            # In a thread, however short it is: every second byte may be a call, and as dear as one of a kilobyte.
            calls = await services.offload.run(read, peer=peer, size=size)
            del read
            # One of them, or the request that has none, was counted when it came in.
            door.spend(identity, max(1, len(calls)), taken=1)
            _reserve_room(request, calls)
            results = await _Keeping(services, request).run(calls)
            return _answer(results, as_lines=as_lines)

    @contextlib.asynccontextmanager
    async def _turn(self, peer: str, size: int) -> AsyncIterator[None]:
        """Wait for a batch's turn, which lasts as long as the body.

        Raises:
            Problem: Too much waits already, or it has waited too long.
        """
        turns = self._small if size <= _SMALL else self._large
        async with contextlib.AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await turn.enter_async_context(turns.turn(peer, size))
            except (Full, TimeoutError):
                detail = "More calls wait to be kept here than there is room for: nothing was accepted."
                raise busy("reading", detail, peer=peer, bytes=size) from None
            yield

    def _read(self, body: bytes, identity: Identity, *, as_lines: bool) -> list[_Asked | bytes]:
        """Read the calls; of one that can't be kept there is its result.

        Raises:
            Problem: The body is none of calls, or has too many.
        """
        return [self._read_one(value, identity) for value in (_lines(body) if as_lines else _elements(body))]

    def _read_one(self, value: Any, identity: Identity) -> _Asked | bytes:
        # Written at once: as an exception, with its frames, each would take some kilobytes until all are answered.
        try:
            return self._asked(protojson.loads(value) if isinstance(value, bytes) else value, identity)
        except protojson.FieldErrors as error:
            return _refused(unfit(error))
        except Problem as problem:
            return _refused(problem)

    def _asked(self, value: Any, identity: Identity) -> _Asked:
        """Read one call.

        Raises:
            Problem, FieldErrors: It is none that can be kept.
        """
        if not isinstance(value, dict):
            raise Problem(INVALID_REQUEST, "A call must be an object with `method` and `request`.")
        for name in value.keys() - _MEMBERS:
            raise invalid(
                quotable(name), "is no member of a call: it has `method`, `request`, `idempotencyKey` and `notBefore`"
            )
        service, method = self._called(value.get("method"))
        door.check_call(identity, service.name, method.name)
        key, not_before_ms = _key(value, method), _not_before(value)
        keeping.check_time(_NOT_BEFORE, not_before_ms, identity)
        request = protojson.decode_value(method.input, [value.get("request", {})])
        if len(request) > sizes.MAX_PAYLOAD:
            raise Problem(TOO_LARGE, f"A call may have {sizes.MAX_PAYLOAD} bytes as a protobuf message.")
        digest = keyed.digest(method.input, request) if key else ""
        return _Asked(service, method, request, key, digest, not_before_ms)

    def _called(self, named: Any) -> tuple[Service, Method]:
        """Return what a call names.

        Raises:
            Problem: There is no such method, or its calls are never kept.
        """
        if not isinstance(named, str):
            raise invalid("method", "must be a text")
        of, _, short = named.removeprefix("/").partition("/")
        service = self._call_services.catalogue.services.get(of)
        method = service.methods.get(short) if service is not None else None
        if service is None or method is None:
            streams = service is not None and short in service.streams
            why = "It has a stream of messages, and is never kept." if streams else "There is no such method."
            raise Problem(INVALID_REQUEST if streams else NO_ROUTE, why)
        if not method.policy.queue_when_away:
            raise invalid("method", "is never kept: its `away` is `reject`")
        return service, method


class _Keeping:
    """Has the calls of one request kept."""

    def __init__(self, call_services: CallServices, request: web.BaseRequest) -> None:
        self._call_services = call_services
        self._request = request
        self._identity = identity_of(request)
        self._quota = keeping.quota_of(self._identity)
        #: What the request's headers ask for, by method, and what goes on of them, by service: read once for all calls.
        self._preferences: dict[str, Preferences | Problem] = {}
        self._metadata: dict[str, str | Problem] = {}
        #: How many of those under way did not reach the middleware; and whether none of those before did.
        self._unreached = 0
        self._hopeless = False

    async def run(self, calls: Sequence[_Asked | bytes]) -> list[bytes]:
        """Have them kept; returns the result of each. That of one that can't be kept is there already."""
        results: list[bytes] = []
        for first in range(0, len(calls), _AT_ONCE):
            results += await self._keep(calls[first : first + _AT_ONCE])
        return results

    async def _keep(self, calls: Sequence[_Asked | bytes]) -> list[bytes]:
        """Have some kept, all at once."""
        slices, results = Slices(), list[bytes | asyncio.Task[bytes]]()
        self._unreached = 0
        async with asyncio.TaskGroup() as group:
            for call in calls:
                results.append(call if isinstance(call, bytes) else self._begin(call, group))
                await slices.pause()
        if sent := sum(not isinstance(one, bytes) for one in results):
            self._hopeless = self._unreached == sent
        return [one if isinstance(one, bytes) else one.result() for one in results]

    def _begin(self, call: _Asked, group: asyncio.TaskGroup) -> bytes | asyncio.Task[bytes]:
        """Send a call to the middleware; returns what ends with its result, or that if it can't be kept."""
        new = self._new(call)
        return _counted(call, new) if isinstance(new, Problem) else group.create_task(self._sent(call, *new))

    def _new(self, call: _Asked) -> tuple[TaskId, pb.NewTask] | Problem:
        """Return a call as it is sent, or why it can't be kept."""
        service, method = call.service, call.method
        if self._hopeless:
            # It would wait for as long as those before it did.
            return keeping.not_now(Acceptance.NOT_ACCEPTED)
        if not service.queueable:
            return keeping.not_now(Acceptance.NO_CONSUMER)
        prefer = _once(self._preferences, method.path, lambda: self._read_preferences(method))
        if isinstance(prefer, Problem):
            return prefer
        metadata = _once(self._metadata, service.name, lambda: self._read_metadata(service))
        if isinstance(metadata, Problem):
            return metadata
        if call.key or call.not_before_ms:
            not_before_ms = call.not_before_ms or prefer.not_before_ms
            prefer = dataclasses.replace(prefer, idempotency_key=call.key, not_before_ms=not_before_ms)
        task_id = keeping.mint(self._call_services.ids, method, prefer, self._identity)
        new = keeping.new_task(method, task_id, call.request, prefer)
        new.request_id, new.request_digest, new.metadata = request_id(), call.digest, metadata
        return task_id, new

    def _read_preferences(self, method: Method) -> Preferences:
        # Whether a call must have a key was judged when it was read: it has none in a header.
        policy = dataclasses.replace(method.policy, requires_idempotency_key=False)
        urls = self._call_services.callback_urls
        prefer = preferences.read(self._request.headers, policy, max_wait_seconds=0, callback_urls=urls)
        keeping.check_time(NOT_BEFORE, prefer.not_before_ms, self._identity)
        return prefer

    def _read_metadata(self, service: Service) -> str:
        names, guarded = service.policy.headers, self._call_services.guarded
        metadata = forwarded_headers.forwarded(names.request, guarded=guarded).read(self._request)
        if guarded:
            metadata = self._identity.metadata + metadata
        return forwarded_headers.kept(self._request, metadata, names.kept) if metadata else ""

    async def _sent(self, call: _Asked, task_id: TaskId, new: pb.NewTask) -> bytes:
        """Send a call, and return its result."""
        ids, method = self._call_services.ids, call.method
        said = await self._call_services.enqueuer.enqueue(new, method.schema, self._quota)
        self._unreached += said in _NOT_REACHED
        try:
            if isinstance(said, Known):
                first = keyed.first_id(ids, call.service.name, said)
                task = {"id": first.text, "service": method.service, "method": method.name}
                return _counted(call, {"task": task, "replayed": True})
        except Problem as problem:
            return _counted(call, problem)
        if said is not Acceptance.ACCEPTED:
            return _counted(call, keeping.refusal(said, task_id, ids))
        return _counted(call, {"task": task_view.to_accepted(task_id, method, not_before_ms=new.not_before_ms)})


def _once(known: dict[str, T | Problem], name: str, read: Callable[[], T]) -> T | Problem:
    """Return what was read under a name, or why that can't be; it is read the first time."""
    if name not in known:
        try:
            known[name] = read()
        except Problem as problem:
            known[name] = problem.with_traceback(None)
    return known[name]


def _counted(call: _Asked, result: dict[str, Any] | Problem) -> bytes:
    """Return a call's result as JSON; what became of it is counted."""
    outcome = result.kind.outcome if isinstance(result, Problem) else "QUEUED"
    metrics.calls_total.add((call.service.name, call.method.name, "queued", outcome))
    return _refused(result) if isinstance(result, Problem) else protojson.dumps(result)


def _refused(problem: Problem) -> bytes:
    """Return the result of a call that is not kept, or of which that is unknown: `location` is to be read then."""
    place = problem.headers.get("Location")
    return protojson.dumps({"error": problem.to_value(PATH), **({"location": place} if place else {})})


def _key(value: dict[str, Any], method: Method) -> str:
    """Return a call's idempotency key; empty if it has none.

    Raises:
        Problem: It is wrong, or its method demands one.
    """
    key = value.get(_KEY)
    if _KEY in value and not (isinstance(key, str) and idempotency.is_key(key)):
        raise invalid(_KEY, f"must be {idempotency.FORM}")
    if key is None and method.policy.requires_idempotency_key:
        raise invalid(_KEY, idempotency.REQUIRED)
    return key or ""


def _not_before(value: dict[str, Any]) -> int:
    """Return the time before which a call does not run, in milliseconds since the epoch; 0 if it says none.

    Raises:
        Problem: It is wrong.
    """
    if _NOT_BEFORE not in value:
        return 0
    instant_ms = not_before.parse(value[_NOT_BEFORE])
    if instant_ms is None:
        raise invalid(_NOT_BEFORE, not_before.FORM)
    return instant_ms


def _reserve_room(request: web.BaseRequest, calls: Sequence[_Asked | bytes]) -> None:
    """Reserve room for the answer: once calls are kept it is too late to say that there is none.

    Raises:
        Problem: There is none.
    """
    if not room_for(request, sum(len(call) if isinstance(call, bytes) else _RESULT_BYTES for call in calls)):
        detail = "There is no room for the answer while so many are not taken. Nothing was accepted."
        raise Problem(GATEWAY_BUSY, detail, headers=RETRY_AFTER)


def _answer(results: list[bytes], *, as_lines: bool) -> Response:
    if as_lines:
        results.append(b"")
        return Response(b"\n".join(results), headers={"Content-Type": NDJSON.media_type, **NO_STORE})
    return Response(b'{"results":[%b]}' % b",".join(results), headers={"Content-Type": JSON, **NO_STORE})


def _check_headers(request: web.BaseRequest) -> None:
    """Check what the headers say of all calls.

    Raises:
        Problem: They ask for what can't be.
    """
    if IDEMPOTENCY_KEY in request.headers:
        raise invalid(IDEMPOTENCY_KEY, "names one call: give each its own `idempotencyKey`")
    if preferences.forbids_queue(request.headers):
        raise invalid(PREFER, "can't be honoured: the calls of a batch are kept, and `no-queue` forbids it")


def _is_lines(request: web.BaseRequest) -> bool:
    """Return whether the body is a line for each call.

    Raises:
        Problem: It is neither that nor JSON.
    """
    media_type = request.content_type
    if media_type not in (JSON, NDJSON.media_type):
        raise Problem(NOT_JSON, f"The header Content-Type must be {JSON} or {NDJSON.media_type}.")
    return media_type != JSON


def _elements(body: bytes) -> list[Any]:
    """Return the calls of a JSON array.

    Raises:
        Problem: It is none, or has too many.
    """
    try:
        values = protojson.loads(body)
    except protojson.FieldErrors as error:
        raise Problem(INVALID_REQUEST, str(error)) from error
    if not isinstance(values, list):
        raise Problem(INVALID_REQUEST, "The body must be a JSON array of calls.")
    _check_count(len(values))
    return values


def _lines(body: bytes) -> list[bytes]:
    """Return the calls, each a line of JSON; empty lines are passed over.

    Raises:
        Problem: There are too many.
    """
    # No list of them before they are counted: a body may be made of line ends.
    _check_count(body.count(b"\n"))
    return [line for line in body.split(b"\n") if line.strip()]


def _check_count(count: int) -> None:
    if count > MOST_CALLS:
        raise Problem(INVALID_REQUEST, f"A request may have {MOST_CALLS} calls. Nothing was accepted.")
