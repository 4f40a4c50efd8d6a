"""FileDescriptorSets: made of the files that a program has, and read into descriptor pools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError

#: Files that say which options there are, and what those have for values. Options are read by generated code. Most
#: services need these files for nothing else, and each has a pool of its own: they would be most of what it takes.
_OPTIONS: Final = frozenset(
    {
        "google/protobuf/descriptor.proto",
        "google/api/annotations.proto",
        "google/api/client.proto",
        "google/api/field_behavior.proto",
        "google/api/http.proto",
        "google/api/launch_stage.proto",
        "google/api/resource.proto",
    }
)
#: How a pool refuses files.
_BROKEN: Final = (TypeError, KeyError, ValueError, RecursionError)


def file_descriptor_set(file: FileDescriptor) -> bytes:
    """Serialize a file and all that it imports, dependencies first, as a FileDescriptorSet."""
    return serialized_set(files_with_imports(file))


def files_with_imports(file: FileDescriptor) -> dict[str, bytes]:
    """Return a file and all that it imports, dependencies first: each file's name, and its serialized form."""
    found: dict[str, bytes] = {}

    def collect(one: FileDescriptor) -> None:
        if one.name not in found:
            for dependency in one.dependencies:
                collect(dependency)
            found[one.name] = one.serialized_pb

    collect(file)
    return found


def serialized_set(serialized_files: Mapping[str, bytes]) -> bytes:
    """Serialize files as a FileDescriptorSet."""
    files = descriptor_pb2.FileDescriptorSet()
    for serialized in serialized_files.values():
        files.file.add().ParseFromString(serialized)
    return files.SerializeToString()


def pool_of(serialized: bytes) -> descriptor_pool.DescriptorPool:
    """Return a pool of all that a FileDescriptorSet holds, in whatever order its files are.

    Raises:
        ValueError: It is none, or what it holds is broken; the text says which, and how.
    """
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(serialized).file
    except DecodeError as error:
        raise ValueError("not a FileDescriptorSet") from error
    try:
        return _built([_without_options(file) for file in files if file.name not in _OPTIONS])
    except _BROKEN:
        # A message of its own has one of those types in it, or it is broken, which is told of all of it.
        files = descriptor_pb2.FileDescriptorSet.FromString(serialized).file
    try:
        return _built(files)
    except _BROKEN as error:
        raise ValueError(f"broken: {error}") from error


def _without_options(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """Return a file that does not import what only says which options there are."""
    if not _OPTIONS.isdisjoint(file.dependency) and not (file.public_dependency or file.weak_dependency):
        kept = [name for name in file.dependency if name not in _OPTIONS]
        del file.dependency[:]
        file.dependency.extend(kept)
    return file


def _built(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> descriptor_pool.DescriptorPool:
    """Return a pool of these files.

    Raises:
        TypeError, KeyError, ValueError, RecursionError: They are broken, or lack what they import.
    """
    waiting = {file.name: file for file in files}
    names, pool = list(waiting), descriptor_pool.DescriptorPool()

    def add(name: str) -> None:
        # Taken out first: a circle of imports ends here, and the pool then refuses it.
        file = waiting.pop(name, None)
        if file is not None:
            for dependency in file.dependency:
                add(dependency)
            _add(pool, file)

    for name in names:
        add(name)
    for name in names:
        # Builds everything now: what is broken must fail here, not at the first call.
        pool.FindFileByName(name)
    return pool


def _add(pool: descriptor_pool.DescriptorPool, file: descriptor_pb2.FileDescriptorProto) -> None:
    """Add a file to a pool.

    Raises:
        TypeError: It is broken.
    """
    try:
        pool.Add(file)
    except TypeError:
        # To protoc it is a warning, in proto2, that two fields have the same name in JSON; here it is an error, unless
        # the message says that it may be.
        for message in file.message_type:
            _allow_like_names(message)
        pool.Add(file)


def _allow_like_names(message: descriptor_pb2.DescriptorProto) -> None:
    message.options.deprecated_legacy_json_field_conflicts = True
    for nested in message.nested_type:
        _allow_like_names(nested)
