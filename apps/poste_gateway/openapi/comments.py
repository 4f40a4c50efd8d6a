"""What the comments in a service's protos say, where its descriptors have them (`protoc --include_source_info`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from google.protobuf import descriptor_pb2

_Path: TypeAlias = tuple[int, ...]
# The numbers of fields in descriptor.proto, of which the paths of a SourceCodeInfo are made.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS, _VALUES, _METHODS = 2, 3, 4, 2, 2
#: A longer comment is cut: a description is to be read.
_LONGEST: Final = 4000


def comments_of(file_descriptor_set: bytes) -> dict[str, str]:
    """Return the comments on messages, fields, enums, services and methods, by their full names."""
    found: dict[str, str] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(file_descriptor_set).file:
        if not file.source_code_info.location:
            continue
        names = dict(_names(file))
        for location in file.source_code_info.location:
            name = names.get(tuple(location.path))
            text = location.leading_comments or location.trailing_comments
            if name is not None and text.strip():
                found[name] = _plain(text)
    return found


def _plain(text: str) -> str:
    """Return a comment without the blank that each of its lines begins with."""
    return "\n".join(line.removeprefix(" ").rstrip() for line in text.strip("\n").splitlines())[:_LONGEST].strip()


def _names(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[_Path, str]]:
    """Yield the path of each thing in a file, and its full name."""
    prefix = f"{file.package}." if file.package else ""
    for number, message in enumerate(file.message_type):
        yield from _names_of_message(message, (_MESSAGES, number), prefix)
    for number, enum in enumerate(file.enum_type):
        yield from _names_of_enum(enum, (_ENUMS, number), prefix)
    for number, service in enumerate(file.service):
        path, name = (_SERVICES, number), prefix + service.name
        yield path, name
        for index, method in enumerate(service.method):
            yield (*path, _METHODS, index), f"{name}.{method.name}"


def _names_of_message(message: Any, path: _Path, prefix: str) -> Iterator[tuple[_Path, str]]:
    name = prefix + message.name
    yield path, name
    for number, field in enumerate(message.field):
        yield (*path, _FIELDS, number), f"{name}.{field.name}"
    for number, nested in enumerate(message.nested_type):
        yield from _names_of_message(nested, (*path, _NESTED, number), f"{name}.")
    for number, enum in enumerate(message.enum_type):
        yield from _names_of_enum(enum, (*path, _NESTED_ENUMS, number), f"{name}.")


def _names_of_enum(enum: Any, path: _Path, prefix: str) -> Iterator[tuple[_Path, str]]:
    yield path, prefix + enum.name
    for number, value in enumerate(enum.value):
        # A value's name stands beside its enum's, not below it.
        yield (*path, _VALUES, number), prefix + value.name
