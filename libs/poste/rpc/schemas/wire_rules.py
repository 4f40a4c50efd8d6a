"""Whether a schema may follow another: buf's rules of the category WIRE, and what breaks one, in words.

By these rules a request that was written by the earlier schema is read right by the later one, and a response of the
later one by who knows the earlier. The rules and what they are called: https://buf.build/docs/breaking/rules (v2).
Those that are about a service or a file say nothing of a method that is kept: a stream is never kept, whether a call
may run twice stands in its record, and a package is a part of each full name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from poste.rpc.schemas.schema import Enum, Field, Message, Range, Schema

#: Kinds whose values are read right when they were written as another of the same row.
_ALIKE: Final = (
    frozenset({"int32", "int64", "uint32", "uint64", "bool"}),
    frozenset({"sint32", "sint64"}),
    frozenset({"fixed32", "sfixed32"}),
    frozenset({"fixed64", "sfixed64"}),
)


def breaking_changes(before: Schema, now: Schema) -> list[str]:
    """Return what of a schema breaks those who know the one before it, in words; nothing if nothing does.

    Args:
        before: The schema that a call was accepted under.
        now: The one that it is to run under.
    """
    found = [
        *_types("request", before.request, now.request),
        *_types("response", before.response, now.response),
    ]
    for name, message in sorted(before.messages.items()):
        if (later := now.messages.get(name)) is not None:
            found += [f"{name}: {words}" for words in _message(message, later, before, now)]
    for name, enum in sorted(before.enums.items()):
        if (later_enum := now.enums.get(name)) is not None:
            found += [f"{name}: {words}" for words in _enum(enum, later_enum)]
    return found


def _types(what: str, before: str, now: str) -> Iterator[str]:
    """RPC_SAME_REQUEST_TYPE, RPC_SAME_RESPONSE_TYPE."""
    if before != now:
        yield f"the {what} changed from {before} to {now}"


def _message(before: Message, now: Message, before_schema: Schema, now_schema: Schema) -> Iterator[str]:
    for number, field in sorted(before.fields.items()):
        later = now.fields.get(number)
        if later is not None:
            yield from _field(field, later, before_schema, now_schema)
        elif not _covered(number, now.reserved):
            # FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED
            yield f"{_called(field)} was removed, and its number is not reserved"
    yield from _required(before, now)
    yield from _reserved("field", before, now)


def _required(before: Message, now: Message) -> Iterator[str]:
    """MESSAGE_SAME_REQUIRED_FIELDS; of a field that both have, its cardinality says it."""
    for number, field in sorted(now.fields.items()):
        if field.cardinality == "required" and number not in before.fields:
            yield f"{_called(field)} was added, and is required"
    for number, field in sorted(before.fields.items()):
        if field.cardinality == "required" and number not in now.fields and _covered(number, now.reserved):
            yield f"{_called(field)} was removed, and was required"


def _field(before: Field, now: Field, before_schema: Schema, now_schema: Schema) -> Iterator[str]:
    called = _called(now)
    if not _same_type(before, now, before_schema, now_schema):
        # FIELD_WIRE_COMPATIBLE_TYPE
        yield f"{called} changed from {before.type} to {now.type}"
    elif before.default != now.default:
        # FIELD_SAME_DEFAULT
        yield f"the default of {called} changed from {before.default or 'none'} to {now.default or 'none'}"
    if before.cardinality != now.cardinality:
        # FIELD_WIRE_COMPATIBLE_CARDINALITY
        yield f"{called} changed from {before.cardinality or 'singular'} to {now.cardinality or 'singular'}"
    if before.oneof != now.oneof:
        # FIELD_SAME_ONEOF
        yield f"{called} moved from {_oneof(before)} to {_oneof(now)}"


def _same_type(before: Field, now: Field, before_schema: Schema, now_schema: Schema) -> bool:
    if before.kind != now.kind:
        # What is written as a string is read as bytes; bytes may be no string.
        grown = (before.kind, now.kind) == ("string", "bytes")
        return grown or any(before.kind in row and now.kind in row for row in _ALIKE)
    if before.type_name == now.type_name:
        return True
    if now.kind != "enum" or _short(before.type_name) != _short(now.type_name):
        return False
    # An enum that moved, and may have got more values.
    earlier, later = before_schema.enums[before.type_name], now_schema.enums[now.type_name]
    return all(set(names) <= set(later.values.get(number, ())) for number, names in earlier.values.items())


def _enum(before: Enum, now: Enum) -> Iterator[str]:
    for number, names in sorted(before.values.items()):
        if number not in now.values and not _covered(number, now.reserved):
            # ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED
            yield f"value {number} `{names[0]}` was removed, and its number is not reserved"
    yield from _reserved("value", before, now)


def _reserved(what: str, before: Message | Enum, now: Message | Enum) -> Iterator[str]:
    """RESERVED_MESSAGE_NO_DELETE, RESERVED_ENUM_NO_DELETE."""
    for one in before.reserved:
        if not any(other.first <= one.first and one.last <= other.last for other in now.reserved):
            spelt = f"{one.first}" if one.first == one.last else f"{one.first} to {one.last}"
            yield f"of the reserved {what} numbers {spelt} some are not reserved any more"
    for name in sorted(before.reserved_names - now.reserved_names):
        yield f"the {what} name `{name}` is not reserved any more"


def _covered(number: int, ranges: Iterable[Range]) -> bool:
    return any(one.first <= number <= one.last for one in ranges)


def _called(field: Field) -> str:
    return f"field {field.number} `{field.name}`"


def _oneof(field: Field) -> str:
    return f"the oneof `{field.oneof}`" if field.oneof else "outside of a oneof"


def _short(name: str) -> str:
    return name.rpartition(".")[2]
