"""What a task was called with, as an operator sees it: fields that its proto marks `debug_redact` are masked."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf import any_pb2, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from poste import protojson
from poste.domain import carried
from poste.rpc.catalogue import Service
from poste.v1 import mom_service_pb2 as pb

#: In place of a text that is masked; any other value is left out.
MASK: Final = "[REDACTED]"
#: Headers that carry a secret.
_SECRET_HEADERS: Final = ("authorization", "cookie", "-token", "-secret", "api-key")
_ANY: Final = any_pb2.Any.DESCRIPTOR.full_name


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
        message = message_factory.GetMessageClass(method.input)()
        message.ParseFromString(found.request)
        masked = sorted(set(_mask(message)))
        return {**value, "request": protojson.to_value(method.input, message.SerializeToString()), "masked": masked}
    except (DecodeError, protojson.UnprintableError) as error:
        return {**value, "unreadable": f"it is no {method.input.full_name}: {error}"}


def _headers(metadata: str) -> dict[str, list[str]]:
    shown: dict[str, list[str]] = {}
    for key, value in carried.read(metadata):
        text = base64.b64encode(value).decode() if isinstance(value, bytes) else value
        shown.setdefault(key, []).append(MASK if any(word in key for word in _SECRET_HEADERS) else text)
    return shown


def _mask(message: Message) -> Iterator[str]:
    """Mask a message's fields; yields their paths."""
    if message.DESCRIPTOR.full_name == _ANY:
        yield from _mask_any(message)
        return
    for field, value in message.ListFields():
        if field.GetOptions().debug_redact:
            _mask_field(message, field)
            yield field.json_name
        elif field.type in (FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_GROUP):
            for part in _messages(field, value):
                yield from (f"{field.json_name}.{path}" for path in _mask(part))


def _mask_field(message: Message, field: FieldDescriptor) -> None:
    value = getattr(message, field.name)
    if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
        setattr(message, field.name, MASK)
    elif field.type == FieldDescriptor.TYPE_STRING:
        value[:] = [MASK] * len(value)
    else:
        message.ClearField(field.name)


def _messages(field: FieldDescriptor, value: Any) -> Iterator[Message]:
    """Return the messages that a field of messages has: one, several, or the values of a map."""
    kind = field.message_type
    if not field.is_repeated:
        yield value
    elif kind is None or not kind.GetOptions().map_entry:
        yield from value
    elif kind.fields_by_name["value"].message_type is not None:
        yield from value.values()


def _mask_any(packed: Any) -> Iterator[str]:
    """Mask what an Any holds; of a type that is not known nothing can be shown."""
    try:
        kind: Descriptor = packed.DESCRIPTOR.file.pool.FindMessageTypeByName(packed.type_url.rpartition("/")[2])
        inner = message_factory.GetMessageClass(kind)()
        inner.ParseFromString(packed.value)
    except (KeyError, DecodeError):
        packed.ClearField("value")
        yield "value"
        return
    if masked := list(_mask(inner)):
        packed.value = inner.SerializeToString()
        yield from masked
