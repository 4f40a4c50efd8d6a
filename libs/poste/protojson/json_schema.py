"""JSON Schemas of messages (draft 2020-12, which OpenAPI 3.1 takes as it is): what ProtoJSON reads and what it writes.

The two are not the same. Of a request a 64-bit integer may be a number or a text, `null` is a field that is not set,
and a field that is not known is refused. A response spells a 64-bit integer as a text, has no `null` for what is not
set, and may have fields that a newer version added. So a message that is part of both has two schemas, `M-Input` and
`M-Output`; any other has one, called as the message is.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from poste.protojson import plans

Schema: TypeAlias = dict[str, Any]
#: Returns what a proto's comment says of what has this full name; empty if nothing.
Describe: TypeAlias = Callable[[str], str]

#: Where an OpenAPI document has its schemas.
COMPONENTS: Final = "#/components/schemas/"
_NULL: Final[Schema] = {"type": "null"}
#: The numbers that JSON has no number for.
_NOT_FINITE: Final = ("NaN", "Infinity", "-Infinity")
_FLOAT32_MAX: Final = 3.4028234663852886e38
#: A oneof of more members is told in words alone: each pair of them is a rule.
_MAX_EXCLUDED: Final = 8
#: By type: the lowest value, the highest, and how many digits every number may have that lies between.
_INTEGERS: Final = {
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SFIXED32),
        ("int32", -(2**31), 2**31 - 1, 9),
    ),
    **dict.fromkeys(
        (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_SINT64, FieldDescriptor.TYPE_SFIXED64),
        ("int64", -(2**63), 2**63 - 1, 18),
    ),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32), ("uint32", 0, 2**32 - 1, 9)),
    **dict.fromkeys((FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64), ("uint64", 0, 2**64 - 1, 19)),
}
_LONG: Final = ("int64", "uint64")
_BASE64: Final = r"^(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2}(?:==)?|[A-Za-z0-9+/_-]{3}=?)?$"
_MASK_PATH: Final = r"(?:\*|[a-zA-Z0-9]+(?:\.[a-zA-Z0-9]+)*)"
#: Messages with a JSON form of their own, wrappers aside.
_FORMS: Final[dict[str, Schema]] = {
    "google.protobuf.Any": {
        "type": "object",
        "properties": {"@type": {"type": "string", "description": "The message's type, type.googleapis.com/a.B"}},
    },
    "google.protobuf.Duration": {
        "type": "string",
        "pattern": r"^-?(?:0|[1-9][0-9]{0,10})(?:\.[0-9]{1,9})?s$",
        "examples": ["1.5s"],
    },
    "google.protobuf.FieldMask": {
        "type": "string",
        "pattern": f"^(?:{_MASK_PATH}(?:,{_MASK_PATH})*)?$",
        "examples": ["user.displayName,photo"],
    },
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    plans.VALUE: {},
}


class Direction(enum.Enum):
    """Which way a message goes; the value is what is appended to its name where it goes both."""

    INPUT = "-Input"
    OUTPUT = "-Output"


class MessageSchemas:
    """The schemas of the messages of one service.

    Attributes:
        components: The schema of each message, by its name among the components.
    """

    def __init__(self, inputs: Iterable[Descriptor], outputs: Iterable[Descriptor], describe: Describe) -> None:
        """Make them.

        Args:
            inputs: The messages that requests are.
            outputs: Those that responses are.
            describe: Says what comments say.
        """
        self._describe = describe
        reached = {Direction.INPUT: _reached(inputs), Direction.OUTPUT: _reached(outputs)}
        self._both = reached[Direction.INPUT].keys() & reached[Direction.OUTPUT].keys()
        self.components = {
            self._name(descriptor, way): self._object(descriptor, way)
            for way, found in reached.items()
            for descriptor in found.values()
        }

    def message(self, descriptor: Descriptor, way: Direction) -> Schema:
        """Return the schema of a message, which is a reference unless it has a JSON form of its own."""
        if plans.is_wrapper(descriptor):
            return scalar(descriptor.fields_by_name["value"], way)
        if plans.has_form_of_its_own(descriptor):
            return dict(_FORMS[descriptor.full_name])
        return {"$ref": COMPONENTS + self._name(descriptor, way)}

    def field(self, field: FieldDescriptor, way: Direction) -> Schema:
        """Return the schema of all that a field holds, where it is set."""
        if plans.is_map(field):
            values = self.value(plans.value_of(field), way)
            return {"type": "object", **_keys(plans.map_key_of(field)), "additionalProperties": values}
        return {"type": "array", "items": self.value(field, way)} if field.is_repeated else self.value(field, way)

    def value(self, field: FieldDescriptor, way: Direction) -> Schema:
        """Return the schema of one value of a field."""
        return scalar(field, way) if field.message_type is None else self.message(field.message_type, way)

    def _name(self, descriptor: Descriptor, way: Direction) -> str:
        name: str = descriptor.full_name
        return name + way.value if name in self._both else name

    def _object(self, descriptor: Descriptor, way: Direction) -> Schema:
        """Return the schema of a message's fields."""
        keys = plans.keys_of(descriptor)
        said: Schema = {"type": "object"}
        if about := self._describe(descriptor.full_name):
            said["description"] = about
        said["properties"] = {keys[field.name]: self._property(field, way) for field in descriptor.fields}
        if way is Direction.OUTPUT:
            required = [keys[field.name] for field in descriptor.fields if not field.has_presence]
        else:
            required = [keys[field.name] for field in descriptor.fields if plans.is_required(field)]
            # What is not known is refused; an extension is known, and called by its full name in brackets.
            extended = {"patternProperties": {r"^\[.+\]$": True}} if descriptor.is_extendable else {}
            said |= {**extended, "additionalProperties": False, **_exclusions(descriptor, keys)}
        return said | ({"required": required} if required else {})

    def _property(self, field: FieldDescriptor, way: Direction) -> Schema:
        schema = self.field(field, way)
        if way is Direction.INPUT and not (plans.is_required(field) or plans.takes_null(field)):
            schema = or_null(schema)
        about = [text for text in (self._describe(field.full_name), _only_one_of(field)) if text]
        notes: Schema = {"description": "\n\n".join(about)} if about else {}
        if field.GetOptions().deprecated:
            notes["deprecated"] = True
        # Beside a reference too: it is no other's than this field's.
        return {**schema, **notes}


def scalar(field: FieldDescriptor, way: Direction) -> Schema:
    """Return the schema of one value of a field that holds no messages."""
    if field.enum_type is not None:
        return _enum(field.enum_type, way)
    if field.type in _INTEGERS:
        return _integer(field, way)
    match field.type:
        case FieldDescriptor.TYPE_BOOL:
            return {"type": "boolean"}
        case FieldDescriptor.TYPE_STRING:
            return {"type": "string"}
        case FieldDescriptor.TYPE_BYTES:
            pattern = {"pattern": _BASE64} if way is Direction.INPUT else {}
            return {"type": "string", "contentEncoding": "base64", **pattern}
    return _number(field, way)


def or_null(schema: Schema) -> Schema:
    """Return the schema of what another one takes, or null."""
    if not schema:
        return schema
    kind = schema.get("type")
    if kind is None or "enum" in schema:
        return {"anyOf": [*(schema["anyOf"] if schema.keys() == {"anyOf"} else [schema]), _NULL]}
    return {**schema, "type": [*([kind] if isinstance(kind, str) else kind), "null"]}


def _reached(messages: Iterable[Descriptor]) -> dict[str, Descriptor]:
    """Return messages and all that they hold, by name, but for those with a JSON form of their own."""
    found: dict[str, Descriptor] = {}
    waiting = list(messages)
    while waiting:
        descriptor: Any = waiting.pop()
        if plans.has_form_of_its_own(descriptor):
            continue
        if not descriptor.GetOptions().map_entry:
            if descriptor.full_name in found:
                continue
            found[descriptor.full_name] = descriptor
        waiting += [field.message_type for field in descriptor.fields if field.message_type is not None]
    return found


def _integer(field: FieldDescriptor, way: Direction) -> Schema:
    form, lowest, highest, digits = _INTEGERS[field.type]
    sign = "-?" if lowest else ""
    if way is Direction.OUTPUT:
        text = {"type": "string", "format": form, "pattern": f"^{sign}[0-9]+$"}
        return text if form in _LONG else {"type": "integer", "format": form, "minimum": lowest, "maximum": highest}
    pattern = f"^{sign}(?:0|[1-9][0-9]{{0,{digits - 1}}})$"
    return {
        "type": ["string", "integer"] if form in _LONG else ["integer", "string"],
        "format": form,
        "minimum": lowest,
        "maximum": highest,
        "pattern": pattern,
    }


def _number(field: FieldDescriptor, way: Direction) -> Schema:
    number: Schema = {"type": "number", "format": "double"}
    if field.type == FieldDescriptor.TYPE_FLOAT:
        number |= {"format": "float", "minimum": -_FLOAT32_MAX, "maximum": _FLOAT32_MAX}
    text: Schema = {"type": "string", "enum": [*_NOT_FINITE]}
    if way is Direction.INPUT:
        text = {"type": "string", "pattern": r"^(?:NaN|-?Infinity|-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,9})?)$"}
    return {"anyOf": [number, text]}


def _enum(kind: EnumDescriptor, way: Direction) -> Schema:
    names = [value.name for value in kind.values]
    if kind.full_name == "google.protobuf.NullValue":
        return _NULL if way is Direction.OUTPUT else {"anyOf": [_NULL, {"type": "string", "enum": names}]}
    by_name = {"type": "string", "enum": names}
    if kind.is_closed:
        numbers = sorted({value.number for value in kind.values})
        return by_name if way is Direction.OUTPUT else {"anyOf": [by_name, {"type": "integer", "enum": numbers}]}
    # Of a version that knows more values it may be a number, in a response too.
    return {"anyOf": [by_name, {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}]}


def _keys(field: FieldDescriptor) -> Schema:
    """Return what a map's keys may be: texts all, as JSON has no others."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"propertyNames": {"enum": ["true", "false"]}}
    if field.type in _INTEGERS:
        return {"propertyNames": {"pattern": _integer(field, Direction.INPUT)["pattern"]}}
    return {}


def _only_one_of(field: FieldDescriptor) -> str:
    choice = plans.choice_of(field)
    if choice is None:
        return ""
    holder: Any = field.containing_type
    keys = plans.keys_of(holder)
    return f"Only one of these is set: {', '.join(f'`{keys[member.name]}`' for member in choice.fields)}."


def _exclusions(descriptor: Descriptor, keys: dict[str, str]) -> Schema:
    """Return the rules that two members of one oneof are not both there."""
    pairs = [
        {"required": [keys[one.name], keys[other.name]]}
        for group in descriptor.oneofs
        if len(group.fields) <= _MAX_EXCLUDED
        for one, other in itertools.combinations(group.fields, 2)
    ]
    return {"not": {"anyOf": pairs}} if pairs else {}
