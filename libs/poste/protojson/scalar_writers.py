"""From the scalars of protobuf to JSON values: what writes a field's values is found out once for each field."""

from __future__ import annotations

import base64
import functools
import math
import struct
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor, FileDescriptor

from poste.protojson.errors import NoFormError

#: From here on Python writes a float with an exponent, so without `.0`.
_EXPONENT_FROM: Final = 1e16
#: So many digits are enough to distinguish most 32-bit floats from their neighbours; nine are enough for any.
_FLOAT_DIGITS: Final = (6, 7, 8)
_FLOAT: Final = struct.Struct("f")


def scalar_writer(field: FieldDescriptor) -> Callable[[Any], Any]:
    """Return what writes one value of a field that holds no messages; it raises NoFormError."""
    if field.enum_type is not None:
        return _enum_writer(field.enum_type)
    if field.type == FieldDescriptor.TYPE_STRING and not never_fails(field):
        return _text
    return _SCALARS.get(field.type, _same)


def key_writer(field: FieldDescriptor) -> Callable[[Any], str]:
    """Return what spells the keys of a map; it raises NoFormError."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return _same if never_fails(field) else _text_key
    return _bool_key if field.type == FieldDescriptor.TYPE_BOOL else str


def never_fails(field: Any) -> bool:
    """Return whether every value of a scalar field can be written: a string may be no UTF-8, except in proto3."""
    return field.type != FieldDescriptor.TYPE_STRING or _is_proto3(field.file)


def _same(value: Any) -> Any:
    return value


def _null(_: Any) -> None:
    return None


def _bool_key(value: bool) -> str:
    return "true" if value else "false"


def write_double(value: float) -> float | int | str:
    """Write a double: a whole one without a point, and in words what JSON has no number for."""
    if value.is_integer():
        # `-0.0` stays, for an integer has no sign of zero.
        small = abs(value) < _EXPONENT_FROM and (value or math.copysign(1, value) > 0)
        return int(value) if small else value
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float(value: float) -> float | int | str:
    """Write a 32-bit float by the fewest digits that distinguish it from its neighbours."""
    if math.isfinite(value):
        for digits in _FLOAT_DIGITS:
            short = float(f"{value:.{digits}g}")
            if _FLOAT.unpack(_FLOAT.pack(short))[0] == value:
                return write_double(short)
        value = float(f"{value:.9g}")
    return write_double(value)


def write_bytes(value: bytes) -> str:
    """Write bytes in base64."""
    return base64.b64encode(value).decode("ascii")


def _enum_writer(enum: EnumDescriptor) -> Callable[[Any], Any]:
    if enum.full_name == "google.protobuf.NullValue":
        return _null
    names = {number: value.name for number, value in enum.values_by_number.items()}
    return lambda number: names.get(number, number)


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


_SCALARS: Final[dict[int, Callable[[Any], Any]]] = {
    FieldDescriptor.TYPE_DOUBLE: write_double,
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_INT64: str,
    FieldDescriptor.TYPE_SINT64: str,
    FieldDescriptor.TYPE_SFIXED64: str,
    FieldDescriptor.TYPE_UINT64: str,
    FieldDescriptor.TYPE_FIXED64: str,
    FieldDescriptor.TYPE_BYTES: write_bytes,
}
