"""Services made of descriptors that a test writes: their messages, and the service as the catalogue has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from poste.rpc.descriptor_sets import file_descriptor_set
from poste.v1 import catalogue_pb2

F = descriptor_pb2.FieldDescriptorProto


def field(message: Any, name: str, kind: int | str = F.TYPE_STRING, *, repeated: bool = False, **more: Any) -> Any:
    """Add a field to a message; `kind` is a type's number, or a message's or enum's name with its type in `type`."""
    label = F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL
    added = message.field.add(name=name, number=len(message.field) + 1, label=label, **more)
    if isinstance(kind, str):
        added.type_name = kind
        added.type = more.get("type", F.TYPE_MESSAGE)
    else:
        added.type = kind
    return added


def map_field(message: Any, name: str, key: int, value: int | str, within: str) -> None:
    """Add a map to a message whose full name, with a dot before it, is `within`."""
    entry = message.nested_type.add(name=f"Map{len(message.nested_type)}Entry")
    entry.options.map_entry = True
    field(entry, "key", key)
    field(entry, "value", value)
    field(message, name, f"{within}.{entry.name}", repeated=True)


def service(file: Any, name: str, methods: Mapping[str, tuple[str, str]]) -> None:
    """Add a service to a file: its methods with what they take and return."""
    added = file.service.add(name=name)
    for method, (takes, gives) in methods.items():
        added.method.add(name=method, input_type=takes, output_type=gives)


def pool_of(*files: Any) -> Any:
    """Make a pool of files; those that generated code has, by their modules' DESCRIPTOR."""
    pool = descriptor_pool.DescriptorPool()
    known: set[str] = set()
    for one in files:
        if isinstance(one, descriptor_pb2.FileDescriptorProto):
            pool.Add(one)
            continue
        for file in descriptor_pb2.FileDescriptorSet.FromString(file_descriptor_set(one)).file:
            if file.name not in known:
                known.add(file.name)
                pool.Add(file)
    return pool


def message_class(pool: Any, name: str) -> Any:
    """Return the class of a type's messages."""
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def entry(pool: Any, name: str, *targets: str, library: bool = True, **more: Any) -> catalogue_pb2.CatalogueService:
    """Return a service of a pool as the catalogue has it."""
    files = file_descriptor_set(pool.FindServiceByName(name).file)
    return catalogue_pb2.CatalogueService(
        name=name, file_descriptor_set=files, targets=targets, library=library, **more
    )
