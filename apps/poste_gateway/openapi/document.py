"""The document of all services, or of some: OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.1.html).

Its parts are written as JSON one by one: as Python's values it would take ten times the memory of its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from poste import protojson
from poste.protojson.json_schema import COMPONENTS, Schema
from poste.version import __version__
from poste_gateway.openapi import shared
from poste_gateway.openapi.operations import Operation, ServicePiece

#: A larger document is not made, in bytes.
MAX_BYTES: Final = 16 * 1024 * 1024
_ABOUT: Final = (
    "Calls of gRPC services by REST. A call is answered at once while its service is up; while it is away, the call is "
    "queued on disk and answered with `202` and a task, whose result waits for the client."
)


class TooLargeError(Exception):
    """The document would be larger than it may be."""


class Document:
    """A document that services are added to, one by one."""

    def __init__(self, security: shared.Security) -> None:
        """Begin with what every document has; `security`: what a request shows to be let in."""
        self._security = security
        self._tags: list[Schema] = []
        self._schemas = {name: protojson.dumps(schema) for name, schema in shared.SCHEMAS.items()}
        #: By path, by verb; and those of routes of any verb.
        self._paths: dict[str, dict[str, bytes]] = {}
        self._of_any_verb: dict[str, dict[str, bytes]] = {}
        #: How each path is spelt, and what its parameters are called, by its shape.
        self._spelt: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._bytes = 0

    def add(self, piece: ServicePiece) -> None:
        """Add a service.

        Raises:
            TooLargeError: The document would be too large with it.
        """
        renamed = self._renamed(piece)
        for name, schema in piece.schemas.items():
            written = protojson.dumps(_with_names(schema, renamed))
            self._schemas[renamed.get(name, name)] = written
            self._bytes += len(written)
        self._tags.append(piece.tag)
        for operation in piece.operations:
            self._add(operation, piece, renamed)
            if self._bytes > MAX_BYTES:
                raise TooLargeError

    def written(self) -> bytes:
        """Return it as JSON."""
        paths = {
            path: _object({**self._of_any_verb.get(path, {}), **self._paths.get(path, {})})
            for path, _ in self._spelt.values()
        }
        paths |= {path: protojson.dumps(verbs) for path, verbs in shared.task_paths().items()}
        components = {
            "schemas": _object(self._schemas),
            "parameters": protojson.dumps(shared.PARAMETERS),
            "responses": protojson.dumps(shared.RESPONSES),
            **({"securitySchemes": protojson.dumps(shared.SECURITY_SCHEMES)} if self._security else {}),
        }
        head = {
            "openapi": "3.1.1",
            "info": {"title": "Poste", "version": __version__, "description": _ABOUT},
            "servers": [{"url": "/"}],
            "tags": [*self._tags, shared.TAG],
            **({"security": self._security} if self._security else {}),
        }
        parts = {name: protojson.dumps(value) for name, value in head.items()}
        return _object({**parts, "paths": _object(paths), "components": _object(components)})

    def _add(self, operation: Operation, piece: ServicePiece, renamed: Mapping[str, str]) -> None:
        path = operation.path
        spelt, names = self._spelt.setdefault(path.shape, (path.spelt(), path.names))
        paths, verb = self._of_any_verb if operation.any_verb else self._paths, operation.verb.lower()
        verbs = paths.setdefault(spelt, {})
        if verb in verbs:
            # One that only `*` and `**` distinguish: in OpenAPI they are one path.
            return
        in_path = piece.parameters.of_path(operation.method, path, names)
        said = {**operation.said, "parameters": [*in_path, *operation.said["parameters"]]}
        verbs[verb] = protojson.dumps(_with_names(said, renamed))
        self._bytes += len(verbs[verb])

    def _renamed(self, piece: ServicePiece) -> dict[str, str]:
        """Return other names for the schemas that another service has too, and differently.

        Two services may be built with two versions of one message. What holds such a message is another one then, too.
        """
        others = {
            name
            for name, schema in piece.schemas.items()
            if name in self._schemas and self._schemas[name] != protojson.dumps(schema)
        }
        more = others
        while more:
            more = {
                name for name, schema in piece.schemas.items() if name not in others and others & {*_references(schema)}
            }
            others |= more
        return {name: f"{name}-of-{piece.tag['name']}" for name in others}


def _object(members: Mapping[str, bytes]) -> bytes:
    """Write an object whose members are written."""
    return b"{%b}" % b",".join(b"%b:%b" % (protojson.dumps(name), value) for name, value in members.items())


def _references(schema: Any) -> Iterator[str]:
    """Yield the names of the schemas that one refers to."""
    if isinstance(schema, list):
        for one in schema:
            yield from _references(one)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(COMPONENTS)
            else:
                yield from _references(value)


def _with_names(schema: Any, renamed: Mapping[str, str]) -> Any:
    """Return a schema that refers to others by their new names."""
    if not renamed:
        return schema
    if isinstance(schema, list):
        return [_with_names(one, renamed) for one in schema]
    if not isinstance(schema, dict):
        return schema
    said = {key: _with_names(value, renamed) for key, value in schema.items()}
    reference = said.get("$ref")
    if isinstance(reference, str) and (name := reference.removeprefix(COMPONENTS)) in renamed:
        said["$ref"] = COMPONENTS + renamed[name]
    return said
