"""What a server says of itself is read from it, whatever it says, and however much."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb
from support import depot
from support.ports import free_port

from poste.rpc.channels import connect
from poste.rpc.reflection import ReflectionError, read_services


async def read(port: int, seconds: float = 5) -> dict[str, bytes]:
    async with connect(f"127.0.0.1:{port}", library=False) as channel:
        return await read_services(channel, timeout_seconds=seconds)


@pytest.mark.parametrize("versions", [("v1",), ("v1alpha",), ("v1", "v1alpha")])
async def test_a_servers_services_are_read_with_all_that_they_import(versions):
    """Half of the servers that there are have the older version only, and the newest drop it."""
    async with depot.serving(("Store", "Fetch"), versions=versions) as port:
        found = await read(port)

    # Reflection itself is not a service of the program's own.
    assert list(found) == [depot.NAME]
    files = descriptor_pb2.FileDescriptorSet.FromString(found[depot.NAME]).file
    assert {file.name for file in files} == {
        "foreign.v1/Depot.proto",
        "foreign/v1/item.proto",
        "google/protobuf/timestamp.proto",
    }


async def test_a_server_without_reflection_is_said_to_be_one():
    """Who registers it must learn that another way is needed."""
    async with depot.serving(versions=()) as port:
        with pytest.raises(ReflectionError, match="has no server reflection"):
            await read(port)


async def test_a_server_that_is_not_there_is_said_so_at_once():
    """A mistyped port would be waited for."""
    with pytest.raises(ReflectionError, match="can't be reached"):
        await read(free_port())


def listing(*names: str) -> pb.ServerReflectionResponse:
    services = pb.ListServiceResponse(service=[pb.ServiceResponse(name=name) for name in names])
    return pb.ServerReflectionResponse(list_services_response=services)


def files(*serialized: bytes) -> pb.ServerReflectionResponse:
    return pb.ServerReflectionResponse(
        file_descriptor_response=pb.FileDescriptorResponse(file_descriptor_proto=serialized)
    )


def file(name: str, *imports: str) -> bytes:
    return descriptor_pb2.FileDescriptorProto(name=name, dependency=imports).SerializeToString()


def endless(asked: pb.ServerReflectionRequest) -> Any:
    """Each file imports the next one."""
    if asked.HasField("list_services"):
        return listing("a.A")
    number = int(asked.file_by_filename or 0)
    return files(file(str(number), str(number + 1)))


def circle(asked: pb.ServerReflectionRequest) -> Any:
    return listing("a.A") if asked.HasField("list_services") else files(file("a", "b"), file("b", "a"))


@contextlib.asynccontextmanager
async def answering(answer: Any) -> AsyncIterator[int]:
    """A server whose reflection answers so; with None it never does."""

    async def serve(requests: Any, _: Any) -> Any:
        async for asked in requests:
            said = answer(asked)
            if said is None:
                await asyncio.Event().wait()
            yield said

    server = grpc.aio.server()
    depot.add_reflection(server, serve)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(lambda _: None, "did not answer within", id="silent"),
        pytest.param(lambda _: listing(*(f"a.A{n}" for n in range(201))), "201 services", id="many services"),
        pytest.param(endless, "too large", id="endless imports"),
        pytest.param(
            lambda one: (
                listing("a.A") if one.list_services == "" and not one.file_containing_symbol else files(b"\xff")
            ),
            "can't be read",
            id="garbage",
        ),
        pytest.param(
            lambda one: files() if one.file_containing_symbol or one.file_by_filename else listing("a.A"),
            "",
            id="nothing",
        ),
    ],
)
async def test_what_a_server_says_is_bounded(answer, words):
    """One faulty server would hold the middleware up, or fill it."""
    async with answering(answer) as port:
        if not words:
            assert await read(port) == {"a.A": b""}
            return
        with pytest.raises(ReflectionError, match=words):
            await read(port, 0.5 if words.startswith("did") else 10)


async def test_files_that_import_each_other_in_a_circle_are_read_once():
    """Reading them would never end."""
    async with answering(circle) as port:
        found = await read(port)

    assert [one.name for one in descriptor_pb2.FileDescriptorSet.FromString(found["a.A"]).file] == ["a", "b"]
