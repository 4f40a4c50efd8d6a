"""Many calls in one request, each of which is kept: `POST /v1/tasks:batch`.

The body is a JSON array, or a line of JSON for each call (`application/x-ndjson`)::

    [{"method": "calculator.v1.SumService/Add", "request": {"a": 2, "b": 3}}, …]

An `idempotencyKey` names a call for good, as the header does for one. The answer has a result for each call, in their
order, in the same form: the task of one that is on disk, or the problem of one that is not::

    {"results": [{"task": {"id": "…", "state": "QUEUED", …}}, {"error": {"type": "/problems/queue-full", …}}]}

No call waits for its service, be it up or away. One that is wrong or refused holds up no other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from poste import protojson
from poste.domain import sizes
from poste.protojson.errors import quotable
from poste.rpc.catalogue import Method, Service
from poste.runtime import metrics
from poste_gateway.calls import keeping, keyed, request_body
from poste_gateway.calls.call import CallServices
from poste_gateway.calls.enqueuer import Acceptance, Known
from poste_gateway.calls.offload import LARGE_BODY
from poste_gateway.http import forwarded_headers, idempotency, preferences
from poste_gateway.http.callback_urls import CallbackUrls
from poste_gateway.http.framings import NDJSON
from poste_gateway.http.idempotency import IDEMPOTENCY_KEY
from poste_gateway.http.preferences import Preferences
from poste_gateway.http.problem_types import INVALID_REQUEST, NO_ROUTE, NOT_ACCEPTED, NOT_JSON, SERVICE_AWAY, TOO_LARGE
from poste_gateway.http.problems import RETRY_AFTER, Problem, invalid
from poste_gateway.http.responses import JSON, NO_STORE, Response
from poste_gateway.limits.clients import client_of
from poste_gateway.mom import request_id
from poste_gateway.tasks import task_view

PATH: Final = "/v1/tasks:batch"
#: How many calls a request may have.
MOST_CALLS: Final = 10_000
#: How many are under way at once: a few messages to the middleware, between which other clients' calls have their turn.
_AT_ONCE: Final = 512
_MEMBERS: Final = frozenset({"method", "request", "idempotencyKey"})


@dataclass(slots=True)
class _Asked:
    """One call as it was read: its method, the serialized request, and its idempotency key, if it has one."""

    service: Service
    method: Method
    request: bytes
    key: str


class Batches:
    """Handles requests with many calls."""

    def __init__(self, call_services: CallServices) -> None:
        self._call_services = call_services

    async def handle(self, request: web.BaseRequest) -> Response:
        """Have each call kept, and answer for each.

        Raises:
            Problem: The request as a whole is wrong, or nothing can be kept now; nothing was accepted.
        """
        services = self._call_services
        if not services.catalogue.key_agreed:
            raise Problem(NOT_ACCEPTED, "Nothing was accepted: the middleware is away.", headers=RETRY_AFTER)
        if IDEMPOTENCY_KEY in request.headers:
            raise invalid(IDEMPOTENCY_KEY, "names one call: give each its own `idempotencyKey`")
        as_lines = _is_lines(request)
        body = await request_body.read_whole(request, seconds=services.body_seconds)
        asked = await self._read(request, body, as_lines=as_lines)
        del body
        results: list[bytes] = []
        hopeless: Problem | None = None
        for first in range(0, len(asked), _AT_ONCE):
            some = asked[first : first + _AT_ONCE]
            if hopeless is not None:
                results += (_refused(one if isinstance(one, Problem) else hopeless) for one in some)
                continue
            said = await asyncio.gather(*(self._keep(request, one) for one in some))
            results += (_refused(one) if isinstance(one, Problem) else protojson.dumps(one) for one in said)
            if all(isinstance(one, Problem) and one.kind is NOT_ACCEPTED for one in said):
                # The middleware, or its store, is away: each of the others would wait for as long as these did.
                hopeless = said[0] if isinstance(said[0], Problem) else None
        if as_lines:
            body = b"".join(one + b"\n" for one in results)
            return Response(body, headers={"Content-Type": NDJSON.media_type, **NO_STORE})
        return Response(b'{"results":[' + b",".join(results) + b"]}", headers={"Content-Type": JSON, **NO_STORE})

    async def _read(self, request: web.BaseRequest, body: bytes, *, as_lines: bool) -> list[_Asked | Problem]:
        """Read the calls, in a thread if they are large."""

        def read() -> list[_Asked | Problem]:
            return [self._read_one(value) for value in (_lines(body) if as_lines else _elements(body))]

        if len(body) <= LARGE_BODY:
            return read()
        return await self._call_services.offload.run(read, peer=client_of(request), size=len(body))

    def _read_one(self, value: Any) -> _Asked | Problem:
        try:
            return self._asked(protojson.loads(value) if isinstance(value, bytes) else value)
        except protojson.FieldErrors as error:
            errors = [{"field": field, "reason": reason} for field, reason in error.errors]
            return Problem(INVALID_REQUEST, str(error), errors=errors)
        except Problem as problem:
            return problem

    def _asked(self, value: Any) -> _Asked:
        """Read one call.

        Raises:
            Problem, FieldErrors: It is none that can be kept.
        """
        if not isinstance(value, dict):
            raise Problem(INVALID_REQUEST, "A call must be an object with `method` and `request`.")
        for name in value.keys() - _MEMBERS:
            raise invalid(quotable(name), "is no member of a call: it has `method`, `request` and `idempotencyKey`")
        named, key = value.get("method"), value.get("idempotencyKey", "")
        if not isinstance(named, str) or not isinstance(key, str):
            raise invalid("idempotencyKey" if isinstance(named, str) else "method", "must be a text")
        of, _, short = named.removeprefix("/").partition("/")
        service = self._call_services.catalogue.services.get(of)
        method = service.methods.get(short) if service is not None else None
        if service is None or method is None:
            streams = service is not None and short in service.streams
            why = "It has a stream of messages, and is never kept." if streams else "There is no such method."
            raise Problem(INVALID_REQUEST if streams else NO_ROUTE, why)
        if not method.policy.queue_when_away:
            raise invalid("method", "is never kept: its `away` is `reject`")
        request = protojson.decode_value(method.input, [value.get("request", {})])
        if len(request) > sizes.MAX_PAYLOAD:
            raise Problem(TOO_LARGE, f"A call may have {sizes.MAX_PAYLOAD} bytes as a protobuf message.")
        return _Asked(service, method, request, key)

    async def _keep(self, request: web.BaseRequest, one: _Asked | Problem) -> dict[str, Any] | Problem:
        """Have one call kept; returns its result, or why it is not kept."""
        if isinstance(one, Problem):
            return one
        result: dict[str, Any] | Problem
        try:
            result, outcome = await self._kept(request, one), "QUEUED"
        except Problem as problem:
            result, outcome = problem, problem.kind.outcome
        metrics.calls_total.add((one.service.name, one.method.name, "queued", outcome))
        return result

    async def _kept(self, request: web.BaseRequest, one: _Asked) -> dict[str, Any]:
        """Have one call kept; returns its result.

        Raises:
            Problem: It is not, or that is unknown.
        """
        services, method = self._call_services, one.method
        if not one.service.queueable:
            raise Problem(SERVICE_AWAY, keeping.NO_CONSUMER, headers=RETRY_AFTER)
        prefer = _preferences(request.headers, one, services.callback_urls)
        task_id = keeping.mint(services.ids, method, prefer)
        new = keeping.new_task(method, task_id, one.request, prefer)
        new.request_id = request_id()
        if prefer.idempotency_key:
            new.request_digest = keyed.digest(method.input, one.request)
        names = one.service.policy.headers
        if metadata := forwarded_headers.forwarded(names.request).read(request):
            new.metadata = forwarded_headers.kept(request, metadata, names.kept)
        said = await services.enqueuer.enqueue(new, method.schema)
        if isinstance(said, Known):
            first = keyed.first_id(services.ids, one.service.name, said)
            return {"task": {"id": first.text, "service": method.service, "method": method.name}, "replayed": True}
        if said is not Acceptance.ACCEPTED:
            raise keeping.refusal(said, task_id, services.ids)
        return {"task": task_view.to_accepted(task_id, method)}


def _refused(problem: Problem) -> bytes:
    """Return the result of a call that is not kept, or of which that is unknown: `location` is to be read then."""
    place = problem.headers.get("Location")
    return protojson.dumps({"error": problem.to_value(PATH), **({"location": place} if place else {})})


def _preferences(headers: CIMultiDictProxy[str], one: _Asked, callback_urls: CallbackUrls) -> Preferences:
    """Read what the request's headers ask for, of one of its calls.

    Raises:
        Problem: A header has a value that it can't have for this call, or its method demands an idempotency key.
    """
    if one.key:
        with_key = CIMultiDict(headers)
        with_key[IDEMPOTENCY_KEY] = idempotency.spelt(one.key)
        headers = CIMultiDictProxy(with_key)
    return preferences.read(headers, one.method.policy, max_wait_seconds=0, callback_urls=callback_urls)


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
