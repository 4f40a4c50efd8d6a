"""What a message's JSON is made of, for who writes one: its fields by name, with their types.

Types are named as a proto does: `double`, `string`, or the full name of an enum or a message. Messages with a JSON form
of their own (Timestamp, wrappers) have their name alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from poste.protojson.plans import (
    choice_of,
    has_form_of_its_own,
    is_map,
    is_required,
    keys_of,
    map_key_of,
    value_of,
)

#: So many fields, and values of enums, are told of. A message that is left out then is known by its name alone.
_MOST: Final = 1000
_SCALARS: Final[Mapping[int, str]] = {
    number: name.removeprefix("TYPE_").lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}


def outline(*descriptors: Descriptor) -> dict[str, Any]:
    """Return messages and what they are made of, and their enums, by their full names.

    ::

        {"messages": {"a.v1.Order": [{"name": "unit_price", "jsonName": "unitPrice", "type": "double",
                                      "required": true, "repeated": false}]},
         "enums": {"a.v1.Colour": ["COLOUR_RED", "COLOUR_BLUE"]}}

    A map's field has its value's `type`, and its key's as `keyType`; one of a group of which one may be set has the
    group's name as `oneof`.
    """
    messages: dict[str, list[dict[str, Any]]] = {}
    enums: dict[str, list[str]] = {}
    waiting, left = deque(descriptors), _MOST
    while waiting:
        message = waiting.popleft()
        if message.full_name in messages or has_form_of_its_own(message) or len(message.fields) > left:
            continue
        left -= len(message.fields)
        keys = keys_of(message)
        messages[message.full_name] = [_field(field, keys[field.name]) for field in message.fields]
        for field in message.fields:
            value = value_of(field)
            if value.message_type is not None:
                waiting.append(value.message_type)
            enum = value.enum_type
            if enum is not None and enum.full_name not in enums and len(enum.values) <= left:
                left -= len(enum.values)
                enums[enum.full_name] = [one.name for one in enum.values]
    return {"messages": messages, "enums": enums}


def _field(field: FieldDescriptor, key: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": field.name,
        "jsonName": key,
        "type": _type(value_of(field)),
        "required": is_required(field),
        "repeated": field.is_repeated and not is_map(field),
    }
    if is_map(field):
        described["keyType"] = _type(map_key_of(field))
    if (choice := choice_of(field)) is not None:
        described["oneof"] = choice.name
    return described


def _type(field: FieldDescriptor) -> str:
    named: Descriptor | EnumDescriptor | None = field.message_type or field.enum_type
    return _SCALARS[field.type] if named is None else named.full_name
