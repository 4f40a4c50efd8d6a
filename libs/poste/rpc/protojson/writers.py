"""How a message type is written as JSON, found out once for each: `json_format` asks the descriptor every time.

It also asks the message itself, by methods that a field may be named as. Here methods are those of the message's class,
and what belongs to the message are its fields alone, whatever they are called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from poste.rpc.protojson import wellknown
from poste.rpc.protojson.errors import NoFormError, quotable
from poste.rpc.protojson.plans import (
    ANY,
    class_of,
    extension_key,
    find_message_type,
    has_form_of_its_own,
    is_map,
    is_wrapper,
    keys_of,
)
from poste.rpc.protojson.scalar_writers import key_writer, never_fails, scalar_writer, write_bytes
from poste.rpc.protojson.structs import write_each, write_list_value, write_struct, write_value

#: Turns a message into JSON values.
Write = Callable[[Message], Any]
#: Turns what a field holds, or one value of it, into JSON values.
_Content = Callable[[Any], Any]


# Bounded, since each writer keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=1024)
def writer_of(descriptor: Descriptor) -> Write:
    """Return what writes messages of a type, default values included; it raises NoFormError."""
    if has_form_of_its_own(descriptor) and not is_wrapper(descriptor):
        return _SPECIAL[descriptor.full_name]
    if is_wrapper(descriptor):
        value = _value_writer(descriptor.fields_by_name["value"])
        return lambda message: value(message.value)  # type: ignore[attr-defined]  # a wrapper has it
    keys = keys_of(descriptor)
    if not descriptor.is_extendable and all(map(_is_always_written, descriptor.fields)):
        scalars = [(keys[field.name], field.name, _value_writer(field)) for field in descriptor.fields]
        return lambda message: {key: scalar(getattr(message, name)) for key, name, scalar in scalars}
    fields = [_field_writer(descriptor, field, keys[field.name]) for field in descriptor.fields]
    if descriptor.is_extendable:
        fields.append(_write_extensions)

    def write(message: Message) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for field in fields:
            field(message, value)
        return value

    return write


def any_to_value(type_url: str, data: bytes, pool: Any) -> dict[str, Any]:
    """Turn what an Any holds into JSON values: as it is, in base64, if its type is unknown.

    Args:
        type_url: Its type, as the Any has it.
        data: The message in it.
        pool: Where the type is looked up.

    Raises:
        NoFormError: The bytes are no such message, or it has no JSON form.
    """
    descriptor = find_message_type(pool, type_url)
    if descriptor is None:
        return {"@type": type_url, "value": write_bytes(data)}
    parse, write = ways_of(descriptor)
    try:
        message = parse(data)
    except DecodeError:
        raise NoFormError(f"holds bytes that are no {descriptor.full_name}") from None
    if has_form_of_its_own(descriptor):
        try:
            return {"@type": type_url, "value": write(message)}
        except NoFormError as error:
            raise error.below("value") from None
    value: dict[str, Any] = write(message)
    if "@type" in value:
        raise NoFormError(f"holds a {descriptor.full_name}, which has a field @type itself")
    return {"@type": type_url, **value}


# Bounded, since each keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=1024)
def ways_of(descriptor: Descriptor) -> tuple[Callable[[bytes], Message], Write]:
    """Return what makes a type's messages of bytes (it raises DecodeError), and JSON values of those."""
    return class_of(descriptor).FromString, writer_of(descriptor)


def _is_always_written(field: FieldDescriptor) -> bool:
    # Of text that may be something else, it must be told where it is.
    scalar = field.message_type is None and not field.is_repeated and not field.has_presence
    return scalar and never_fails(field)


def _field_writer(
    descriptor: Descriptor, field: FieldDescriptor, key: str
) -> Callable[[Message, dict[str, Any]], None]:
    name, content = field.name, _content_writer(field)
    has = class_of(descriptor).HasField

    def write(message: Message, value: dict[str, Any]) -> None:
        try:
            value[key] = content(getattr(message, name))
        except NoFormError as error:
            raise error.below(quotable(key)) from None

    def write_if_set(message: Message, value: dict[str, Any]) -> None:
        if has(message, name):
            write(message, value)

    return write_if_set if field.has_presence else write


def _write_extensions(message: Message, value: dict[str, Any]) -> None:
    for field, content in type(message).ListFields(message):
        if field.is_extension:
            key = extension_key(field)
            try:
                value[key] = _content_writer(field)(content)
            except NoFormError as error:
                raise error.below(key) from None


# Bounded, since each keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=1024)
def _content_writer(field: FieldDescriptor) -> _Content:
    """Return what writes all that a field holds."""
    if is_map(field):
        return _map_writer(field.message_type)
    value = _value_writer(field)
    return functools.partial(write_each, value) if field.is_repeated else value


def _map_writer(entry: Any) -> _Content:
    spell = key_writer(entry.fields_by_name["key"])
    value = _value_writer(entry.fields_by_name["value"])

    def write(values: Any) -> dict[str, Any]:
        written: dict[str, Any] = {}
        # Not by items(), which fails at a key that is not UTF-8.
        for key in values:
            name = spell(key)
            try:
                written[name] = value(values[key])
            except NoFormError as error:
                raise error.below(f"[{quotable(name)}]") from None
        return written

    return write


def _value_writer(field: FieldDescriptor) -> _Content:
    """Return what writes one value of a field."""
    return scalar_writer(field) if field.message_type is None else _later(field.message_type)


def _later(descriptor: Descriptor) -> Write:
    """Return what writes messages of a type that may hold the one whose writer is being made."""
    write: Write | None = None

    def write_it(message: Message) -> Any:
        nonlocal write
        if write is None:
            write = writer_of(descriptor)
        return write(message)

    return write_it


def _any(message: Any) -> dict[str, Any]:
    type_url, data = message.type_url, message.value
    return any_to_value(type_url, data, message.DESCRIPTOR.file.pool) if type_url or data else {}


#: Messages with a JSON form of their own. None of their fields is named as a method is.
_SPECIAL: Final[dict[str, Callable[[Any], Any]]] = {
    ANY: _any,
    "google.protobuf.Duration": lambda message: wellknown.write_duration(message.seconds, message.nanos),
    "google.protobuf.FieldMask": lambda message: wellknown.write_field_mask(message.paths),
    "google.protobuf.ListValue": write_list_value,
    "google.protobuf.Struct": write_struct,
    "google.protobuf.Timestamp": lambda message: wellknown.write_timestamp(message.seconds, message.nanos),
    "google.protobuf.Value": write_value,
}
