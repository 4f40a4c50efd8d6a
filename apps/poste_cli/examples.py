"""Makes an example of a method's request, to be pasted and changed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any, Final

from poste.client import MessageField, MethodOutline

#: An example of each type whose JSON is a text; what is not here is a number.
_TEXTS: Final = {
    "string": "text",
    "bytes": "AAEC",
    "google.protobuf.StringValue": "text",
    "google.protobuf.BytesValue": "AAEC",
    "google.protobuf.Timestamp": "2026-01-02T03:04:05Z",
    "google.protobuf.Duration": "1.5s",
    "google.protobuf.FieldMask": "field",
}
_OTHERS: Final[dict[str, Any]] = {
    **dict.fromkeys(("bool", "google.protobuf.BoolValue"), True),
    **dict.fromkeys(("double", "float", "google.protobuf.DoubleValue", "google.protobuf.FloatValue"), 1.5),
    "google.protobuf.Struct": {},
    "google.protobuf.Value": None,
    "google.protobuf.ListValue": [],
    "google.protobuf.Any": {},
}
#: Where none of a message's fields is required, so many are shown.
_SOME: Final = 3
#: Messages in messages are shown so deep.
_DEPTH: Final = 3


def request(outline: MethodOutline) -> dict[str, Any]:
    """Return an example of a method's request: its required fields, or its first ones."""
    return _message(outline, outline.request, _DEPTH)


def arguments(outline: MethodOutline) -> str:
    """Return it as `poste call` takes it, quoted for a shell."""
    fields = {field.json_name: field for field in outline.messages.get(outline.request, ())}
    return " ".join(shlex.quote(_argument(fields[name], value)) for name, value in request(outline).items())


def _argument(field: MessageField, value: Any) -> str:
    if isinstance(value, str):
        return f"{field.name}={value}"
    text = json.dumps(value, ensure_ascii=False)
    return f"{field.name}:={text}" if isinstance(value, dict | list) or value is None else f"{field.name}={text}"


def _message(outline: MethodOutline, name: str, depth: int) -> dict[str, Any]:
    fields = outline.messages.get(name, ()) if depth else ()
    chosen = [field for field in fields if field.required] or _first(fields)
    return {field.json_name: _value(outline, field, depth) for field in chosen}


def _first(fields: Sequence[MessageField]) -> list[MessageField]:
    """Return the first fields, one of each group of which one may be set."""
    groups, found = set[str](), list[MessageField]()
    for field in fields:
        if field.oneof is None:
            found.append(field)
        elif field.oneof not in groups:
            groups.add(field.oneof)
            found.append(field)
    return found[:_SOME]


def _value(outline: MethodOutline, field: MessageField, depth: int) -> Any:
    one = _one(outline, field.type, depth)
    if field.key_type is not None:
        return {"key" if field.key_type == "string" else "true" if field.key_type == "bool" else "1": one}
    return [one] if field.repeated else one


def _one(outline: MethodOutline, kind: str, depth: int) -> Any:
    if kind in outline.messages:
        return _message(outline, kind, depth - 1)
    if kind in outline.enums:
        # The first one says as a rule that none was chosen.
        return outline.enums[kind][:2][-1]
    if kind in _TEXTS:
        return _TEXTS[kind]
    if kind in _OTHERS:
        return _OTHERS[kind]
    return {} if "." in kind and not kind.startswith("google.protobuf.") else 1
