"""Answers are shown: their types are known, and what can't be written says where it is, and why."""

from __future__ import annotations

import json
import math
import sys
from types import ModuleType
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
)
from google.rpc import error_details_pb2, status_pb2
from google.rpc.context import attribute_context_pb2
from structlog.testing import capture_logs
from support import described, shop
from support.gateway import fail_richly, staged
from support.waiting import until
from support.worker import FakeMom, running_worker, serving_mom
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste import protojson
from poste.protojson.plans import find_message_type
from poste.rpc.catalogue import describe
from poste.service import loaded
from poste.v1 import catalogue_pb2, task_pb2

PLACE, GET = "/v1/orders", f"/{shop.NAME}/Get"
PREFIX = "type.googleapis.com/"
BAD_TIME = timestamp_pb2.Timestamp(nanos=-1)


def pack(message: Any) -> any_pb2.Any:
    return any_pb2.Any(type_url=PREFIX + message.DESCRIPTOR.full_name, value=message.SerializeToString())


def unprintable(message: Any) -> protojson.UnprintableError:
    with pytest.raises(protojson.UnprintableError) as caught:
        protojson.encode(message.DESCRIPTOR, message.SerializeToString())
    return caught.value


def described_ledger() -> Any:
    """The service of the ledger as the gateway knows it: its files import nothing of Google's but any type."""
    return describe(described.entry(descriptor_pool.Default(), "testing.v1.LedgerService"))


STANDARD = {
    source_context_pb2.SourceContext: {"fileName": ""},
    type_pb2.Field: {"kind": "TYPE_UNKNOWN"},
    descriptor_pb2.DescriptorProto: {"field": []},
    error_details_pb2.QuotaFailure: {"violations": []},
    status_pb2.Status: {"code": 0},
    attribute_context_pb2.AttributeContext: {"extensions": []},
    httpbody_pb2.HttpBody: {"contentType": ""},
    timestamp_pb2.Timestamp: {"value": "1970-01-01T00:00:00Z"},
    struct_pb2.Value: {"value": None},
}


@pytest.mark.parametrize("make", STANDARD, ids=lambda make: make.DESCRIPTOR.full_name)
def test_a_standard_type_is_known_of_every_service(make):
    """Else an answer that holds one is lost, because the service's own file does not import it."""
    pool = described_ledger().pool
    packed = pack(make())

    shown = protojson.any_to_value(packed.type_url, packed.value, pool)

    assert shown["@type"] == packed.type_url
    assert STANDARD[make].items() <= shown.items()


def test_what_a_service_has_in_place_of_a_standard_file_is_kept():
    """Else a service that declares such a name itself is refused, or shown by another's types."""
    file = descriptor_pb2.FileDescriptorProto(name="own/time.proto", package="google.protobuf", syntax="proto3")
    described.field(file.message_type.add(name="Timestamp"), "clock")
    service = descriptor_pb2.FileDescriptorProto(name="own.proto", package="own", syntax="proto3")
    service.dependency.append(file.name)
    described.service(service, "Own", {"Call": (".google.protobuf.Timestamp", ".google.protobuf.Timestamp")})
    files = descriptor_pb2.FileDescriptorSet(file=[file, service])

    own = describe(catalogue_pb2.CatalogueService(name="own.Own", file_descriptor_set=files.SerializeToString()))

    descriptor = own.methods["Call"].input
    assert protojson.encode(descriptor, protojson.decode(descriptor, b'{"clock":"x"}')) == b'{"clock":"x"}'
    assert find_message_type(own.pool, "x/google.rpc.ErrorInfo")


def program_file(name: str, package: str, *, padding: int = 0) -> ModuleType:
    """Load a file as generated code does, and return its module."""
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    described.field(file.message_type.add(name="Thing" + "x" * padding), "name")
    module = ModuleType(f"field_{name.replace('/', '_')}")
    module.DESCRIPTOR = descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return module


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch):
    def load(*args: Any, **more: Any) -> None:
        module = program_file(*args, **more)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return load


def registered(file_descriptor_set: bytes) -> list[str]:
    return [file.name for file in descriptor_pb2.FileDescriptorSet.FromString(file_descriptor_set).file]


async def test_what_the_program_has_loaded_is_registered_with_the_service(loads):
    """Else an Any of a message that the service imports in Python, and not in its proto, is not shown."""
    loads("elsewhere/thing.proto", "elsewhere.v1")
    mom = FakeMom()
    async with serving_mom(mom) as target, running_worker(ledger_pb2_grpc.LedgerServiceServicer(), mom=target):
        await until(lambda: mom.registered, what="the registration")

    request = mom.registered[0]
    service = describe(
        catalogue_pb2.CatalogueService(name=request.service, file_descriptor_set=request.file_descriptor_set)
    )
    shown = protojson.any_to_value("x/elsewhere.v1.Thing", b"\x0a\x01a", service.pool)
    assert shown == {"@type": "x/elsewhere.v1.Thing", "name": "a"}
    # Not Poste's own, nor those that a reader of the descriptors adds.
    names = registered(request.file_descriptor_set)
    assert not [name for name in names if name.startswith(("poste/", "google/rpc/", "grpc_"))]


def test_the_nearest_files_are_registered_as_far_as_there_is_room(loads):
    """Else a program with a whole cloud's types takes up what the catalogue can hold of all services."""
    own = ledger_pb2.DESCRIPTOR
    loads("aaa/large.proto", "aaa", padding=loaded.MAX_MORE_BYTES * 2 // 3)
    loads("zzz/near.proto", "testing.elsewhere", padding=loaded.MAX_MORE_BYTES * 2 // 3)
    loads("zzz/small.proto", "zzz")
    with capture_logs() as logs:
        names = registered(loaded.file_descriptor_set(own))

    assert {own.name, "zzz/near.proto", "zzz/small.proto"} <= set(names)
    assert "aaa/large.proto" not in names
    assert [line["event"] for line in logs] == ["types not registered"]
    assert len(loaded.file_descriptor_set(own)) < loaded.MAX_MORE_BYTES + 64 * 1024


@pytest.mark.parametrize(
    ("value", "field", "reason"),
    [
        ({"value": struct_pb2.Value(number_value=math.nan)}, "value", "NaN"),
        ({"struct": struct_pb2.Struct(fields={"a": {"number_value": math.inf}})}, "struct.a", "Infinity"),
        ({"list": struct_pb2.ListValue(values=[{"number_value": 1}, {"number_value": -math.inf}])}, "list[1]", "-Inf"),
        ({"at": timestamp_pb2.Timestamp(seconds=2**40)}, "at", "years 1 to 9999"),
        ({"at": BAD_TIME}, "at", "-1 nanoseconds"),
        ({"mask": field_mask_pb2.FieldMask(paths=["ok", "custom_label_0"])}, "mask", "custom_label_0"),
        ({"mask": field_mask_pb2.FieldMask(paths=["Upper"])}, "mask", "Upper"),
        ({"mask": field_mask_pb2.FieldMask(paths=["a,b"])}, "mask", "a,b"),
        ({"mask": field_mask_pb2.FieldMask(paths=[""])}, "mask", "''"),
        ({"any": any_pb2.Any(type_url="x/shop.v1.Item", value=b"\xff")}, "any", "no shop.v1.Item"),
        ({"any": pack(struct_pb2.Value(number_value=math.nan))}, "any.value", "NaN"),
        ({"any": pack(status_pb2.Status(details=[pack(BAD_TIME)]))}, "any.details[0].value", "-1"),
    ],
)
def test_what_cannot_be_written_is_told_with_its_field(value, field, reason):
    """Else a service's author searches an answer of a hundred fields, of which only the client has heard."""
    descriptor = describe(shop.entry()).methods["Get"].output
    order = described.message_class(descriptor.file.pool, "shop.v1.Order")()
    for name, held in value.items():
        getattr(order, name).MergeFromString(held.SerializeToString())
        getattr(order, name).SetInParent()

    error = unprintable(order).error

    assert error.field == field
    assert reason in error.reason


def test_text_that_is_not_utf8_is_told_with_its_field():
    """Else an old service's answer is refused without a word on where."""
    file = descriptor_pb2.FileDescriptorProto(name="old.proto", package="old", syntax="proto2")
    message = file.message_type.add(name="Old")
    described.field(message, "text")
    described.field(message, "many", ".old.Old", repeated=True)
    described.map_field(message, "labels", described.F.TYPE_STRING, described.F.TYPE_STRING, ".old.Old")
    old = described.message_class(described.pool_of(file), "old.Old")
    broken = old.FromString(b"\x0a\x01\xff")

    assert unprintable(old(many=[old(), broken])).error == ("many[1].text", "is not UTF-8")
    assert unprintable(old.FromString(b"\x1a\x06\x0a\x01a\x12\x01\xff")).error == ("labels[a]", "is not UTF-8")
    assert unprintable(old.FromString(b"\x1a\x03\x0a\x01\xff")).error == ("labels", "has a key that is not UTF-8")


def test_an_any_of_an_unknown_type_goes_both_ways_as_its_bytes():
    """Else an answer is lost for a detail that the client may well know, and can't be given back as it is."""
    order = shop.Order(any={"type_url": "example.org/none.Such", "value": b"\x08\x01\xff"})

    there = protojson.encode(shop.Order.DESCRIPTOR, order.SerializeToString())

    assert json.loads(there)["any"] == {"@type": "example.org/none.Such", "value": "CAH/"}
    assert shop.Order.FromString(protojson.decode(shop.Order.DESCRIPTOR, there)) == order
    for body, field in (
        ({"@type": "x/none.Such", "value": "?"}, "any.value"),
        ({"@type": "x/none.Such", "value": 5}, "any.value"),
        ({"@type": "x/none.Such", "value": "", "more": 1}, "any.@type"),
        ({"@type": "x/none.Such"}, "any.@type"),
        ({"@type": 5, "value": ""}, "any.@type"),
    ):
        with pytest.raises(protojson.FieldErrors) as caught:
            protojson.decode(shop.Order.DESCRIPTOR, json.dumps({"any": body}).encode())
        assert [error.field for error in caught.value.errors] == [field]


async def test_the_client_and_the_log_are_told_on_both_roads(tmp_path):
    """Else the client gets a 500 after the handler ran, and the log says no more than that."""

    async def late(_: Any, __: grpc.aio.ServicerContext) -> Any:
        return shop.Broken(note=b"\xff")

    order = shop.Order(at={"seconds": 2**40})
    told = [{"field": "at", "reason": f"is an instant outside of the years 1 to 9999: {2**40} seconds from 1970"}]
    async with staged(tmp_path, late) as stage:
        with capture_logs() as logs:
            reply = await stage.gateway.post(PLACE, {})
            accepted = await stage.gateway.post(GET, {"sku": "x"}, Prefer="respond-async")
            key = next(iter(stage.mom.requests))
            stage.mom.change(key, state=task_pb2.TASK_STATE_SUCCEEDED, response=order.SerializeToString())
            task = await stage.gateway.get(accepted.headers["Location"])

        assert (reply.status, reply.body["type"]) == (500, "/problems/unreadable-answer")
        assert reply.body["errors"] == [{"field": "", "reason": "its bytes are no shop.v1.Receipt"}]
        assert task.body["state"] == "SUCCEEDED"
        assert task.body["error"]["errors"] == told
        assert "at: is an instant" in task.body["error"]["detail"]
        lines = [line for line in logs if line["event"] == "answer unreadable"]
        assert [(line["method"], line["field"]) for line in lines] == [("Place", ""), ("Get", "at")]
        assert lines[1]["reason"] == told[0]["reason"]


async def test_details_of_a_status_are_shown_as_well_as_answers_are(tmp_path):
    """Else the details of an error are read by other rules than what a service answers."""
    inner = status_pb2.Status(code=5, details=[pack(shop.Item(sku="x")), any_pb2.Any(type_url="x/y.Z", value=b"1")])
    status = status_pb2.Status(code=3, details=[pack(inner), pack(BAD_TIME)])
    async with staged(tmp_path, fail_richly(status)) as stage:
        reply = await stage.gateway.post(PLACE, {})

        first, second = reply.body["details"]
        assert first["details"] == [
            {"@type": f"{PREFIX}shop.v1.Item", "sku": "x", "unitPrice": 0, "items": []},
            {"@type": "x/y.Z", "value": "MQ=="},
        ]
        # What can't be written is given as it is: the status counts for more.
        assert second == {"@type": f"{PREFIX}google.protobuf.Timestamp", "value": "EP///////////wE="}
