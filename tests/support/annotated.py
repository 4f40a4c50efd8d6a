"""A service whose methods are annotated as a test says, with fields of every kind: `rules.v1.Cases`.

Its messages have what the public examples have: http.proto's messages, grpc-gateway's bit of everything, Envoy's
bookstore, ESPv2's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.api import annotations_pb2, field_behavior_pb2, http_pb2, httpbody_pb2
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

from poste.v1 import catalogue_pb2
from support import described

NAME = "rules.v1.Cases"
REQUEST, ANSWER, BODY, EMPTY = ".rules.v1.Request", ".rules.v1.Answer", ".google.api.HttpBody", ".google.protobuf.Empty"
F = descriptor_pb2.FieldDescriptorProto
_GOOGLE = (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
_IMPORTS = tuple(module.DESCRIPTOR for module in (*_GOOGLE, annotations_pb2, field_behavior_pb2, httpbody_pb2))
_SCALARS = {
    "double": F.TYPE_DOUBLE,
    "float": F.TYPE_FLOAT,
    "int32": F.TYPE_INT32,
    "int64": F.TYPE_INT64,
    "uint32": F.TYPE_UINT32,
    "uint64": F.TYPE_UINT64,
    "sint32": F.TYPE_SINT32,
    "sint64": F.TYPE_SINT64,
    "fixed32": F.TYPE_FIXED32,
    "fixed64": F.TYPE_FIXED64,
    "sfixed32": F.TYPE_SFIXED32,
    "sfixed64": F.TYPE_SFIXED64,
    "bool": F.TYPE_BOOL,
    "string": F.TYPE_STRING,
    "bytes": F.TYPE_BYTES,
}
_WRAPPERS = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")


def rule(text: str) -> http_pb2.HttpRule:
    """Read a rule as docs/http-rules.md spells it: `PATCH /v1/{name=shelves/*} body=book response_body=title`."""
    verb, path, *more = text.split()
    said = dict(one.split("=", 1) for one in more)
    if verb in ("GET", "PUT", "POST", "DELETE", "PATCH"):
        return http_pb2.HttpRule(**{verb.lower(): path}, **said)
    return http_pb2.HttpRule(custom={"kind": verb, "path": path}, **said)


def pool(methods: Mapping[str, tuple[str, str, list[http_pb2.HttpRule]]], package: str = "rules.v1") -> Any:
    """Make the descriptors of the service with methods of these types and rules, by name."""
    return described.pool_of(*_IMPORTS, _file(methods, package))


def entry(
    *rules: str,
    targets: tuple[str, ...] = (),
    takes: str = REQUEST,
    gives: str = ANSWER,
    **more: Any,
) -> catalogue_pb2.CatalogueService:
    """Return the service with one method, Call, that has these rules, as the catalogue has it."""
    return described.entry(pool({"Call": (takes, gives, [rule(one) for one in rules])}), NAME, *targets, **more)


def entry_of(
    methods: Mapping[str, tuple[str, str, list[str]]], *targets: str, package: str = "rules.v1", **more: Any
) -> catalogue_pb2.CatalogueService:
    """Return the service with these methods, by name what they take, return, and their rules."""
    read = {name: (takes, gives, [rule(one) for one in rules]) for name, (takes, gives, rules) in methods.items()}
    return described.entry(pool(read, package), f"{package}.Cases", *targets, **more)


def _file(methods: Mapping[str, tuple[str, str, list[http_pb2.HttpRule]]], package: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.extend(one.name for one in _IMPORTS)
    for name, values in (("Numeric", ("ZERO", "ONE")), ("Deep", ("FALSE", "TRUE"))):
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    within = f".{package}"
    nested = file.message_type.add(name="Nested")
    described.field(nested, "name")
    described.field(nested, "amount", F.TYPE_UINT32)
    described.field(nested, "ok", f"{within}.Deep", type=F.TYPE_ENUM)
    book = file.message_type.add(name="Book")
    described.field(book, "id", F.TYPE_INT64)
    for name in ("name", "author", "title"):
        described.field(book, name)
    described.field(book, "quotes", repeated=True)
    described.field(book, "content", BODY)
    described.field(book, "create_time", ".google.protobuf.Timestamp")
    _add_request(file.message_type.add(name="Request"), within)
    answer = file.message_type.add(name="Answer")
    described.field(answer, "said", f"{within}.Request")
    described.field(answer, "text")
    described.field(answer, "number", F.TYPE_INT64)
    described.field(answer, "names", repeated=True)
    described.field(answer, "book", f"{within}.Book")
    described.field(answer, "books", f"{within}.Book", repeated=True)
    described.map_field(answer, "labels", F.TYPE_STRING, F.TYPE_INT64, f"{within}.Answer")
    described.field(answer, "content", BODY)
    service = file.service.add(name="Cases")
    for name, (takes, gives, rules) in methods.items():
        method = service.method.add(
            name=name, input_type=takes.replace(".rules.v1", within), output_type=gives.replace(".rules.v1", within)
        )
        first, *further = rules or [http_pb2.HttpRule()]
        added = method.options.Extensions[annotations_pb2.http]
        added.CopyFrom(first)
        added.additional_bindings.extend(further)
    return file


def _add_request(request: Any, within: str) -> None:
    for kind, number in _SCALARS.items():
        described.field(request, f"{kind}_value", number)
        described.field(request, f"many_{kind}", number, repeated=True)
    for name in ("name", "parent", "uuid", "x", "y", "message_id", "user_id", "text", "nonConventionalNameValue"):
        described.field(request, name)
    described.field(request, "revision", F.TYPE_INT64)
    described.field(request, "shelf", F.TYPE_INT64)
    described.field(request, "last_name", json_name="lname")
    described.field(request, "enum_value", f"{within}.Numeric", type=F.TYPE_ENUM)
    described.field(request, "many_enum", f"{within}.Numeric", repeated=True, type=F.TYPE_ENUM)
    described.field(request, "nested", f"{within}.Nested")
    described.field(request, "many_nested", f"{within}.Nested", repeated=True)
    described.field(request, "book", f"{within}.Book")
    described.field(request, "request", f"{within}.Request")
    described.field(request, "content", BODY)
    described.map_field(request, "labels", F.TYPE_STRING, F.TYPE_STRING, f"{within}.Request")
    described.map_field(request, "counts", F.TYPE_INT32, F.TYPE_INT32, f"{within}.Request")
    for name, kind in (
        ("at", "Timestamp"),
        ("lasts", "Duration"),
        ("mask", "FieldMask"),
        ("struct", "Struct"),
        ("value", "Value"),
        ("list", "ListValue"),
        ("any", "Any"),
        *((f"wrapped_{kind.lower()}", f"{kind}Value") for kind in _WRAPPERS),
    ):
        described.field(request, name, f".google.protobuf.{kind}")
    request.oneof_decl.add(name="choice")
    for name, kind in (("oneof_string", F.TYPE_STRING), ("oneof_bool", F.TYPE_BOOL)):
        described.field(request, name, kind, oneof_index=0)
