"""How a message type is written as JSON, found out once for each: `json_format` asks the descriptor every time.

It also asks the message itself, by methods that a field may be named as. Here methods are those of the message's class,
and what belongs to the message are its fields alone, whatever they are called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from poste.protojson import structs, wellknown
from poste.protojson.errors import NoFormError, quotable
from poste.protojson.forms import Form, Values
from poste.protojson.plans import (
    ANY,
    class_of,
    extension_key,
    find_message_type,
    has_form_of_its_own,
    is_map,
    is_wrapper,
    keys_of,
)
from poste.protojson.scalar_writers import key_writer, never_fails, scalar_writer, write_bytes

#: Turns a message into JSON values.
Write = Callable[[Message], Any]
#: Turns what a field holds, or one value of it, into JSON values.
_Content = Callable[[Any], Any]


# Bounded, since each keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=1024)
def ways_of(descriptor: Descriptor) -> tuple[Callable[[bytes], Message], Write]:
    """Return what makes a type's messages of bytes (it raises DecodeError), and JSON values of those."""
    return class_of(descriptor).FromString, writers_of(descriptor.file.pool).of(descriptor)


# Bounded, since each keeps the descriptor pool of its service alive.
@functools.lru_cache(maxsize=1024)
def field_ways_of(descriptor: Descriptor, field: str) -> tuple[Callable[[bytes], Message], Write]:
    """Return what makes a type's messages of bytes, as `ways_of` does, and JSON values of one field of those."""
    return class_of(descriptor).FromString, writers_of(descriptor.file.pool).of_field(descriptor, field)


# Bounded, since each keeps its pool alive.
@functools.lru_cache(maxsize=1024)
def writers_of(_pool: Any) -> Writers:
    """Return what writes a pool's messages as values."""
    return Writers(Values())


class Writers:
    """What writes messages, default values included, in one form; each raises NoFormError."""

    def __init__(self, form: Form) -> None:
        """Make such a form of them."""
        self._form = form
        self._known: dict[Descriptor, Write] = {}
        structured = structs.Writer(form)
        #: Messages with a JSON form of their own. None of their fields is named as a method is.
        self._special: dict[str, Callable[[Any], Any]] = {
            ANY: self._any,
            "google.protobuf.Duration": lambda message: wellknown.write_duration(message.seconds, message.nanos),
            "google.protobuf.FieldMask": lambda message: wellknown.write_field_mask(message.paths),
            "google.protobuf.ListValue": structured.list_value,
            "google.protobuf.Struct": structured.struct,
            "google.protobuf.Timestamp": lambda message: wellknown.write_timestamp(message.seconds, message.nanos),
            "google.protobuf.Value": structured.value,
        }

    def of(self, descriptor: Descriptor) -> Write:
        """Return what writes messages of a type."""
        write = self._known.get(descriptor)
        if write is None:
            write = self._known[descriptor] = self._writer(descriptor)
        return write

    def of_field(self, descriptor: Descriptor, name: str) -> Write:
        """Return what writes one field of messages of a type: null where it has a presence, and is not set."""
        field = descriptor.fields_by_name[name]
        content, key = self._content_writer(field), keys_of(descriptor)[name]
        has = class_of(descriptor).HasField if field.has_presence else None

        def write(message: Message) -> Any:
            if has is not None and not has(message, name):
                return None
            try:
                return content(getattr(message, name))
            except NoFormError as error:
                raise error.below(quotable(key)) from None

        return write

    def any_to_value(self, type_url: str, data: bytes, pool: Any) -> dict[str, Any]:
        """Turn what an Any holds into JSON values: as it is, in base64, if its type is unknown.

        Args:
            type_url: Its type, as the Any has it.
            data: The message in it.
            pool: Where the type is looked up.

        Raises:
            NoFormError: The bytes are no such message, or it has no JSON form.
        """
        descriptor = find_message_type(pool, type_url)
        if descriptor is None:
            return {"@type": type_url, "value": write_bytes(data)}
        write = self.of(descriptor)
        try:
            message = class_of(descriptor).FromString(data)
        except DecodeError:
            raise NoFormError(f"holds bytes that are no {descriptor.full_name}") from None
        if has_form_of_its_own(descriptor):
            try:
                return {"@type": type_url, "value": write(message)}
            except NoFormError as error:
                raise error.below("value") from None
        value: dict[str, Any] = write(message)
        if "@type" in value:
            raise NoFormError(f"holds a {descriptor.full_name}, which has a field @type itself")
        return {"@type": type_url, **value}

    def _writer(self, descriptor: Descriptor) -> Write:
        if has_form_of_its_own(descriptor) and not is_wrapper(descriptor):
            return self._special[descriptor.full_name]
        if is_wrapper(descriptor):
            value = self._value_writer(descriptor.fields_by_name["value"])
            return lambda message: value(message.value)  # type: ignore[attr-defined]  # a wrapper has it
        keys = keys_of(descriptor)
        if not descriptor.is_extendable and all(map(_is_always_written, descriptor.fields)):
            scalars = [(keys[field.name], field.name, self._value_writer(field)) for field in descriptor.fields]
            return lambda message: {key: scalar(getattr(message, name)) for key, name, scalar in scalars}
        fields = [self._field_writer(descriptor, field, keys[field.name]) for field in descriptor.fields]
        if descriptor.is_extendable:
            fields.append(self._write_extensions)

        def write(message: Message) -> dict[str, Any]:
            value: dict[str, Any] = {}
            for field in fields:
                field(message, value)
            return value

        return write

    def _field_writer(
        self, descriptor: Descriptor, field: FieldDescriptor, key: str
    ) -> Callable[[Message, dict[str, Any]], None]:
        name, content = field.name, self._content_writer(field)
        has = class_of(descriptor).HasField

        def write(message: Message, value: dict[str, Any]) -> None:
            try:
                value[key] = content(getattr(message, name))
            except NoFormError as error:
                raise error.below(quotable(key)) from None

        def write_if_set(message: Message, value: dict[str, Any]) -> None:
            if has(message, name):
                write(message, value)

        return write_if_set if field.has_presence else write

    def _write_extensions(self, message: Message, value: dict[str, Any]) -> None:
        for field, content in type(message).ListFields(message):
            if field.is_extension:
                key = extension_key(field)
                try:
                    value[key] = self._content_writer(field)(content)
                except NoFormError as error:
                    raise error.below(key) from None

    def _content_writer(self, field: FieldDescriptor) -> _Content:
        """Return what writes all that a field holds."""
        if is_map(field):
            return self._map_writer(field.message_type)
        value = self._value_writer(field)
        return functools.partial(self._form.each, value) if field.is_repeated else value

    def _map_writer(self, entry: Any) -> _Content:
        spell = key_writer(entry.fields_by_name["key"])
        value = self._value_writer(entry.fields_by_name["value"])
        items = self._form.items

        def write(values: Any) -> Any:
            def write_one(key: Any) -> tuple[str, Any]:
                name = spell(key)
                try:
                    return name, value(values[key])
                except NoFormError as error:
                    raise error.below(f"[{quotable(name)}]") from None

            # Not by items(), which fails at a key that is not UTF-8.
            return items(write_one, values)

        return write

    def _value_writer(self, field: FieldDescriptor) -> _Content:
        """Return what writes one value of a field."""
        return scalar_writer(field) if field.message_type is None else self._form.whole(self._later(field.message_type))

    def _later(self, descriptor: Descriptor) -> Write:
        """Return what writes messages of a type that may hold the one whose writer is being made."""
        write: Write | None = None

        def write_it(message: Message) -> Any:
            nonlocal write
            if write is None:
                write = self.of(descriptor)
            return write(message)

        return write_it

    def _any(self, message: Any) -> dict[str, Any]:
        type_url, data = message.type_url, message.value
        return self.any_to_value(type_url, data, message.DESCRIPTOR.file.pool) if type_url or data else {}


def _is_always_written(field: FieldDescriptor) -> bool:
    # If text may be something else, the error must say where it is.
    scalar = field.message_type is None and not field.is_repeated and not field.has_presence
    return scalar and never_fails(field)
