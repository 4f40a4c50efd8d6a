"""REST: JSON, at the routes that annotations name and at each method's own path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from aiohttp import hdrs, web

from poste import protojson
from poste.rpc.catalogue import Service
from poste_gateway.calls import query, shapes
from poste_gateway.calls.protocols.protocol import Protocol
from poste_gateway.calls.shapes import Written
from poste_gateway.catalogue.route_table import Match
from poste_gateway.http import forwarded_headers, framings
from poste_gateway.http.framings import Framing
from poste_gateway.http.problem_types import NOT_JSON
from poste_gateway.http.problems import Problem, problem_response
from poste_gateway.http.responses import JSON, Response, json_response

_UTF8: Final = ("utf-8", "utf8")
#: The content coding that is none (RFC 9110, section 12.5.3).
_PLAIN: Final = "identity"
_DESCRIBED: Final = {"Content-Type": JSON}


class _Rest(Protocol):
    name = "rest"
    own_names = False
    deadline_ends_calls = False

    def reader(self, request: web.BaseRequest, match: Match) -> Callable[[bytes], bytes]:
        shape, parameters = shapes.shape_of(match.method, match.route), query.read(match.query)
        if shape.raw_body:
            check_coding(request)
        elif match.route.body:
            check_type(request)
        media_type = request.headers.get(hdrs.CONTENT_TYPE, "")

        def compose(body: bytes) -> bytes:
            said = protojson.Raw(media_type, body) if shape.raw_body else body
            return shape.composer.compose(said, match.captured, parameters)

        return compose

    def answer(
        self, match: Match, service: Service, response: bytes, returned: str, applied: Mapping[str, str]
    ) -> Response:
        if match.route.plain:
            body, described = protojson.encode(match.method.output, response), _DESCRIBED
        else:
            body, described = shapes.write(match.method, match.route, response)
        if returned:
            described = {**self.returned_headers(returned, service), **described}
        return Response(body, headers={**described, **applied})

    def kept(self, task: Any, headers: dict[str, str]) -> Response:
        return json_response(task, status=202, headers=headers)

    def refusal(self, problem: Problem, instance: str) -> Response:
        return problem_response(problem, instance)

    def returned_headers(self, returned: str, service: Service) -> dict[str, str]:
        return forwarded_headers.returned(returned, service.policy.headers.response)

    def framing(self, match: Match, accept: str) -> Framing:
        if not match.route.plain and shapes.shape_of(match.method, match.route).raw_answer:
            return framings.RAW
        return framings.chosen(accept)

    def message(self, match: Match, message: bytes) -> Written:
        if match.route.plain:
            return Written(protojson.encode(match.method.output, message), {})
        body, headers = shapes.write(match.method, match.route, message)
        return Written(body, headers if shapes.shape_of(match.method, match.route).raw_answer else {})


REST: Final = _Rest()


def check_type(request: web.BaseRequest) -> None:
    """Check that a body, if there is one, is JSON.

    Raises:
        Problem: It is not.
    """
    headers = request.headers
    if headers.get(hdrs.CONTENT_TYPE) == JSON and hdrs.CONTENT_ENCODING not in headers:
        return
    if not request.body_exists:
        # Without bytes the Content-Type does not matter.
        return
    if request.content_type != JSON:
        raise Problem(NOT_JSON, "The header Content-Type must be application/json.")
    if (request.charset or _UTF8[0]).lower() not in _UTF8:
        raise Problem(NOT_JSON, "The charset must be utf-8.")
    check_coding(request)


def check_coding(request: web.BaseRequest) -> None:
    """Check that a body is not compressed.

    Raises:
        Problem: It is.
    """
    if request.headers.get(hdrs.CONTENT_ENCODING, _PLAIN).lower() != _PLAIN:
        raise Problem(NOT_JSON, "The body must not be compressed.")
