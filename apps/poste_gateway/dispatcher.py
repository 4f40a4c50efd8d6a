"""The dispatcher: takes every request to its handler, and answers it whatever the handler raises.

It gives each request its id, and writes one line for it to the access log.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import secrets
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import HttpVersion11, hdrs, web

from poste.domain import input_rules, traceparents
from poste.domain.codes import Code
from poste.rpc.http_rules.rules import is_reserved
from poste.rpc.http_rules.templates import BadPathError
from poste.runtime import logs, metrics, tracing
from poste_gateway.access import audit
from poste_gateway.access.audit import AuditLog
from poste_gateway.access.doors import DOORS
from poste_gateway.access.identity import OPERATING, Identity, Role, identity_of
from poste_gateway.calls import call, protocols
from poste_gateway.calls.call import CallServices
from poste_gateway.http import cors, door, session_cookie
from poste_gateway.http.door import Door
from poste_gateway.http.hosts import Hosts
from poste_gateway.http.probes import PROBES
from poste_gateway.http.problem_types import INTERNAL, INVALID_REQUEST, NO_ROUTE, OF_CODE
from poste_gateway.http.problems import Problem, defect
from poste_gateway.http.responses import AccessRecord, Response
from poste_gateway.http.streamed import Streamed
from poste_gateway.http.verbs import allow, wrong_verb
from poste_gateway.own_routes import Found, OwnRoutes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextvars import Token

    from poste.runtime.spans import Span
    from poste_gateway.catalogue.route_table import Match

_log: Final = logs.get("dispatcher")
#: What the access log says of a request whose client had gone before its answer.
_CLIENT_LEFT: Final = OF_CODE[Code.CANCELLED].status
_access_log: Final = logs.EventLog("dispatcher", "request")


async def _handle_expect(expectation: str, request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue`, so that the client sends its body; other expectations are ignored.

    A body that is larger than may be is not asked for: its client is refused at once.
    """
    too_large = (request.content_length or 0) > request.client_max_size
    if expectation.lower() == "100-continue" and request.version == HttpVersion11 and not too_large:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class _Other(NamedTuple):
    """What is at a path that no service has as it is.

    Attributes:
        match: A service's route, if a template of one matches.
        own: What is ours.
        verbs: What the path takes; None if nothing is there.
        fault: What is wrong with the path, if it can't be decoded.
    """

    match: Match | None = None
    own: Found | None = None
    verbs: Iterable[str] | None = None
    fault: str | None = None


class Dispatcher:
    """Answers HTTP requests."""

    def __init__(
        self,
        call_services: CallServices,
        own_routes: OwnRoutes,
        *,
        door: Door,
        hosts: Hosts | None,
        audit: AuditLog,
        cors_origins: tuple[str, ...],
        draining: asyncio.Event,
    ) -> None:
        self._call_services = call_services
        self._own_routes = own_routes
        self._door, self._guarded, self._audit = door, door.closed, audit
        self._hosts, self._cors_origins = hosts, cors_origins
        self._draining = draining
        #: Request ids: what is random is drawn once, for each draw is a system call.
        self._prefix = f"{secrets.token_hex(5)}-"
        self._numbers = itertools.count(1)

    async def handle(self, request: web.BaseRequest) -> Response:
        """Answer one request, whatever happens behind it.

        Raises:
            ConnectionError: The client is gone before its body came.
        """
        begin = time.perf_counter()
        headers = request.headers
        if (expectation := headers.get(hdrs.EXPECT)) is not None:
            await _handle_expect(expectation, request)
        given = headers.get(cors.REQUEST_ID)
        account = AccessRecord(given if given and input_rules.is_request_id(given) else self._new_id())
        path = request.raw_path
        match, other = self._call_services.catalogue.routes.get(request.method, path), None
        if match is None:
            path = request.rel_url.path_safe
            other = self._find_other(request, path)
            match = other.match
        span = None if tracing.off() and traceparents.HEADER not in headers else _start_trace(request, path, account)
        # For whatever else is logged on its way, and until the connection's next request: they share one context.
        logs.names.set(account.names)
        traced = tracing.trace_id.set(account.trace_id) if account.trace_id else None
        try:
            if self._hosts is not None:
                self._hosts.check(request)
            if match is None:
                answer = await self._serve_own(request, other or _Other(), account)
            else:
                # Most requests are these, so they are tried first; no service can register a path of the gateway's.
                if self._guarded:
                    role = Role.CALL
                    identity = self._door.enter(request, role) or await self._door.enter_late(request, role)
                    _admit(identity, match, account)
                self._own_routes.check_ready()
                answer = await call.answer(request, match, self._call_services, account)
        except Problem as problem:
            answer = self._refuse(problem, request, match, account)
        except Exception:  # noqa: BLE001 - the edge: logged once, and answered without details
            _log.exception("failed", verb=request.method, path=path)
            answer = self._refuse(defect(), request, match, account)
        answer.headers[cors.REQUEST_ID] = account.request_id
        if self._cors_origins or self._guarded or match is None:
            self._add_headers(answer, request, (other.verbs if other else None) or ())
        # Of one that stops the connection is closed soon; a request that the client sends then would be lost.
        answer.keep_alive = answer.keep_alive and not self._draining.is_set()
        if answer.body is None and isinstance(answer, Streamed):
            # What became of it is known once it has ended; that is in this same context.
            # (Not a closure: its variables would be slower ones for every request.)
            answer.ended = functools.partial(
                self._close_account, request.method, path, answer.status, account, begin, span, traced
            )
        else:
            status = answer.status if request.transport is not None else _CLIENT_LEFT
            self._close_account(request.method, path, status, account, begin, span, traced)
        return answer

    def _add_headers(self, answer: Response, request: web.BaseRequest, verbs: Iterable[str]) -> None:
        if self._guarded and (bucket := identity_of(request).bucket) is not None:
            answer.headers.update(bucket.headers())
        if session_cookie.believed(request):
            answer.headers["Cache-Control"] = ", ".join(filter(None, ("private", answer.headers.get("Cache-Control"))))
        if self._cors_origins:
            cors.add_headers(answer, request, self._cors_origins, verbs)

    def _new_id(self) -> str:
        return f"{self._prefix}{next(self._numbers)}"

    def _find_other(self, request: web.BaseRequest, path: str) -> _Other:
        """Find what is at a path that is no literal route: one of the gateway's own, or a template's; and its verbs."""
        own = self._own_routes.find(path)
        if own is not None or is_reserved(path):
            return _Other(own=own, verbs=None if own is None else own.verbs)
        routes, raw_path = self._call_services.catalogue.routes, request.rel_url.raw_path
        try:
            # A CORS preflight is answered by the gateway, never by a service.
            asks = self._cors_origins and request.method == hdrs.METH_OPTIONS and cors.ASKED_VERB in request.headers
            reading = protocols.find_get(routes, request, path)
            if reading is not None and request.method in protocols.GETS:
                return _Other(match=reading)
            if not asks and (match := routes.find(request.method, path, raw_path, request.rel_url.raw_query_string)):
                return _Other(match=match)
        except BadPathError as error:
            return _Other(fault=f"The path {error}.")
        verbs = routes.verbs(path, raw_path)
        return _Other(verbs=verbs if reading is None or verbs is None else [hdrs.METH_GET, *verbs])

    async def _serve_own(self, request: web.BaseRequest, other: _Other, account: AccessRecord) -> Response:
        own, verbs = other.own, other.verbs
        self._door.forget(request)
        if own is not None:
            account.route = own.route
        if other.fault is not None:
            raise Problem(INVALID_REQUEST, other.fault)
        if request.method == hdrs.METH_OPTIONS and verbs is not None:
            return Response(status=204, headers={"Allow": allow(verbs)})
        if own is None:
            # What there is not, is told to those alone who may know what there is.
            await self._enter(request, Role.READ)
            self._own_routes.check_ready()
            raise Problem(NO_ROUTE, "There is nothing at this path.") if verbs is None else wrong_verb(verbs)
        verb = hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method
        handler = own.verbs.get(verb)
        if handler is None:
            raise wrong_verb(own.verbs)
        role = DOORS[own.route][verb]
        name = "" if role is None else (await self._enter(request, role)).name
        if name:
            account.note("key", name)
        if role in OPERATING:
            audit.operates(request, name)
        outcome = INTERNAL.name
        try:
            answer = await handler(request, own.name)
            outcome = Code.OK.name
        except Problem as problem:
            outcome = problem.kind.outcome
            raise
        finally:
            # That it is an operator's may have turned out meanwhile, by whose the task is.
            if (who := audit.operator_of(request)) is not None:
                done = {"who": who, "from": request.remote or "", "what": f"{request.method} {request.rel_url}"}
                await self._audit.write(**done, outcome=outcome, request_id=account.request_id)
        return answer

    async def _enter(self, request: web.BaseRequest, role: Role) -> Identity:
        """Let a request to one of the gateway's own routes in; raises as `Door.enter` does."""
        return self._door.enter(request, role) or await self._door.enter_late(request, role)

    def _refuse(
        self, problem: Problem, request: web.BaseRequest, match: Match | None, account: AccessRecord
    ) -> Response:
        account.outcome = problem.kind.outcome
        # Encoded: `instance` is a URI reference (RFC 9457, section 3.1.5), which not every decoded path is.
        path = request.rel_url.raw_path
        if match is not None:
            return protocols.of(request, match.route).refusal(problem, path)
        # A client of another protocol understands that there is no such method, too.
        protocol = protocols.REST if is_reserved(path) else protocols.spoken(request)
        return protocol.refusal(problem, path)

    def _close_account(  # noqa: PLR0917 - keywords would make this one of a call's dearest lines
        self,
        verb: str,
        path: str,
        status: int,
        account: AccessRecord,
        begin: float,
        span: Span | None,
        traced: Token[str] | None,
    ) -> None:
        """Write the one line of a request, count it, and end its part of its trace."""
        seconds = time.perf_counter() - begin
        self._write_access_log(verb, path, status, account, seconds)
        if span is not None:
            _end_span(span, status, account)
        if traced is not None:
            tracing.trace_id.reset(traced)

    def _write_access_log(self, verb: str, path: str, status: int, account: AccessRecord, seconds: float) -> None:
        """Write the one line of a request, and count it; probes are neither written nor counted."""
        service, method, road, outcome = account.service, account.method, account.road, account.outcome
        facts = {
            "request_id": account.request_id,
            "verb": verb,
            "path": path,
            "status": status,
            "outcome": outcome,
            "seconds": int(seconds * 1e6) / 1e6,
        }
        if service:
            metrics.calls_total.add((service, method, road, outcome))
            metrics.call_seconds.observe((service, method, road), seconds)
            facts["service"], facts["method"], facts["road"] = service, method, road
        elif path in PROBES:
            return
        else:
            metrics.requests_total.add((account.route, outcome))
        if account.trace_id:
            facts["trace_id"] = account.trace_id
        if account.facts:
            facts.update(account.facts)
        _access_log.write(facts)


def _admit(identity: Identity, match: Match, account: AccessRecord) -> None:
    """Note whose a call is.

    Raises:
        Problem: It is not for that client.
    """
    if identity.name:
        account.note("key", identity.name)
    door.check_call(identity, match.method.service, match.method.name)


def _start_trace(request: web.BaseRequest, path: str, account: AccessRecord) -> Span | None:
    """Find a request's place in its trace; returns its span if it is recorded."""
    span, traceparent = None, ""
    if (header := request.headers.get(traceparents.HEADER)) is not None:
        traceparent = traceparents.read(header)
    if not traceparent and tracing.sampled_out():
        account.traceparent = traceparents.UNRECORDED
        return None
    if tracing.wanted(traceparent) and path not in PROBES:
        # A verb that is none of HTTP's is a client's own word.
        name = request.method if request.method in hdrs.METH_ALL else "HTTP"
        span = tracing.begin(name, "server", parent=traceparent)
        traceparent = span.traceparent
    if traceparent:
        account.traceparent, account.trace_id = traceparent, traceparents.trace_id(traceparent)
    return span


def _end_span(span: Span, status: int, account: AccessRecord) -> None:
    span.end(
        # One for each method there is, never a path that a client made up.
        name=f"{account.service}/{account.method}" if account.service else "",
        failed=status >= INTERNAL.status,
        http__response__status_code=status,
        poste__request_id=account.request_id,
        poste__road=account.road,
        poste__outcome=account.outcome,
    )
