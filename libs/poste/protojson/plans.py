"""What reading a message's JSON needs to know of its descriptor, found out once for each message type."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.api import field_behavior_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message

from poste.protojson import standard
from poste.protojson.scalars import Reader, map_key_reader_of, reader_of

ANY: Final = "google.protobuf.Any"
VALUE: Final = "google.protobuf.Value"
#: What holds any JSON there is: a query and a path have it as JSON.
ANY_JSON: Final = (VALUE, "google.protobuf.Struct", "google.protobuf.ListValue")
_NULL_VALUE: Final = "google.protobuf.NullValue"
#: Messages whose JSON is a scalar's: `google.protobuf.DoubleValue` and the like.
_WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
#: The fields, in the order of their numbers, of messages with a JSON form of their own. What is only called so, and has
#: others, is as any message.
_FORMS: Final = dict.fromkeys(_WRAPPERS, ("value",)) | {
    ANY: ("type_url", "value"),
    "google.protobuf.Duration": ("seconds", "nanos"),
    "google.protobuf.FieldMask": ("paths",),
    "google.protobuf.ListValue": ("values",),
    "google.protobuf.Struct": ("fields",),
    "google.protobuf.Timestamp": ("seconds", "nanos"),
    VALUE: ("null_value", "number_value", "string_value", "bool_value", "struct_value", "list_value"),
}


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """How one field is read.

    Attributes:
        name: Its name in the proto.
        json_name: Its name in JSON.
        extension: The field, if it is an extension.
        required: A request without it is refused.
        essential: No message is whole without it: it is `required` by the syntax, not by an annotation.
        oneof: The group of which one member may be set, if it is in one.
        takes_null: `null` is a value of it, and does not mean that it is unset.
        repeated: Its JSON is an array (a map is not).
        read: Reads one value, if that is a scalar.
        message: The type of one value, if that is a message.
        read_key: Reads a key, if it is a map.
    """

    name: str
    json_name: str
    extension: FieldDescriptor | None
    required: bool
    essential: bool
    oneof: str | None
    takes_null: bool
    repeated: bool
    read: Reader | None
    message: Descriptor | None
    read_key: Reader | None


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """How one message type is read.

    Attributes:
        descriptor: The type.
        make: Makes an empty message.
        fields: Its fields by either name.
        required: Those of them that must be there.
        wrapped: It is a wrapper: its JSON is that of its field `value`.
        special: It has another JSON form of its own.
        flat: It holds no messages.
    """

    descriptor: Descriptor
    make: type[Message]
    fields: Mapping[str, FieldPlan]
    required: tuple[FieldPlan, ...]
    wrapped: FieldPlan | None
    special: bool
    flat: bool


# Bounded, since each plan keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=1024)
def plan_of(descriptor: Descriptor) -> MessagePlan:
    """Return how a message type is read."""
    keys = keys_of(descriptor)
    plans = [_field_plan(field, keys[field.name]) for field in descriptor.fields]
    by_json_name = {plan.json_name: plan for plan in plans}
    return MessagePlan(
        descriptor=descriptor,
        make=class_of(descriptor),
        fields={plan.name: plan for plan in plans} | by_json_name,
        required=tuple(plan for plan in plans if plan.required),
        wrapped=by_json_name["value"] if is_wrapper(descriptor) else None,
        special=has_form_of_its_own(descriptor) and not is_wrapper(descriptor),
        flat=all(field.message_type is None for field in descriptor.fields),
    )


def extension_plan(descriptor: Descriptor, key: str) -> FieldPlan | None:
    """Return how an extension of a message type is read, by its key in JSON, `[package.name]`; None if none is."""
    if not (descriptor.is_extendable and key.startswith("[") and key.endswith("]")):
        return None
    try:
        field: FieldDescriptor = descriptor.file.pool.FindExtensionByName(key[1:-1])
    except (KeyError, TypeError, ValueError):
        # TypeError: half of a surrogate pair, which JSON can escape, and protobuf takes for no text.
        return None
    return _extension_plan(field) if field.containing_type is descriptor else None


def class_of(descriptor: Descriptor) -> type[Any]:
    """Return the class of a type's messages. Its methods are to be called by it: a field may be named as one is."""
    return message_factory.GetMessageClass(descriptor)


def keys_of(descriptor: Descriptor) -> dict[str, str]:
    """Return what a type's fields are called in JSON, by their names in the proto."""
    # An old proto may allow that two fields have one JSON name (`deprecated_legacy_json_field_conflicts`).
    uses = Counter(field.json_name for field in descriptor.fields)
    return {field.name: field.json_name if uses[field.json_name] == 1 else field.name for field in descriptor.fields}


def extension_key(field: FieldDescriptor) -> str:
    """Return what an extension is called in JSON."""
    return f"[{field.full_name}]"


def find_message_type(pool: Any, type_url: str) -> Descriptor | None:
    """Return the type that an Any names, None if it is not known."""
    name = type_url.rpartition("/")[2]
    try:
        found: Descriptor = pool.FindMessageTypeByName(name)
    except (KeyError, ValueError):
        # Most services never need them, and each has a pool of its own: they would be most of its memory.
        standard.add_to(pool)
        try:
            found = pool.FindMessageTypeByName(name)
        except (KeyError, ValueError):
            return None
    return found


def has_form_of_its_own(descriptor: Descriptor) -> bool:
    """Return whether a type's JSON is not the object of its fields."""
    fields = _FORMS.get(descriptor.full_name)
    return fields is not None and dict(enumerate(fields, 1)) == {
        field.number: field.name for field in descriptor.fields
    }


def is_wrapper(descriptor: Descriptor) -> bool:
    """Return whether a type's JSON is that of its field `value`."""
    return descriptor.full_name in _WRAPPERS and has_form_of_its_own(descriptor)


def is_map(field: FieldDescriptor) -> bool:
    """Return whether a field is a map."""
    message: Any = field.message_type
    return message is not None and bool(message.GetOptions().map_entry)


def value_of(field: FieldDescriptor) -> FieldDescriptor:
    """Return the field of one value: the field itself, or that of a map's values."""
    return _in_entry(field, "value") if is_map(field) else field


def map_key_of(field: FieldDescriptor) -> FieldDescriptor:
    """Return the field of a map's keys."""
    return _in_entry(field, "key")


def _in_entry(field: FieldDescriptor, name: str) -> FieldDescriptor:
    entry: Any = field.message_type
    found: FieldDescriptor = entry.fields_by_name[name]
    return found


def choice_of(field: FieldDescriptor) -> OneofDescriptor | None:
    """Return the oneof that a field is in, None for a field that is only `optional`: that is alone in one."""
    group = field.containing_oneof
    return None if group is None or len(group.fields) == 1 else group


# Bounded, since each plan keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=1024)
def _extension_plan(field: FieldDescriptor) -> FieldPlan:
    return _field_plan(field, extension_key(field))


def _field_plan(field: FieldDescriptor, key: str) -> FieldPlan:
    value, keyed = value_of(field), is_map(field)
    scalar = value.message_type is None
    return FieldPlan(
        name=field.name,
        json_name=key,
        extension=field if field.is_extension else None,
        required=is_required(field),
        essential=field.is_required,
        oneof=field.containing_oneof.name if field.containing_oneof is not None else None,
        takes_null=takes_null(field),
        repeated=field.is_repeated and not keyed,
        read=reader_of(value) if scalar else None,
        message=None if scalar else value.message_type,
        read_key=map_key_reader_of(map_key_of(field)) if keyed else None,
    )


def takes_null(field: FieldDescriptor) -> bool:
    """Return whether `null` is a value of the field, and does not mean that it is unset."""
    value = value_of(field)
    if value.message_type is not None:
        return bool(value.message_type.full_name == VALUE)
    return value.enum_type is not None and value.enum_type.full_name == _NULL_VALUE


def is_required(field: FieldDescriptor) -> bool:
    """Return whether a message without the field is refused."""
    behaviors = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return field.is_required or field_behavior_pb2.REQUIRED in behaviors
