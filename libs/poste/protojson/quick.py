"""The short way from a request's JSON to its message, for the plainest types: numbers, strings and truth values alone.

It says nothing of what is wrong, and takes only what is plainly right; whatever else there is in the text, `reading`
walks through it field by field. That costs five times as much, which shows on a road that costs so little otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from poste.protojson.plans import choice_of, plan_of

#: Reads a body; None if it is not for the short way.
Quick = Callable[[bytes], bytes | None]

_NUMBERS: Final = frozenset({int, float})
_INTEGERS: Final = frozenset({int})
_BACKSLASH: Final = ord("\\")
#: What JSON values may be set as they are, by the field's type. Python's types exactly: `True` is an int too.
_TYPES: Final[dict[int, frozenset[type]]] = {
    FieldDescriptor.TYPE_DOUBLE: _NUMBERS,
    FieldDescriptor.TYPE_INT32: _INTEGERS,
    FieldDescriptor.TYPE_SINT32: _INTEGERS,
    FieldDescriptor.TYPE_SFIXED32: _INTEGERS,
    FieldDescriptor.TYPE_INT64: _INTEGERS,
    FieldDescriptor.TYPE_SINT64: _INTEGERS,
    FieldDescriptor.TYPE_SFIXED64: _INTEGERS,
    FieldDescriptor.TYPE_UINT32: _INTEGERS,
    FieldDescriptor.TYPE_FIXED32: _INTEGERS,
    FieldDescriptor.TYPE_UINT64: _INTEGERS,
    FieldDescriptor.TYPE_FIXED64: _INTEGERS,
    FieldDescriptor.TYPE_BOOL: frozenset({bool}),
    FieldDescriptor.TYPE_STRING: frozenset({str}),
}


# Bounded, since each plan keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=1024)
def quick_of(descriptor: Descriptor) -> Quick:
    """Return what reads messages of a type the short way."""
    plan = plan_of(descriptor)
    if plan.special or plan.wrapped or not all(map(_is_plain, descriptor.fields)):
        return _never
    make: Any = plan.make
    # The class's own: a field of the message may be called so.
    serialize = make.SerializeToString
    types = {field.name: _TYPES[field.type] for field in descriptor.fields}
    plain = {spelt: (field.name, types[field.name]) for spelt, field in plan.fields.items()}
    required = {field.name for field in plan.required}

    def read(body: bytes) -> bytes | None:
        try:
            value = orjson.loads(body)
            if type(value) is not dict or _BACKSLASH in body:
                return None
            texts = len(value)
            fields: dict[str, Any] = {}
            for spelt, one in value.items():
                name, kinds = plain[spelt]
                kind = type(one)
                # `-0` is read as 0 here.
                if kind not in kinds or (not one and b"-0" in body):
                    return None
                if kind is str:
                    texts += 1
                fields[name] = one
            # A key that is there twice, under one name or both, leaves more quotes than fields.
            if body.count(b'"') != 2 * texts or len(fields) != len(value) or not required <= fields.keys():
                return None
            data: bytes = serialize(make(**fields))
        except (ValueError, KeyError):
            # Not JSON, no such field, a number that its field can't hold: the long way says which.
            return None
        return data

    return read


def _is_plain(field: FieldDescriptor) -> bool:
    return field.type in _TYPES and not field.is_repeated and choice_of(field) is None


def _never(_: bytes) -> bytes | None:
    return None
