"""What a task was called with, as an operator sees it: fields that its proto marks `debug_redact` are masked."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from poste import protojson
from poste.domain import carried
from poste.protojson import plans
from poste.rpc.catalogue import Service
from poste.v1 import mom_service_pb2 as pb

#: In place of a text that is masked; any other value, and any extension, is left out.
MASK: Final = "[REDACTED]"
#: Headers that carry a secret.
_SECRET_HEADERS: Final = ("authorization", "cookie", "-token", "-secret", "api-key")


def to_value(found: pb.InspectTaskResponse, method_name: str, service: Service | None) -> dict[str, Any]:
    """Return what a task was called with, as JSON values.

    `request` is null if it is no longer kept, or can't be read with what the catalogue says of the method by now: then
    `unreadable` says why. `masked` are the paths of the fields that are masked in it.
    """
    value: dict[str, Any] = {"request": None, "masked": [], "headers": _headers(found.metadata)}
    value |= {"requestId": found.request_id or None, "traceparent": found.traceparent.strip("-") or None}
    if not found.HasField("request"):
        return value
    method = None if service is None else service.find(method_name)
    if method is None:
        return {**value, "unreadable": "the method is not in the catalogue any more"}
    try:
        made = plans.class_of(method.input)
        message = made.FromString(found.request)
        masked = sorted(set(_mask(message)))
        return {**value, "request": protojson.to_value(method.input, made.SerializeToString(message)), "masked": masked}
    except (DecodeError, protojson.UnprintableError) as error:
        return {**value, "unreadable": f"it is no {method.input.full_name}: {error}"}


def _headers(metadata: str) -> dict[str, list[str]]:
    shown: dict[str, list[str]] = {}
    for key, value in carried.read(metadata):
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        shown.setdefault(key, []).append(MASK if any(word in key for word in _SECRET_HEADERS) else text)
    return shown


def _mask(message: Any) -> Iterator[str]:
    """Mask a message's fields; yields their paths."""
    kind = type(message)
    if kind.DESCRIPTOR.full_name == plans.ANY:
        yield from _mask_any(message)
        return
    keys = plans.keys_of(kind.DESCRIPTOR)
    for field, value in kind.ListFields(message):
        key = plans.extension_key(field) if field.is_extension else keys[field.name]
        if field.GetOptions().debug_redact:
            _mask_field(message, field, value)
            yield key
        elif field.message_type is not None:
            for part in _messages(field, value):
                yield from (f"{key}.{path}" for path in _mask(part))


def _mask_field(message: Any, field: FieldDescriptor, value: Any) -> None:
    if field.is_extension:
        type(message).ClearExtension(message, field)
    elif field.type != FieldDescriptor.TYPE_STRING:
        type(message).ClearField(message, field.name)
    elif field.is_repeated:
        value[:] = [MASK] * len(value)
    else:
        setattr(message, field.name, MASK)


def _messages(field: FieldDescriptor, value: Any) -> Iterable[Message]:
    """Return the messages that a field of messages has: one, several, or the values of a map."""
    if plans.is_map(field):
        return value.values() if plans.value_of(field).message_type is not None else ()
    return value if field.is_repeated else (value,)


def _mask_any(packed: Any) -> Iterator[str]:
    """Mask what an Any holds; of a type that is not known nothing can be shown."""
    kind = plans.find_message_type(packed.DESCRIPTOR.file.pool, packed.type_url)
    try:
        inner = None if kind is None else plans.class_of(kind).FromString(packed.value)
    except DecodeError:
        inner = None
    if inner is None:
        packed.ClearField("value")
        yield "value"
    elif masked := list(_mask(inner)):
        packed.value = type(inner).SerializeToString(inner)
        yield from masked
