"""From JSON values to the scalar types of protobuf, as ProtoJSON has them and no more leniently.

`json_format` takes `true` as 1.0, and `" 5"`, `"1_0"` or `"inf"` as numbers. Here a number is a JSON number,
or a string that spells one.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,6})?")
#: Strings that are numbers may be this long; the exact value of the smallest double has 767 digits.
_MAX_NUMBER: Final = 1100
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
#: From here on a number is nearer to infinity than to any 32-bit float (the largest one is printed as 3.4028235e+38,
#: which is a little more than it is).
_FLOAT32_PAST: Final = float.fromhex("0x1.ffffffp+127")
#: From here on not every integer is a double: a JSON number with a point or exponent would be guessed.
_EXACT: Final = 2**53
#: Nothing with more digits before its point fits 64 bits.
_INT64_DIGITS: Final = 19
_ENUM_NAMES_SHOWN: Final = 10

#: Turns a JSON value into what the field is set to.
Reader = Callable[[Any], Any]


class BadValueError(Exception):
    """The value does not fit its field; the text says why."""


def reader_of(field: FieldDescriptor) -> Reader:
    """Return what reads the values of a scalar field."""
    if field.enum_type is not None:
        return _enum_reader(field.enum_type)
    return _READERS[field.type]


def map_key_reader_of(field: FieldDescriptor) -> Reader:
    """Return what reads the keys of a map: always strings in JSON."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _bool_key
    return _READERS[field.type]


def _bool_key(value: str) -> bool:
    if value not in ("true", "false"):
        raise BadValueError('the key must be "true" or "false"')
    return value == "true"


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadValueError("must be true or false")
    return value


def read_string(value: Any) -> str:
    """Read a string.

    Raises:
        BadValueError: It is none, or not Unicode.
    """
    if not isinstance(value, str):
        raise BadValueError("must be a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadValueError("holds half of a surrogate pair") from None
    return value


def read_bytes(value: Any) -> bytes:
    """Read base64, of either alphabet, padded or not.

    Raises:
        BadValueError: It is none.
    """
    if not isinstance(value, str):
        raise BadValueError("must be a string in base64")
    try:
        standard = value.encode("ascii").translate(bytes.maketrans(b"-_", b"+/"))
        bare = standard.rstrip(b"=")
        if len(standard) - len(bare) not in (0, -len(bare) % 4):
            raise BadValueError("is not base64")
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise BadValueError("is not base64") from None


def read_number(value: Any) -> float:
    """Read a double.

    Raises:
        BadValueError: It is none, or is out of range.
    """
    if isinstance(value, str):
        special = _NOT_FINITE.get(value)
        if special is not None:
            return special
        if len(value) > _MAX_NUMBER or not _NUMBER.fullmatch(value):
            raise BadValueError("must be a number")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadValueError("must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise BadValueError("is out of range")
    return number


def _float(value: Any) -> float:
    number = read_number(value)
    if math.isfinite(number) and abs(number) >= _FLOAT32_PAST:
        raise BadValueError("is out of range")
    return number


def _integer_reader(lowest: int, highest: int) -> Reader:
    def read(value: Any) -> int:
        number = _integer(value)
        if not lowest <= number <= highest:
            raise BadValueError(f"must lie between {lowest} and {highest}")
        return number

    return read


def _integer(value: Any) -> int:
    if isinstance(value, str):
        return _integer_of_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, float):
        raise BadValueError("must be a whole number")
    if math.isinf(value):
        raise BadValueError("is out of range")
    if not value.is_integer():
        raise BadValueError("must be a whole number")
    if abs(value) > _EXACT:
        raise BadValueError("must be written without point and exponent: it is too large to be exact")
    return int(value)


def _integer_of_text(text: str) -> int:
    if len(text) > _MAX_NUMBER or not _NUMBER.fullmatch(text):
        raise BadValueError("must be a whole number")
    number = Decimal(text)
    # Checked before anything is computed: the integer of 1e999999 would be a million digits.
    if number and number.adjusted() > _INT64_DIGITS:
        raise BadValueError("is out of range")
    whole = int(number)
    if whole != number:
        raise BadValueError("must be a whole number")
    return whole


def _enum_reader(enum: EnumDescriptor) -> Reader:
    numbers = {value.name: value.number for value in enum.values}
    known = frozenset(numbers.values())
    names = list(numbers)
    choice = ", ".join(names[:_ENUM_NAMES_SHOWN]) + (", …" if len(names) > _ENUM_NAMES_SHOWN else "")
    read_number = _READERS[FieldDescriptor.TYPE_INT32]

    def read(value: Any) -> int:
        if isinstance(value, str):
            named = numbers.get(value)
            if named is None:
                raise BadValueError(f"must be one of {choice}")
            return named
        number: int = read_number(value)
        if enum.is_closed and number not in known:
            raise BadValueError(f"must be one of {choice}")
        return number

    return read


_INT32: Final = _integer_reader(-(2**31), 2**31 - 1)
_INT64: Final = _integer_reader(-(2**63), 2**63 - 1)
_UINT32: Final = _integer_reader(0, 2**32 - 1)
_UINT64: Final = _integer_reader(0, 2**64 - 1)
_READERS: Final[dict[int, Reader]] = {
    FieldDescriptor.TYPE_DOUBLE: read_number,
    FieldDescriptor.TYPE_FLOAT: _float,
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_STRING: read_string,
    FieldDescriptor.TYPE_BYTES: read_bytes,
}
