"""Struct, ListValue and Value, which hold any JSON there is, both ways.

They are read into the bytes of their messages and not into messages: these would be three for each value, and take
four times as long.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any, Final

from poste.protojson.errors import NoFormError, quotable
from poste.protojson.forms import Form
from poste.protojson.paths import Path
from poste.protojson.scalar_writers import write_double
from poste.protojson.scalars import BadValueError, read_number, read_string

#: Messages may be nested this deeply: no parser of protobuf takes more.
MAX_DEPTH: Final = 100

#: Called with each error: the path of a field, and the reason.
Wrong = Callable[[Path, str], None]

# Tags: a field's number, and how its value is written (google/protobuf/struct.proto).
_STRUCT_FIELDS: Final = b"\x0a"
_ENTRY_KEY: Final = b"\x0a"
_ENTRY_VALUE: Final = b"\x12"
_LIST_VALUES: Final = b"\x0a"
_STRING: Final = b"\x1a"
_STRUCT: Final = b"\x2a"
_LIST: Final = b"\x32"
_EMPTY_STRUCT: Final = b"\x2a\x00"
_EMPTY_LIST: Final = b"\x32\x00"
_NULL: Final = b"\x08\x00"
_FALSE: Final = b"\x20\x00"
_TRUE: Final = b"\x20\x01"
_NUMBER: Final = struct.Struct("<cd")
_NUMBER_TAG: Final = b"\x11"
#: What is shorter has a length of one byte.
_LONG: Final = 0x80
_LENGTHS: Final = tuple(bytes((length,)) for length in range(_LONG))
#: What stands before an element of a ListValue, by how long that is.
_ELEMENTS: Final = tuple(_LIST_VALUES + length for length in _LENGTHS)
#: What is larger than any double; so is what `json` takes for infinite.
_MAX: Final = sys.float_info.max


class Reader:
    """Reads any JSON there is into the bytes of a Struct, a ListValue or a Value."""

    def __init__(self, wrong: Wrong) -> None:
        """Read, and report to `wrong` what can't be read."""
        self._wrong = wrong

    def struct(self, value: Any, path: Path, depth: int) -> bytearray:
        """Read a Struct; `depth` is how deeply it is nested itself."""
        data = bytearray()
        if not isinstance(value, dict):
            self._wrong(path, "must be an object")
            return data
        for key, one in value.items():
            try:
                name = read_string(key).encode()
            except BadValueError as error:
                self._wrong((path, key), f"has a key that {error}")
                continue
            # A map's entry is a message too.
            held = self.value(one, (path, key), depth + 2)
            length, held_length = _length(len(name)), _length(len(held))
            entry = len(name) + len(length) + len(held) + len(held_length) + 2
            data += _STRUCT_FIELDS + _length(entry) + _ENTRY_KEY + length
            data += name
            data += _ENTRY_VALUE + held_length
            data += held
        return data

    def list_value(self, value: Any, path: Path, depth: int) -> bytearray:
        """Read a ListValue; `depth` is how deeply it is nested itself."""
        data = bytearray()
        if not isinstance(value, list):
            self._wrong(path, "must be an array")
            return data
        below = depth + 1
        read = self.value
        for index, one in enumerate(value):
            held = read(one, (path, index), below)
            length = len(held)
            data += _ELEMENTS[length] if length < _LONG else _LIST_VALUES + _length(length)
            data += held
        return data

    def value(self, value: Any, path: Path, depth: int) -> bytes | bytearray:
        """Read a Value, which any JSON is; `depth` is how deeply it is nested itself."""
        data: bytes | bytearray = b""
        # By its very type, the most frequent first: there may be a million of them.
        kind = type(value)
        try:
            if depth > MAX_DEPTH:
                self._wrong(path, "is nested too deeply")
            elif kind is int or kind is float:
                data = _NUMBER.pack(_NUMBER_TAG, value if -_MAX <= value <= _MAX else read_number(value))
            elif kind is str:
                data = _measured(_STRING, read_string(value).encode())
            elif kind is dict:
                data = _measured(_STRUCT, self.struct(value, path, depth + 1)) if value else _EMPTY_STRUCT
            elif kind is list:
                data = _measured(_LIST, self.list_value(value, path, depth + 1)) if value else _EMPTY_LIST
            else:
                data = _NULL if value is None else _TRUE if value else _FALSE
        except BadValueError as error:
            self._wrong(path, str(error))
        return data


def _measured(tag: bytes, data: bytes | bytearray) -> bytes:
    """Return a field's bytes: its tag, how long its value is, and the value."""
    length = len(data)
    return b"".join((tag, _LENGTHS[length] if length < _LONG else _length(length), data))


def _length(length: int) -> bytes:
    """Write a length as protobuf does: seven bits a byte, the lowest first."""
    if length < _LONG:
        return _LENGTHS[length]
    data = bytearray()
    while length >= _LONG:
        data.append(length % _LONG | _LONG)
        length //= _LONG
    data.append(length)
    return bytes(data)


class Writer:
    """Writes a Struct, a ListValue or a Value; each raises NoFormError."""

    def __init__(self, form: Form) -> None:
        """Make such a form of them."""
        self._form = form
        self._struct, self._list = form.whole(self.struct), form.whole(self.list_value)

    def struct(self, message: Any) -> Any:
        """Write a Struct."""
        fields, write = message.fields, self.value

        def write_one(key: str) -> tuple[str, Any]:
            try:
                return key, write(fields[key])
            except NoFormError as error:
                raise error.below(quotable(key)) from None

        return self._form.items(write_one, fields)

    def list_value(self, message: Any) -> Any:
        """Write a ListValue."""
        return self._form.each(self.value, message.values)

    def value(self, message: Any) -> Any:
        """Write a Value."""
        kind = message.WhichOneof("kind")
        if kind == "struct_value":
            return self._struct(message.struct_value)
        if kind == "list_value":
            return self._list(message.list_value)
        if kind == "number_value":
            number = write_double(message.number_value)
            if isinstance(number, str):
                raise NoFormError(f"is the number {number}, which JSON does not have")
            return number
        return None if kind in (None, "null_value") else getattr(message, kind)
