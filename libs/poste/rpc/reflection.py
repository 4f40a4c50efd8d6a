"""Reads what a gRPC server serves from the server itself: its services' descriptors, by server reflection.

The messages of `grpc.reflection.v1` and of `v1alpha` are the same on the wire: only the method's path differs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import grpc.aio
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2 as pb

from poste.domain import input_rules, sizes
from poste.domain.codes import Code
from poste.domain.errors import PosteError
from poste.rpc.channels import code
from poste.rpc.descriptor_sets import serialized_set
from poste.rpc.unreached import in_words

_VERSIONS: Final = ("v1", "v1alpha")
#: How many services of one server are read, how many files are, and how many bytes they have in all.
_MOST_SERVICES: Final = 200
_MOST_FILES: Final = 2000
_MOST_BYTES: Final = 16 * sizes.MAX_DESCRIPTORS
#: So many characters of what a server says of itself are told.
_SHOWN: Final = 200


class ReflectionError(PosteError):
    """What a server serves can't be read from it; the text says why."""


class NoReflection(ReflectionError):  # noqa: N818 - it states a fact
    """A server has none."""


async def read_services(channel: grpc.aio.Channel, *, timeout_seconds: float) -> dict[str, bytes]:
    """Return the services that a server has, by their full names: of each a FileDescriptorSet with all that it needs.

    Health, reflection and whatever else is in a reserved package is left out.

    Args:
        channel: To the server.
        timeout_seconds: How long all of it may take.

    Raises:
        NoReflection: The server has none.
        ReflectionError: It does not answer, or says what makes no sense.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            for version in _VERSIONS:
                try:
                    return await _Reading(channel, version).read()
                except grpc.aio.AioRpcError as error:
                    if code(error) is not Code.UNIMPLEMENTED:
                        why = f"{code(error).name} {in_words(error.details() or '')}"
                        raise ReflectionError(f"it can't be reached, or its reflection fails: {why}") from error
    except TimeoutError as error:
        raise ReflectionError(f"it did not answer within {timeout_seconds:g} s") from error
    raise NoReflection("it has no server reflection")


class _Reading:
    """What is read from one server.

    Each question is a call of its own, which goes with its request at once. In a call that stays open a question may
    meet the call's end, and grpc.aio then says INTERNAL in place of what the server said.
    """

    def __init__(self, channel: grpc.aio.Channel, version: str) -> None:
        self._method = channel.unary_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=pb.ServerReflectionRequest.SerializeToString,
            response_deserializer=pb.ServerReflectionResponse.FromString,
        )
        #: Every file by its name, as it came, and what it imports.
        self._files: dict[str, tuple[bytes, tuple[str, ...]]] = {}
        self._bytes = 0

    async def read(self) -> dict[str, bytes]:
        listed = (await self._ask(list_services="")).list_services_response.service
        names = [one.name for one in listed if input_rules.reserved_package(one.name) is None]
        if len(names) > _MOST_SERVICES:
            raise ReflectionError(f"it has {len(names)} services, and {_MOST_SERVICES} are read at most")
        return {name: await self._read_service(name) for name in names}

    async def _read_service(self, name: str) -> bytes:
        """Return a service's file and all that it imports, dependencies first."""
        found: dict[str, bytes] = {}
        left = deque(self._note(await self._ask(file_containing_symbol=name)))
        while left:
            file = left.popleft()
            if file in found:
                continue
            if file not in self._files:
                self._note(await self._ask(file_by_filename=file))
            if file not in self._files:
                raise ReflectionError(f"its reflection does not give the file {file[:_SHOWN]!r}, which {name} needs")
            found[file], imports = self._files[file]
            left.extend(imports)
        # In the same order whenever it is read: in another it would pass for another schema.
        return serialized_set(dict(sorted(found.items())))

    def _note(self, answer: pb.ServerReflectionResponse) -> Iterable[str]:
        """Keep the files of an answer; returns their names."""
        names = []
        for serialized in answer.file_descriptor_response.file_descriptor_proto:
            try:
                file = descriptor_pb2.FileDescriptorProto.FromString(serialized)
            except DecodeError as error:
                raise ReflectionError("its reflection gives files that can't be read") from error
            names.append(file.name)
            if file.name not in self._files:
                self._files[file.name] = (serialized, tuple(file.dependency))
                self._bytes += len(serialized)
        if len(self._files) > _MOST_FILES or self._bytes > _MOST_BYTES:
            raise ReflectionError(
                f"its descriptors are too large: {len(self._files)} files, {self._bytes} bytes, of at most "
                f"{_MOST_FILES} and {_MOST_BYTES}"
            )
        return names

    async def _ask(self, **asked: str) -> pb.ServerReflectionResponse:
        call = self._method(pb.ServerReflectionRequest(**asked))
        try:
            answer: Any = await call.read()
        finally:
            call.cancel()
        if answer is grpc.aio.EOF:
            raise ReflectionError("its reflection ends before it answers")
        if answer.HasField("error_response"):
            words = f"its reflection has no answer to {next(iter(asked.values()))[:_SHOWN]!r}"
            raise ReflectionError(f"{words}: {answer.error_response.error_message[:_SHOWN]}")
        response: pb.ServerReflectionResponse = answer
        return response
