"""A gRPC server that knows nothing of Poste and says what it serves: by reflection, v1 or v1alpha, or neither."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from poste.rpc.descriptor_sets import file_descriptor_set
from support import grpc_server

NAME = "foreign.v1.Depot"
BOTH = ("v1", "v1alpha")
_F = descriptor_pb2.FieldDescriptorProto


def pool_of(methods: Sequence[str], *names: str) -> descriptor_pool.DescriptorPool:
    """Describe the depot, under each of the names: two files of its own, and one that all programs have."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    items = descriptor_pb2.FileDescriptorProto(name="foreign/v1/item.proto", package="foreign.v1", syntax="proto3")
    items.dependency.append(timestamp_pb2.DESCRIPTOR.name)
    item = items.message_type.add(name="Item")
    item.field.add(name="sku", number=1, type=_F.TYPE_STRING, label=_F.LABEL_OPTIONAL)
    at = item.field.add(name="at", number=2, type=_F.TYPE_MESSAGE, label=_F.LABEL_OPTIONAL)
    at.type_name = ".google.protobuf.Timestamp"
    pool.AddSerializedFile(items.SerializeToString())
    for name in names or (NAME,):
        package, _, short = name.rpartition(".")
        depot = descriptor_pb2.FileDescriptorProto(name=f"{package}/{short}.proto", package=package, syntax="proto3")
        depot.dependency.append(items.name)
        service = depot.service.add(name=short)
        for method in methods:
            service.method.add(name=method, input_type=".foreign.v1.Item", output_type=".foreign.v1.Item")
        pool.AddSerializedFile(depot.SerializeToString())
    return pool


def descriptors(methods: Sequence[str], name: str = NAME) -> bytes:
    """The same, as a FileDescriptorSet."""
    return file_descriptor_set(pool_of(methods, name).FindServiceByName(name).file)


@contextlib.asynccontextmanager
async def serving(
    methods: Sequence[str] = ("Store",),
    *,
    versions: Collection[str] = BOTH,
    port: int = 0,
    names: Sequence[str] = (NAME,),
    tls: grpc.ServerCredentials | None = None,
    callers: list[Mapping[str, Sequence[bytes]]] | None = None,
) -> AsyncIterator[int]:
    """Serve it; each method gives back what it got, and notes what its caller showed. Yields the port."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    item: Any = message_factory.GetMessageClass(pool_of(methods).FindMessageTypeByName("foreign.v1.Item"))

    async def echo(request: Any, context: Any) -> Any:
        if callers is not None:
            callers.append(context.auth_context())
        return request

    handler: Any = grpc.unary_unary_rpc_method_handler(echo, item.FromString, item.SerializeToString)
    for name in names:
        handlers = grpc.method_handlers_generic_handler(name, dict.fromkeys(methods, handler))
        server.add_generic_rpc_handlers((handlers,))
    servicer = reflection.aio.ReflectionServicer([*names, reflection.SERVICE_NAME], pool=pool_of(methods, *names))
    add_reflection(server, servicer.ServerReflectionInfo, versions)
    async with grpc_server.listening(server, port, tls) as bound:
        yield bound


def add_reflection(server: grpc.aio.Server, serve: Any, versions: Collection[str] = BOTH) -> None:
    """Serve reflection under the names of these versions: their messages are the same."""
    handler: Any = grpc.stream_stream_rpc_method_handler(
        serve, reflection_pb2.ServerReflectionRequest.FromString, lambda answer: answer.SerializeToString()
    )
    for version in versions:
        name = f"grpc.reflection.{version}.ServerReflection"
        handlers = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((handlers,))
