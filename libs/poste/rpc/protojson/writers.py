"""How a message type is written as JSON, found out once for each: `json_format` asks the descriptor every time.

It also asks the message itself, by methods that a field may be named as. Here methods are those of the message's class,
and what belongs to the message are its fields alone, whatever they are called.
"""

from __future__ import annotations

import base64
import functools
import math
import struct
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import DecodeError, Message

from poste.rpc.protojson import wellknown
from poste.rpc.protojson.errors import quotable
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
from poste.rpc.protojson.wellknown import NoFormError

#: Turns a message into JSON values.
Write = Callable[[Message], Any]
#: Turns what a field holds, or one value of it, into JSON values.
_Content = Callable[[Any], Any]

#: From here on Python writes a float with an exponent, so without `.0`.
_EXPONENT_FROM: Final = 1e16
#: Many a 32-bit float is told from its neighbours by so many digits; nine tell any.
_FLOAT_DIGITS: Final = (6, 7, 8)
_FLOAT: Final = struct.Struct("f")


# Bounded, since each writer keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=1024)
def writer_of(descriptor: Descriptor) -> Write:
    """Return what writes messages of a type, default values included; it raises NoFormError."""
    special = _SPECIAL.get(descriptor.full_name)
    if special is not None:
        return special
    if descriptor.full_name == ANY:
        return _any
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
        return {"@type": type_url, "value": _bytes(data)}
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
    return scalar and (field.type != FieldDescriptor.TYPE_STRING or _is_text_sure(field))


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
    return functools.partial(_write_list, value) if field.is_repeated else value


def _write_list(one: _Content, values: Any) -> list[Any]:
    written: list[Any] = []
    try:
        for value in values:
            written.append(one(value))  # noqa: PERF401 - so that it is known how far it came
    except NoFormError as error:
        raise error.below(f"[{len(written)}]") from None
    return written


def _map_writer(entry: Any) -> _Content:
    spell = _key_writer(entry.fields_by_name["key"])
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


def _key_writer(field: FieldDescriptor) -> Callable[[Any], str]:
    if field.type == FieldDescriptor.TYPE_STRING:
        return _same if _is_text_sure(field) else _text_key
    return _bool_key if field.type == FieldDescriptor.TYPE_BOOL else str


def _value_writer(field: FieldDescriptor) -> _Content:
    """Return what writes one value of a field."""
    if field.message_type is not None:
        return _later(field.message_type)
    if field.enum_type is not None:
        return _enum_writer(field.enum_type)
    if field.type == FieldDescriptor.TYPE_STRING and not _is_text_sure(field):
        return _text
    return _SCALARS.get(field.type, _same)


def _later(descriptor: Descriptor) -> Write:
    """Return what writes messages of a type that may hold the one whose writer is being made."""
    write: Write | None = None

    def write_it(message: Message) -> Any:
        nonlocal write
        if write is None:
            write = writer_of(descriptor)
        return write(message)

    return write_it


def _enum_writer(enum: EnumDescriptor) -> _Content:
    if enum.full_name == "google.protobuf.NullValue":
        return _null
    names = {number: value.name for number, value in enum.values_by_number.items()}
    return lambda number: names.get(number, number)


def _is_text_sure(field: Any) -> bool:
    """Tell whether a message in whose field is no UTF-8 can't be parsed: so it is in proto3, and else not always."""
    return _is_proto3(field.file)


@functools.lru_cache(maxsize=1024)
def _is_proto3(file: FileDescriptor) -> bool:
    described = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(described)
    return described.syntax == "proto3"


def _text(value: str | bytes) -> str:
    # So a string comes that is not UTF-8.
    if isinstance(value, bytes):
        raise NoFormError("is not UTF-8")
    return value


def _text_key(value: str | bytes) -> str:
    if isinstance(value, bytes):
        raise NoFormError("has a key that is not UTF-8")
    return value


def _same(value: Any) -> Any:
    return value


def _null(_: Any) -> None:
    return None


def _bool_key(value: bool) -> str:
    return "true" if value else "false"


def _double(value: float) -> float | int | str:
    if value.is_integer():
        # `-0.0` stays, for an integer has no sign of zero.
        small = abs(value) < _EXPONENT_FROM and (value or math.copysign(1, value) > 0)
        return int(value) if small else value
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float(value: float) -> float | int | str:
    """Write a 32-bit float by the fewest digits that tell it from its neighbours."""
    if math.isfinite(value):
        for digits in _FLOAT_DIGITS:
            short = float(f"{value:.{digits}g}")
            if _FLOAT.unpack(_FLOAT.pack(short))[0] == value:
                return _double(short)
        value = float(f"{value:.9g}")
    return _double(value)


def _bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _any(message: Any) -> dict[str, Any]:
    type_url, data = message.type_url, message.value
    return any_to_value(type_url, data, message.DESCRIPTOR.file.pool) if type_url or data else {}


def _struct(message: Any) -> dict[str, Any]:
    written: dict[str, Any] = {}
    for key, one in message.fields.items():
        try:
            written[key] = _value(one)
        except NoFormError as error:
            raise error.below(quotable(key)) from None
    return written


def _list(message: Any) -> list[Any]:
    return _write_list(_value, message.values)


def _value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return _struct(message.struct_value)
    if kind == "list_value":
        return _list(message.list_value)
    if kind == "number_value":
        number = _double(message.number_value)
        if isinstance(number, str):
            raise NoFormError(f"is the number {number}, which JSON does not have")
        return number
    return None if kind in (None, "null_value") else getattr(message, kind)


_SCALARS: Final[dict[int, _Content]] = {
    FieldDescriptor.TYPE_DOUBLE: _double,
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_INT64: str,
    FieldDescriptor.TYPE_SINT64: str,
    FieldDescriptor.TYPE_SFIXED64: str,
    FieldDescriptor.TYPE_UINT64: str,
    FieldDescriptor.TYPE_FIXED64: str,
    FieldDescriptor.TYPE_BYTES: _bytes,
}
#: Messages with a JSON form of their own. None of their fields is named as a method is.
_SPECIAL: Final[dict[str, Callable[[Any], Any]]] = {
    "google.protobuf.Duration": lambda message: wellknown.write_duration(message.seconds, message.nanos),
    "google.protobuf.FieldMask": lambda message: wellknown.write_field_mask(message.paths),
    "google.protobuf.ListValue": _list,
    "google.protobuf.Struct": _struct,
    "google.protobuf.Timestamp": lambda message: wellknown.write_timestamp(message.seconds, message.nanos),
    "google.protobuf.Value": _value,
}
