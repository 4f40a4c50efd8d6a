"""One service as a piece of the document: an operation for each route, and the schemas of its messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from poste.protojson.json_schema import Describe, Direction, MessageSchemas, Schema, or_null
from poste.protojson.plans import is_required
from poste.rpc.catalogue import Method, MethodKind, Service
from poste.rpc.http_rules import fields
from poste.rpc.http_rules.rules import ANY_VERB, READING, USUAL_VERBS, WHOLE, PassedOver, Route
from poste_gateway.calls.shapes import shape_of
from poste_gateway.http.framings import EVENTS, NDJSON
from poste_gateway.http.responses import JSON
from poste_gateway.openapi import parameters, shared
from poste_gateway.openapi.comments import comments_of
from poste_gateway.openapi.parameters import Parameters
from poste_gateway.openapi.paths import OpenPath, open_path

#: The verbs that OpenAPI 3.1 has; a route of any other is not in the document.
_VERBS: Final = (*USUAL_VERBS, "OPTIONS", "HEAD", "TRACE")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, until it is known what its document calls the parameters of its path.

    Attributes:
        verb: Its verb, in capitals.
        path: Its path.
        said: All of it but the parameters in the path.
        method: What it calls.
        any_verb: Its route is one of any verb: it has what no other route of its path has.
    """

    verb: str
    path: OpenPath
    said: Schema
    method: Method
    any_verb: bool


@dataclass(frozen=True, slots=True)
class ServicePiece:
    """What a service adds to the document.

    Attributes:
        tag: Its tag.
        operations: Its operations.
        schemas: Those of its messages, by name.
        parameters: Makes its operations' parameters.
    """

    tag: Schema
    operations: list[Operation]
    schemas: dict[str, Schema]
    parameters: Parameters = field(repr=False)


def piece_of(service: Service, passed_over: Mapping[str, Sequence[PassedOver]]) -> ServicePiece:
    """Return what a service adds.

    Args:
        service: The service.
        passed_over: By method, the routes that it has and that are others' here.
    """
    comments = comments_of(service.entry.file_descriptor_set)

    def describe(name: str) -> str:
        return comments.get(name, "")

    methods = [method for method in service.routed if not method.kind.streams_requests]
    schemas = MessageSchemas([one.input for one in methods], [one.output for one in methods], describe)
    making = _Making(service, schemas, Parameters(schemas, describe), describe)
    operations = [
        operation
        for method in methods
        for operation in making.operations(method, {(one.verb, one.path) for one in passed_over[method.name]})
    ]
    tag: Schema = {"name": service.name}
    if about := describe(service.name):
        tag["description"] = about
    return ServicePiece(tag, operations, schemas.components, making.parameters)


class _Making:
    """The making of one service's operations."""

    def __init__(
        self, service: Service, schemas: MessageSchemas, its_parameters: Parameters, describe: Describe
    ) -> None:
        self.parameters = its_parameters
        self._service = service
        self._schemas = schemas
        self._describe = describe

    def operations(self, method: Method, lost: set[tuple[str, str]]) -> Iterator[Operation]:
        """Yield a method's operations, but for routes that it has `lost`."""
        served = [route for route in method.routes if (route.verb, route.path) not in lost]
        for number, route in enumerate(served):
            path, any_verb = open_path(route), route.verb == ANY_VERB
            for verb in USUAL_VERBS if any_verb else (route.verb,):
                if verb in _VERBS:
                    name = _operation_id(method, number, verb if any_verb else "")
                    yield Operation(verb, path, self._operation(method, route, verb, name), method, any_verb)

    def _operation(self, method: Method, route: Route, verb: str, name: str) -> Schema:
        queued = (
            self._service.queueable
            and method.kind is MethodKind.UNARY
            and method.policy.queue_when_away
            and verb not in READING
        )
        said: Schema = {"operationId": name, "tags": [self._service.name], **self._words(method, queued=queued)}
        said["parameters"] = [
            *self.parameters.of_query(method, route),
            *parameters.of_head(method.policy, queued=queued),
        ]
        if body := self._body(method, route, verb):
            said["requestBody"] = body
        said["responses"] = {
            "200": {**self._answer(method, route), **({"headers": shared.REPLAYED} if queued else {})},
            **({"202": shared.queued()} if queued else {}),
            **shared.problems_of_calls(),
        }
        return said

    def _words(self, method: Method, *, queued: bool) -> Schema:
        about = self._describe(f"{method.service}.{method.name}")
        summary, _, rest = about.partition("\n\n")
        policy = method.policy
        road = "is queued" if queued else "is refused"
        again = "it may run twice" if policy.repeatable else "it is not run again if it may have run"
        treated = f"While the service is away the call {road}; {again}."
        return {
            "summary": " ".join(summary.split()) or method.name,
            "description": "\n\n".join(text for text in (rest, treated) if text),
        }

    def _body(self, method: Method, route: Route, verb: str) -> Schema | None:
        if not route.body or verb in READING:
            return None
        if shape_of(method, route).raw_body:
            return {"content": {"*/*": {"schema": {}}}}
        if route.body == WHOLE:
            schema = self._schemas.message(method.input, Direction.INPUT)
            required = any(map(is_required, method.input.fields))
        else:
            found = fields.find(method.input, route.body)
            schema, required = self._schemas.field(found, Direction.INPUT), False
        return {"content": {JSON: {"schema": schema}}, "required": required}

    def _answer(self, method: Method, route: Route) -> Schema:
        if shape_of(method, route).raw_answer:
            return {"description": "The service's answer, as it is.", "content": {"*/*": {"schema": {}}}}
        schema = self._schemas.message(method.output, Direction.OUTPUT)
        if route.response_field:
            found = method.output.fields_by_name[route.response_field]
            schema = self._schemas.field(found, Direction.OUTPUT)
            schema = or_null(schema) if found.has_presence else schema
        if method.kind is MethodKind.UNARY:
            return {"description": "The service's answer.", "content": {JSON: {"schema": schema}}}
        line = {"type": "object", "properties": {"result": schema, "error": shared.PROBLEM}}
        return {
            "description": "The service's messages, one a line; or events, each with the message as its data. The last "
            "one may be an error.",
            # OpenAPI 3.1 has no schema of a sequence's items: as is usual, it is that of each line.
            "content": {NDJSON.media_type: {"schema": line}, EVENTS.media_type: {"schema": {"type": "string"}}},
        }


def _operation_id(method: Method, number: int, verb: str) -> str:
    """Return an id of an operation that no other has: of the default route the method's full name."""
    parts = [
        f"{method.service}.{method.name}",
        *([str(number + 1)] if number else []),
        *([verb.lower()] if verb else []),
    ]
    return "-".join(parts)
