"""Fields may be called whatever protobuf allows: as a method of a message, a keyword of Python, like each other."""

from __future__ import annotations

import builtins
import json
import keyword
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, empty_pb2
from support import described
from support.described import F
from support.gateway import FakeMom, running_gateway, serving_mom

from poste import protojson
from poste.rpc.catalogue import describe
from poste.rpc.servers import Health, bind, new_server
from poste.v1 import catalogue_pb2, task_pb2

NAME = "odd.v1.OddService"
#: Each is a string; in messages of messages, a message of strings.
KINDS = ("Plain", "Optional", "Choice", "Lists", "Maps", "Nested", "Many")


def names() -> list[str]:
    """What a message's class has, in Python and in protobuf, and what Python means something by."""
    odd = {*dir(empty_pb2.Empty), *dir(type(empty_pb2.Empty)), *keyword.kwlist, *dir(builtins)}
    odd |= {"self", "message", "trailing_", "_leading", "two__underscores", "CamelCase", "value", "key", "fields"}
    found: dict[str, str] = {}
    for name in sorted(odd):
        # Two that are the same in lowerCamelCase can't be in one message.
        found.setdefault(name.replace("_", "").lower(), name)
    return list(found.values())


NAMES = names()
VALUES = {"Lists": ["x", "y"], "Maps": {"x": "y"}}


def add_field(message: Any, kind: str, name: str) -> None:
    if kind == "Maps":
        described.map_field(message, name, F.TYPE_STRING, F.TYPE_STRING, f".odd.v1.{kind}")
    elif kind in ("Nested", "Many"):
        described.field(message, name, ".odd.v1.Plain", repeated=kind == "Many")
    else:
        described.field(message, name, repeated=kind == "Lists")


def group(message: Any, kind: str) -> None:
    """Have at most one of the fields set, or each tell whether it is."""
    if kind == "Choice":
        message.oneof_decl.add(name="a_choice")
        for one in message.field:
            one.oneof_index = 0
    elif kind == "Optional":
        for index, one in enumerate(message.field):
            message.oneof_decl.add(name=f"_opt{index}")
            one.proto3_optional, one.oneof_index = True, index


def make_pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="odd.proto", package="odd.v1", syntax="proto3")
    for kind in KINDS:
        message = file.message_type.add(name=kind)
        # Types within a message are attributes of its class, too.
        message.nested_type.add(name="SerializeToString")
        message.nested_type.add(name="HasField")
        for name in NAMES:
            add_field(message, kind, name)
        group(message, kind)
    everything = file.message_type.add(name="Everything")
    for kind in KINDS:
        described.field(everything, kind, f".odd.v1.{kind}")
    described.service(file, "OddService", {"Echo": (".odd.v1.Everything", ".odd.v1.Everything")})
    return described.pool_of(file)


POOL = make_pool()


def value(kind: str, name: str) -> Any:
    if kind == "Nested":
        return {name: "x"}
    return [{name: "x"}, {}] if kind == "Many" else VALUES.get(kind, "x")


@pytest.mark.parametrize("kind", KINDS)
def test_any_legal_name_works_in_and_out_in_either_spelling(kind):
    """Else a call whose request has a field `SerializeToString` is a 500 each time."""
    make = described.message_class(POOL, f"odd.v1.{kind}")
    for field in make.DESCRIPTOR.fields:
        expected = make(**{field.name: value(kind, field.name)})
        for spelt in (field.name, field.json_name):
            body = json.dumps({spelt: value(kind, field.name)}).encode()
            # An escape keeps a body from the short way.
            slow = body.replace(b'"x"', b'"\\u0078"')
            assert slow != body
            for one in (body, slow):
                assert make.FromString(protojson.decode(make.DESCRIPTOR, one)) == expected
        written = json.loads(protojson.encode(make.DESCRIPTOR, make.SerializeToString(expected)))
        read_back = protojson.decode(make.DESCRIPTOR, json.dumps(written).encode())
        assert written[field.json_name]
        assert make.FromString(read_back) == expected


def alike(syntax: str, *, told: bool) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="alike.proto", package="alike", syntax=syntax)
    message = file.message_type.add(name="Message")
    for name in ("foo_bar", "fooBar", "other"):
        described.field(message, name)
    message.options.deprecated_legacy_json_field_conflicts = told
    described.service(file, "Service", {"Call": (".alike.Message", ".alike.Message")})
    return file


@pytest.mark.parametrize(("syntax", "told"), [("proto2", False), ("proto2", True), ("proto3", True)])
def test_fields_whose_names_are_the_same_in_json_go_by_those_of_the_proto(syntax, told):
    """Else a service of old protos is refused as broken, or one of two fields is lost, both ways."""
    files = descriptor_pb2.FileDescriptorSet(file=[alike(syntax, told=told)])
    entry = catalogue_pb2.CatalogueService(name="alike.Service", file_descriptor_set=files.SerializeToString())
    descriptor = describe(entry).methods["Call"].input
    body = b'{"foo_bar":"1","fooBar":"2","other":"3"}'

    assert protojson.encode(descriptor, protojson.decode(descriptor, body)) == body


async def test_such_names_work_on_both_roads(tmp_path):
    """Else what the unit can do, the gateway's own code around it spoils."""
    server = new_server()
    echo = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, {"Echo": echo}),))
    health = Health(server, NAME)
    port = bind(server, "127.0.0.1", 0)
    await server.start()
    await health.serving()
    odd = ("SerializeToString", "DESCRIPTOR", "HasField", "from", "None", "__class__")
    body = {
        "Plain": dict.fromkeys(odd, "x"),
        "Choice": {"FromString": "x"},
        "Nested": {"Extensions": {"SetInParent": "x"}},
        "Maps": {"ListFields": {"a": "b"}},
    }
    mom = FakeMom(described.entry(POOL, NAME, f"127.0.0.1:{port}"))
    try:
        async with serving_mom(mom) as mom_port, running_gateway(tmp_path, mom_port) as gateway:
            await gateway.available(name=NAME)
            reply = await gateway.post(f"/{NAME}/Echo", body)

            assert reply.status == 200
            for kind, fields in body.items():
                for name, held in fields.items():
                    json_name = make_field(kind, name).json_name
                    shown = reply.body[kind][json_name]
                    assert shown == held or {key: one for key, one in shown.items() if one} == held

            accepted = await gateway.post(f"/{NAME}/Echo", body, Prefer="respond-async")
            key, task = next(iter(mom.requests.items()))
            mom.change(key, state=task_pb2.TASK_STATE_SUCCEEDED, response=task.request)
            kept = await gateway.get(accepted.headers["Location"])

            assert (accepted.status, kept.status) == (202, 200)
            assert kept.body["response"] == reply.body
    finally:
        await server.stop(None)


def make_field(kind: str, name: str) -> Any:
    return POOL.FindMessageTypeByName(f"odd.v1.{kind}").fields_by_name[name]
