"""Bounds a message's number of fields before it is parsed: two bytes of it can become an object of a hundred."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

#: Wire types (https://protobuf.dev/programming-guides/encoding): a varint, eight bytes, so many bytes, four bytes.
_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5


def has_at_most(raw: bytes, kind: Descriptor, most: int) -> bool:
    """Return whether a serialized message has no more than `most` fields, those of its messages included.

    What is no message at all has few: the parser ends there.
    """
    left = most
    todo = [(0, len(raw), kind)]
    while todo:
        at, end, described = todo.pop()
        fields = described.fields_by_number
        while at < end:
            left -= 1
            if left < 0:
                return False
            tag, at = _varint(raw, at, end)
            wire = tag & 7
            if wire == _VARINT:
                _, at = _varint(raw, at, end)
            elif wire == _FIXED64:
                at += 8
            elif wire == _FIXED32:
                at += 4
            elif wire == _LENGTH:
                size, at = _varint(raw, at, end)
                field = fields.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    todo.append((at, min(at + size, end), field.message_type))
                elif field is not None and field.is_repeated and field.cpp_type != field.CPPTYPE_STRING:
                    # Numbers, packed: at least a byte each.
                    left -= size
                at += size
            else:
                break
    return True


def _varint(raw: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128 or shift > 63:  # noqa: PLR2004 - seven bits a byte; a number has 64
            return value, at
        shift += 7
    return value, end
