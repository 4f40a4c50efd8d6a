"""How a message type is written as JSON, found out once for each: `json_format` asks the descriptor every time.

Plain fields are written here: numbers, strings, bytes, enums, lists of them, and messages of them. A type that holds
anything else, however deep (well-known types, maps, 32-bit floats, extensions), is left to `json_format`.
"""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

#: Turns a message into JSON values.
Write = Callable[[Message], Any]
#: Turns one value of a scalar field into a JSON value.
_Scalar = Callable[[Any], Any]

#: From here on Python writes a float with an exponent, so without `.0`.
_EXPONENT_FROM: Final = 1e16
_WELL_KNOWN: Final = "google.protobuf."


# Bounded, since each writer keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=1024)
def writer_of(descriptor: Descriptor) -> Write:
    """Return what writes messages of a type, default values included."""
    if not _is_plain(descriptor, ()):
        return functools.partial(by_json_format, descriptor.file.pool)
    if all(_is_always_written(field) for field in descriptor.fields):
        scalars = [(field.json_name, field.name, _scalar_writer(field)) for field in descriptor.fields]
        return lambda message: {key: scalar(getattr(message, name)) for key, name, scalar in scalars}
    fields = [_field_writer(field) for field in descriptor.fields]

    def write(message: Message) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for field in fields:
            field(message, value)
        return value

    return write


def _whole(value: Any) -> Any:
    """Turn whole floats into integers, all the way down; `-0.0` stays, for an integer has no sign of zero."""
    if isinstance(value, float):
        return _double(value)
    if isinstance(value, dict):
        return {key: _whole(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return value


def by_json_format(pool: Any, message: Message) -> Any:
    """Turn a message of any type into JSON values; `pool` knows what its Any fields hold."""
    return _whole(json_format.MessageToDict(message, always_print_fields_with_no_presence=True, descriptor_pool=pool))


def _is_plain(descriptor: Descriptor, above: tuple[Descriptor, ...]) -> bool:
    """Tell whether messages of a type hold nothing but plain fields, however deep, and can't hold themselves."""
    if descriptor.full_name.startswith(_WELL_KNOWN) or descriptor.is_extendable or descriptor in above:
        return False
    for field in descriptor.fields:
        closed = field.enum_type is not None and field.enum_type.is_closed
        if closed or field.type in (FieldDescriptor.TYPE_GROUP, FieldDescriptor.TYPE_FLOAT):
            return False
        below = field.message_type
        if below is not None and (below.GetOptions().map_entry or not _is_plain(below, (*above, descriptor))):
            return False
    return True


def _is_always_written(field: FieldDescriptor) -> bool:
    return field.message_type is None and not field.is_repeated and not field.has_presence


def _field_writer(field: FieldDescriptor) -> Callable[[Message, dict[str, Any]], None]:
    name, json_name = field.name, field.json_name
    scalar: _Scalar = writer_of(field.message_type) if field.message_type is not None else _scalar_writer(field)

    def write_always(message: Message, value: dict[str, Any]) -> None:
        value[json_name] = scalar(getattr(message, name))

    def write_if_set(message: Message, value: dict[str, Any]) -> None:
        if message.HasField(name):
            value[json_name] = scalar(getattr(message, name))

    def write_all(message: Message, value: dict[str, Any]) -> None:
        value[json_name] = [scalar(one) for one in getattr(message, name)]

    if field.is_repeated:
        return write_all
    return write_if_set if field.has_presence else write_always


def _scalar_writer(field: FieldDescriptor) -> _Scalar:
    if field.enum_type is not None:
        return _enum_writer(field.enum_type)
    return _SCALARS.get(field.type, _same)


def _enum_writer(enum: EnumDescriptor) -> _Scalar:
    if enum.full_name == "google.protobuf.NullValue":
        return _null
    names = {number: value.name for number, value in enum.values_by_number.items()}
    return lambda number: names.get(number, number)


def _same(value: Any) -> Any:
    return value


def _null(_: Any) -> None:
    return None


def _double(value: float) -> float | int | str:
    if value.is_integer():
        small = abs(value) < _EXPONENT_FROM and (value or math.copysign(1, value) > 0)
        return int(value) if small else value
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _bytes(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


_SCALARS: Final[dict[int, _Scalar]] = {
    FieldDescriptor.TYPE_DOUBLE: _double,
    FieldDescriptor.TYPE_INT64: str,
    FieldDescriptor.TYPE_SINT64: str,
    FieldDescriptor.TYPE_SFIXED64: str,
    FieldDescriptor.TYPE_UINT64: str,
    FieldDescriptor.TYPE_FIXED64: str,
    FieldDescriptor.TYPE_BYTES: _bytes,
}
