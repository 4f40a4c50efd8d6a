"""From a method's annotation to its routes, and to what it asks for and is not served.

A rule that can't be served as it is meant costs its one route, never the service: by its default route a method is
called all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import MethodDescriptor

from poste.rpc.http_rules import fields, templates
from poste.rpc.http_rules.fields import HTTP_BODY, BadFieldError
from poste.rpc.http_rules.templates import BadTemplateError, Template

#: Paths that are Poste's own, with everything below them.
RESERVED_PATHS: Final = (
    "/v1/tasks",
    "/v1/queues",
    "/v1/services",
    "/problems",
    "/openapi.json",
    "/docs",
    "/ui",
    "/livez",
    "/readyz",
    "/metrics",
)
_RESERVED: Final = re.compile(rf"/|(?:{'|'.join(map(re.escape, RESERVED_PATHS))})(?:[/:].*)?", re.DOTALL)
#: The body, or the response, that is the whole message; and the verb of HTTP that stands for each.
WHOLE: Final = "*"
ANY_VERB: Final = "*"
#: The verbs that are listed for a route of any verb.
USUAL_VERBS: Final = ("GET", "PUT", "POST", "DELETE", "PATCH")
#: The verb of the routes that methods have without an annotation.
DEFAULT_VERB: Final = "POST"
#: How many further bindings a method may have.
_MAX_BINDINGS: Final = 100
#: The form of the default route of a service in a package.
_DEFAULT_ROUTE: Final = re.compile(r"/[a-z_]\w*(\.[a-z_]\w*)+/[a-z_]\w*", re.ASCII | re.IGNORECASE)
#: What HTTP takes for a verb (RFC 9110, section 9.1), as they are: in capitals.
_VERB: Final = re.compile(r"[A-Z][A-Z-]*")
#: Verbs of requests whose content means nothing (RFC 9110, section 9.3), and which are for reading only.
READING: Final = ("GET", "HEAD", "TRACE")
#: It makes a tunnel, and names no path.
_CONNECT: Final = "CONNECT"

#: What distinguishes a route from all others: its verb, and the paths that it matches.
Claim: TypeAlias = tuple[str, tuple[str | tuple[str], ...], str]


@dataclass(frozen=True, slots=True)
class Route:
    """One way to call a method by HTTP.

    Attributes:
        verb: The HTTP method, in capitals; `ANY_VERB` for each that no other route takes.
        path: The path's template, as its annotation has it.
        body: The path of the field that the body is; `WHOLE` for the message itself, empty if there is no body.
        response_field: The field of the response that is answered with; empty for all of it.
        default: It is the one that every method has.
        plain: Request and answer are whole messages in JSON, and the body says all of the request.
        safe: Its verb is one that clients take for reading only (RFC 9110, section 9.2.1).
        template: Its path, read.
    """

    verb: str
    path: str
    body: str = WHOLE
    response_field: str = ""
    default: bool = False
    plain: bool = True
    safe: bool = False
    template: Template = field(default_factory=lambda: Template((), "", ()), compare=False, repr=False)

    @property
    def claim(self) -> Claim:
        """What no two routes may have in common: which one a call reaches must not be chance."""
        return self.verb, self.template.segments, self.template.verb


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A route that an annotation asks for, and that is not served.

    Attributes:
        verb: The HTTP method.
        path: The path.
        reason: Why not.
    """

    verb: str
    path: str
    reason: str


def default_route(service: str, method: str) -> Route:
    """Return the route that every method has: a POST of its whole request to its gRPC path."""
    path = f"/{service}/{method}"
    segments: tuple[tuple[str], ...] = ((service,), (method,))
    return Route(DEFAULT_VERB, path, default=True, template=Template(segments, "", ()))


def routes_of(method: MethodDescriptor, service: str) -> tuple[list[Route], list[PassedOver]]:
    """Return the routes of a method, the default one first, and those that are not served.

    Args:
        method: What its proto says of it.
        service: The full name of its service.
    """
    default = default_route(service, method.name)
    routes: dict[Route, None] = {default: None}
    passed_over: dict[PassedOver, None] = {}
    for number, rule in enumerate(_rules(method.GetOptions().Extensions[annotations_pb2.http])):
        verb, path = _pattern(rule)
        if (verb, path, rule.body, rule.response_body) == (default.verb, default.path, WHOLE, ""):
            # It says what holds anyway.
            continue
        if number >= _MAX_BINDINGS:
            passed_over[PassedOver(verb, path, f"a method may have {_MAX_BINDINGS} routes besides its default one")] = (
                None
            )
            continue
        try:
            routes[_route(rule, verb, path, method)] = None
        except (_NotServedError, BadTemplateError, BadFieldError) as error:
            passed_over[PassedOver(verb, path, str(error))] = None
    return list(routes), list(passed_over)


def is_reserved(path: str) -> bool:
    """Return whether a path is Poste's own."""
    return _RESERVED.fullmatch(path) is not None


class _NotServedError(Exception):
    """A rule is not served; the text says why."""


def _route(rule: http_pb2.HttpRule, verb: str, path: str, method: MethodDescriptor) -> Route:
    """Read a rule.

    Raises:
        _NotServedError: It is not served.
        BadTemplateError: Its path is no template.
        BadFieldError: It names a field that can't be what it is to be.
    """
    if not (verb == ANY_VERB or _VERB.fullmatch(verb)) or verb == _CONNECT:
        raise _NotServedError(f"{verb!r} is no verb that a route can have")
    template = templates.parse(path)
    _refuse_foreign(verb, template)
    for variable in template.variables:
        fields.check_captured(method.input_type, variable.field)
    _check_body(rule.body, verb, template, method)
    if rule.response_body and rule.response_body not in method.output_type.fields_by_name:
        raise _NotServedError(f"{method.output_type.full_name} has no field {rule.response_body} (response_body)")
    if rule.additional_bindings and any(more.additional_bindings for more in rule.additional_bindings):
        raise _NotServedError("additional_bindings may not have additional_bindings themselves")
    raw = HTTP_BODY in (method.input_type.full_name, method.output_type.full_name)
    plain = rule.body == WHOLE and not (raw or rule.response_body or template.variables)
    return Route(verb, path, rule.body, rule.response_body, plain=plain, safe=verb in READING, template=template)


def _check_body(body: str, verb: str, template: Template, method: MethodDescriptor) -> None:
    if not body:
        return
    if verb in READING:
        raise _NotServedError(f"a {verb} has no body (body: {body!r})")
    if body == WHOLE:
        if method.input_type.full_name == HTTP_BODY and template.variables:
            raise _NotServedError(f"its body is a whole {HTTP_BODY}, so that its path can't be a part of it")
        return
    fields.find(method.input_type, body)
    if any(f"{body}.".startswith(f"{variable.field}.") for variable in template.variables):
        raise _NotServedError(f"{body} is the body, and captured by the path")


def _rules(rule: http_pb2.HttpRule) -> Iterator[http_pb2.HttpRule]:
    if rule.WhichOneof("pattern") is not None:
        yield rule
    yield from rule.additional_bindings


def _pattern(rule: http_pb2.HttpRule) -> tuple[str, str]:
    kind = rule.WhichOneof("pattern")
    if kind == "custom":
        return rule.custom.kind, rule.custom.path
    return (kind or "").upper(), getattr(rule, kind) if kind else ""


def _refuse_foreign(verb: str, template: Template) -> None:
    """Refuse a path that is Poste's own, or another method's default route: what is before its first wild segment."""
    literals = []
    for segment in template.segments:
        if isinstance(segment, str):
            break
        literals.append(segment[0])
    path = "/" + "/".join(literals)
    if is_reserved(path) and (literals or template.plain):
        raise _NotServedError("the path is Poste's own")
    if verb in (DEFAULT_VERB, ANY_VERB) and template.plain and _DEFAULT_ROUTE.fullmatch(path):
        raise _NotServedError("the path is the default route of a method")
