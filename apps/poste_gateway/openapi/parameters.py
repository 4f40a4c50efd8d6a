"""What of a request stands in its path, in its query and in its head."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from poste.domain.policy import DEFAULT_RESULT_TTL_SECONDS, DEFAULT_TASK_TTL_SECONDS, MethodPolicy
from poste.protojson import plans
from poste.protojson.json_schema import Describe, Direction, MessageSchemas, Schema
from poste.rpc.catalogue import Method
from poste.rpc.http_rules import fields
from poste.rpc.http_rules.rules import WHOLE, Route
from poste_gateway.http.idempotency import BARE, IDEMPOTENCY_KEY
from poste_gateway.http.responses import JSON
from poste_gateway.openapi.paths import OpenPath, Wild

#: Fields of fields are listed so deeply, and no message below itself: there is no end to those.
_DEEPEST: Final = 5


class Parameters:
    """The parameters of one service's operations."""

    def __init__(self, schemas: MessageSchemas, describe: Describe) -> None:
        """Use the schemas of its messages, and what comments say of their fields."""
        self._schemas = schemas
        self._describe = describe

    def of_path(self, method: Method, path: OpenPath, names: tuple[str, ...]) -> list[Schema]:
        """Return the parameters in a path, called as the document calls them there."""
        return [self._in_path(method.input, wild, name) for wild, name in zip(path.wild, names, strict=True)]

    def of_query(self, method: Method, route: Route) -> list[Schema]:
        """Return the parameters that the query of a route may have: what neither its path nor its body says."""
        if route.body == WHOLE:
            return []
        said = {variable.field for variable in route.template.variables} | ({route.body} if route.body else set())
        return [self._in_query(name, field, required=required) for name, field, required in _fields(method.input, said)]

    def _in_path(self, message: Descriptor, wild: Wild, name: str) -> Schema:
        schema: Schema = {"type": "string", "minLength": 1}
        notes = []
        if wild.field:
            field = fields.find(message, wild.field)
            notes = [self._describe(field.full_name)]
            if (
                wild.whole
                and not wild.many
                and (value := self._schemas.value(field, Direction.INPUT)) != {"type": "string"}
            ):
                schema = value
            if not wild.whole:
                notes.append(f"A part of the field `{wild.field}`.")
        if wild.many:
            notes.append("May be several segments, with slashes between them.")
        return {"name": name, "in": "path", "required": True, "schema": schema, **_about(notes)}

    def _in_query(self, name: str, field: FieldDescriptor, *, required: bool) -> Schema:
        said: Schema = {"name": name, "in": "query", **_about([self._describe(field.full_name)])}
        if required:
            said["required"] = True
        schema = self._schemas.field(field, Direction.INPUT)
        if plans.is_map(field):
            # As `labels[key]=value`.
            return {**said, "style": "deepObject", "explode": True, "schema": schema}
        if field.message_type is not None and field.message_type.full_name in plans.ANY_JSON and not field.is_repeated:
            return {**said, "content": {JSON: {"schema": schema}}}
        return {**said, "schema": schema}


def of_head(policy: MethodPolicy, *, queued: bool) -> list[Schema]:
    """Return the headers that say how a call is treated; `queued`: it may be queued."""
    shared = ["RequestId", "GrpcTimeout", "ConnectTimeoutMs", *(["Prefer"] if queued else [])]
    found: list[Schema] = [{"$ref": f"#/components/parameters/{name}"} for name in shared]
    if queued:
        lives = (
            ("Poste-Task-TTL", "How long the call may wait for its service if it is queued, in seconds.",
             DEFAULT_TASK_TTL_SECONDS, policy.max_task_ttl_seconds),
            ("Poste-Result-TTL", "How long its result is kept after it has ended, in seconds.",
             DEFAULT_RESULT_TTL_SECONDS, policy.max_result_ttl_seconds),
        )  # fmt: skip
        for name, about, default, most in lives:
            schema = {"type": "integer", "minimum": 1, "maximum": most, "default": min(default, most)}
            found.append({"name": name, "in": "header", "description": about, "schema": schema})
        found += [{"$ref": f"#/components/parameters/{name}"} for name in ("Callback", "NotBefore")]
        about = "A name that no other call of the method has: of all calls with it one runs."
        required = {"required": True} if policy.requires_idempotency_key else {}
        key = {"name": IDEMPOTENCY_KEY, "in": "header", "description": about, **required}
        found.append({**key, "schema": {"type": "string", "pattern": BARE}})
    return found


def _about(notes: Collection[str]) -> Schema:
    text = " ".join(note for note in notes if note)
    return {"description": text} if text else {}


def _fields(
    message: Descriptor,
    said: Collection[str],
    steps: tuple[str, ...] = (),
    names: str = "",
    above: tuple[Descriptor, ...] = (),
) -> Iterator[tuple[str, FieldDescriptor, bool]]:
    """Yield each field that a query can say: its name there, what it is, and whether it must be there."""
    keys, within = plans.keys_of(message), (*above, message)
    for field in message.fields:
        path, here = f"{names}{field.name}", (*steps, keys[field.name])
        held: Any = field.message_type
        if path in said:
            continue
        if _is_text(field):
            yield ".".join(here), field, plans.is_required(field) and not steps
        elif not (field.is_repeated or plans.has_form_of_its_own(held) or len(here) == _DEEPEST or held in within):
            yield from _fields(held, said, here, f"{path}.", within)


def _is_text(field: FieldDescriptor) -> bool:
    """Return whether a text can say one value of a field, be it a map's."""
    held = plans.value_of(field).message_type
    return held is None or (plans.has_form_of_its_own(held) and held.full_name != plans.ANY)
