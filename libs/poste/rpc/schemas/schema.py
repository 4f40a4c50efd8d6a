"""A method's schema: all that its request and its response are made of, in one canonical text.

The text says nothing of comments, of files and the order in them, of other methods, or of what only matters to JSON and
to generated code: two programs whose methods read and write the same bytes by the same names have the same text. Its
fingerprint is what a kept call carries, and the text is kept once for all calls that do.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

#: How many characters a fingerprint has: 96 bits.
_LENGTH: Final = 16
_FINGERPRINT: Final = re.compile(rf"[0-9A-Za-z_-]{{{_LENGTH}}}")
#: The first line of a text: another form has another one, and with that other fingerprints.
_FORM: Final = "poste method schema 1"
_KINDS: Final[Mapping[int, str]] = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
_OF_TYPES: Final = ("message", "group", "enum")
#: The greatest number that a field may have, and a value of an enum.
_LAST_FIELD: Final = 2**29 - 1
_LAST_VALUE: Final = 2**31 - 1


class Range(NamedTuple):
    """Reserved numbers, both ends included."""

    first: int
    last: int


class Field(NamedTuple):
    """A field of a message.

    `kind` is the type's name in proto, `type_name` the full name of its message or enum, `cardinality` "", "repeated"
    (also a map) or "required", `oneof` the name of the oneof that it is in, `default` its default value if that is not
    zero.
    """

    number: int
    name: str
    kind: str
    type_name: str
    cardinality: str
    oneof: str
    default: str

    @property
    def type(self) -> str:
        """What its type is called."""
        return self.type_name or self.kind


@dataclass(frozen=True, slots=True)
class Message:
    """A message: its fields by number, and what is reserved in it."""

    fields: Mapping[int, Field]
    reserved: tuple[Range, ...]
    reserved_names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum: its values' names by number, and what is reserved in it."""

    values: Mapping[int, tuple[str, ...]]
    reserved: tuple[Range, ...]
    reserved_names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Schema:
    """What a method takes and returns: the full names of both, and every type that is reached from them."""

    request: str
    response: str
    messages: Mapping[str, Message]
    enums: Mapping[str, Enum]


class MethodSchema:
    """A method's schema as its descriptors have it.

    Attributes:
        text: The schema itself.
        fingerprint: What it is called by.
    """

    #: The last two are made when they are asked for first, for few ever are; from then on they cost no call.
    __slots__ = ("_input", "_output", "fingerprint", "text")

    fingerprint: str
    text: bytes

    def __init__(self, input_type: Descriptor, output_type: Descriptor) -> None:
        """Take over a method's request and response."""
        self._input, self._output = input_type, output_type

    def __getattr__(self, name: str) -> object:
        if name == "text":
            self.text = _write(self._input, self._output)
        elif name == "fingerprint":
            self.fingerprint = fingerprint_of(self.text)
        return object.__getattribute__(self, name)


def fingerprint_of(text: bytes) -> str:
    """Return the fingerprint of a schema's text: `is_fingerprint`."""
    return base64.urlsafe_b64encode(hashlib.sha256(text).digest())[:_LENGTH].decode()


def is_fingerprint(text: str) -> bool:
    """Return whether this may be one: 16 characters of base64url."""
    return _FINGERPRINT.fullmatch(text) is not None


def parse(text: bytes) -> Schema:
    """Read a schema's text.

    Raises:
        ValueError: It is none.
    """
    form, _, body = text.partition(b"\n")
    if form.decode("ascii", "replace") != _FORM:
        raise ValueError(f"it does not begin with {_FORM!r}")
    try:
        request, response, messages, enums = json.loads(body)
        return Schema(
            request=request,
            response=response,
            messages={
                name: Message({field[0]: Field(*field) for field in fields}, _ranges(reserved), frozenset(names))
                for name, (fields, reserved, names) in messages.items()
            },
            enums={
                name: Enum({number: tuple(called) for number, called in values}, _ranges(reserved), frozenset(names))
                for name, (values, reserved, names) in enums.items()
            },
        )
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError(f"it is no schema: {error}") from error


def _ranges(listed: Iterable[tuple[int, int]]) -> tuple[Range, ...]:
    return tuple(Range(*one) for one in listed)


def _write(input_type: Descriptor, output_type: Descriptor) -> bytes:
    messages: dict[str, Any] = {}
    enums: dict[str, Any] = {}
    waiting = [input_type, output_type]
    while waiting:
        message = waiting.pop()
        if message.full_name in messages:
            continue
        messages[message.full_name] = _message(message)
        for field in message.fields:
            if field.message_type is not None:
                waiting.append(field.message_type)
            elif field.enum_type is not None:
                enums.setdefault(field.enum_type.full_name, field.enum_type)
    written = [
        input_type.full_name,
        output_type.full_name,
        messages,
        {name: _enum(enum) for name, enum in enums.items()},
    ]
    return f"{_FORM}\n{json.dumps(written, sort_keys=True, separators=(',', ':'))}".encode()


def _message(message: Descriptor) -> list[Any]:
    proto = descriptor_pb2.DescriptorProto()
    message.CopyToProto(proto)
    reserved = [(one.start, min(one.end - 1, _LAST_FIELD)) for one in proto.reserved_range]
    # The oneof of an `optional` in proto3 is only the descriptor's way to say so.
    optional = {field.number for field in proto.field if field.proto3_optional}
    fields = sorted(_field(field, in_oneof=field.number not in optional) for field in message.fields)
    return [fields, _collapsed(reserved), sorted(proto.reserved_name)]


def _field(field: FieldDescriptor, *, in_oneof: bool) -> Field:
    kind = _KINDS[field.type]
    typed = field.message_type or field.enum_type
    oneof = field.containing_oneof
    cardinality = "repeated" if field.is_repeated else "required" if field.is_required else ""
    default = "" if field.is_repeated or field.message_type is not None else _default(field.default_value)
    return Field(
        field.number,
        field.name,
        kind,
        typed.full_name if typed is not None and kind in _OF_TYPES else "",
        cardinality,
        oneof.name if oneof is not None and in_oneof else "",
        default,
    )


def _default(value: Any) -> str:
    """Spell a default value: numbers alike whatever their types, a string as the bytes that it is."""
    if not value:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(int(value)) if isinstance(value, bool) else str(value)


def _enum(enum: EnumDescriptor) -> list[Any]:
    proto = descriptor_pb2.EnumDescriptorProto()
    enum.CopyToProto(proto)
    values: dict[int, list[str]] = {}
    for value in enum.values:
        values.setdefault(value.number, []).append(value.name)
    reserved = [(one.start, min(one.end, _LAST_VALUE)) for one in proto.reserved_range]
    listed = [(number, sorted(names)) for number, names in sorted(values.items())]
    return [listed, _collapsed(reserved), sorted(proto.reserved_name)]


def _collapsed(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the same numbers in the fewest ranges, in their order: how they were written is of no account."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found
