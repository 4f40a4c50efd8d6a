"""Where in a message a value of a path, a query or a body goes."""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from poste.protojson import plans

#: A message whose bytes are the body as they are, of any type.
HTTP_BODY: Final = "google.api.HttpBody"
#: Messages whose JSON is one text, or one number: a path can hold it.
_TEXTS: Final = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"})


class BadFieldError(Exception):
    """A rule names a field that can't be what it is to be; the text says why."""


def find(message: Descriptor, path: str) -> FieldDescriptor:
    """Return the field that a path of names, as the proto has them, leads to.

    Raises:
        BadFieldError: There is none, or what leads there is no message, or one whose JSON has no fields.
    """
    holder: Descriptor | None = message
    field = None
    for name in path.split("."):
        if holder is None:
            raise BadFieldError(f"{path} leads through what is no message")
        if plans.has_form_of_its_own(holder):
            raise BadFieldError(f"{path} leads through a {holder.full_name}, which is one value in JSON")
        field = holder.fields_by_name.get(name)
        if field is None:
            raise BadFieldError(f"{holder.full_name} has no field {name}")
        holder = None if field.is_repeated else field.message_type
    if field is None:
        raise BadFieldError("no field is named")
    return field


def check_captured(message: Descriptor, path: str) -> None:
    """Refuse a field that a part of a path can't be.

    Raises:
        BadFieldError: It can't.
    """
    field = find(message, path)
    if field.is_repeated:
        raise BadFieldError(f"{path} is repeated, which no part of a path may be")
    kind = field.message_type
    if kind is not None and not (plans.is_wrapper(kind) or kind.full_name in _TEXTS):
        raise BadFieldError(f"{path} is a message, which no part of a path can be")


def is_http_body(field: FieldDescriptor) -> bool:
    """Return whether a field holds a body as it is."""
    return not field.is_repeated and field.message_type is not None and field.message_type.full_name == HTTP_BODY
