"""A peer that fills the catalogue to its last byte does not use up memory elsewhere: the measure of Faults II."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from support.deployment import SUM, Deployment, deployed
from support.standing import standing
from support.waiting import until

from poste.v1 import mom_service_pb2 as pb
from poste.v1.mom_service_pb2_grpc import MomServiceStub


def many_methods(number: int) -> bytes:
    """As many methods as a service may have, each in few bytes."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.message_type.add(name="M")
    service = file.service.add(name=f"S{number}")
    for method in range(1000):
        service.method.add(name=f"A{method}" if method else "A", input_type=".t.M", output_type=".t.M")
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def many_fields(number: int) -> bytes:
    """Messages of many fields, as large as a single service may be."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    for place in range(130):
        message = file.message_type.add(name=f"M{place}")
        for one in range(250):
            message.field.add(name=f"f{one}", number=one + 1, label=1, type=3)
    file.service.add(name=f"S{number}").method.add(name="A", input_type=".t.M0", output_type=".t.M1")
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


async def known(one: Deployment, name: str) -> bool:
    """Return whether the gateway has a service."""
    return (await one.ask("POST", f"/{name}/Nothing")).status == 404 and (
        await one.ask("POST", f"/{name}/A")
    ).status != 404


@pytest.mark.parametrize("make", [many_methods, many_fields])
async def test_a_full_catalogue_is_stood(tmp_path: Path, make: Callable[[int], bytes]) -> None:
    """What is read of descriptors takes many times their bytes, in the middleware and in every gateway."""
    async with deployed(tmp_path, SUM) as one, standing(one) as attack:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{one.moms[0].port}") as channel:
            stub = MomServiceStub(channel)

            async def fill() -> int:
                for number in itertools.count():
                    asked = pb.RegisterServiceRequest(
                        service=f"t.S{number}", file_descriptor_set=make(number), address=f"127.0.0.1:{number + 1}"
                    )
                    await stub.RegisterService(asked, timeout=20)
                    await until(lambda name=asked.service: known(one, name))
                return 0

            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await fill()
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "no room" in (raised.value.details() or "")
        await attack.others.calls(50)
