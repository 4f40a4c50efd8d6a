"""What a method's messages are made of, typed: for programs that help to write a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from poste.client.answers import Method


@dataclass(frozen=True, slots=True)
class MessageField:
    """A field of a message.

    Attributes:
        name: Its name in the proto.
        json_name: Its name in JSON.
        type: Of one value: the name of a scalar, an enum or a message, as a proto has it.
        required: A request without it is refused.
        repeated: Its JSON is an array.
        key_type: The type of its keys if it is a map; None if it is none.
        oneof: The group of which one member may be set, if it is in one.
    """

    name: str
    json_name: str
    type: str
    required: bool
    repeated: bool
    key_type: str | None
    oneof: str | None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> MessageField:
        """Take a field from its JSON; raises as `Task.read` does."""
        return cls(
            name=str(document["name"]),
            json_name=str(document["jsonName"]),
            type=str(document["type"]),
            required=bool(document["required"]),
            repeated=bool(document["repeated"]),
            key_type=document.get("keyType"),
            oneof=document.get("oneof"),
        )


@dataclass(frozen=True, slots=True)
class MethodOutline:
    """A method, and what its messages are made of.

    Attributes:
        service: The full name of its service.
        method: The method as it is listed.
        request: The full name of its request message.
        response: The full name of its response message.
        messages: The fields of both, and of the messages in them, by the message's full name. One whose JSON is not an
            object is not there.
        enums: The names of the values of the enums in them.
        document: All of it as it came.
    """

    service: str
    method: Method
    request: str
    response: str
    messages: Mapping[str, tuple[MessageField, ...]]
    enums: Mapping[str, tuple[str, ...]]
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> MethodOutline:
        """Take it from its JSON; raises as `Task.read` does."""
        return cls(
            service=str(document["service"]),
            method=Method.read(document),
            request=str(document["request"]),
            response=str(document["response"]),
            messages={
                str(name): tuple(MessageField.read(one) for one in fields)
                for name, fields in document["messages"].items()
            },
            enums={str(name): tuple(map(str, values)) for name, values in document["enums"].items()},
            document=document,
        )
