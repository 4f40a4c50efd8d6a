"""A service made of descriptors alone, as gateways know services: methods of every kind, fields of every type."""

from __future__ import annotations

from typing import Any

import grpc
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

from poste.rpc.descriptor_sets import file_descriptor_set
from poste.v1 import catalogue_pb2

NAME = "shop.v1.OrderService"
_F = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _F.TYPE_DOUBLE,
    "float": _F.TYPE_FLOAT,
    "int32": _F.TYPE_INT32,
    "int64": _F.TYPE_INT64,
    "uint32": _F.TYPE_UINT32,
    "uint64": _F.TYPE_UINT64,
    "bool": _F.TYPE_BOOL,
    "string": _F.TYPE_STRING,
    "bytes": _F.TYPE_BYTES,
}
_GOOGLE = (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
_IMPORTS = (
    *(module.DESCRIPTOR for module in _GOOGLE),
    annotations_pb2.DESCRIPTOR,
    field_behavior_pb2.DESCRIPTOR,
)


def _field(message: Any, name: str, kind: str, *, repeated: bool = False, required: bool = False) -> Any:
    field = message.field.add(name=name, number=len(message.field) + 1)
    field.label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _F.TYPE_ENUM if kind.endswith(("Colour", "NullValue")) else _F.TYPE_MESSAGE
        field.type_name = kind
    if required:
        field.options.Extensions[field_behavior_pb2.field_behavior].append(field_behavior_pb2.REQUIRED)
    return field


def _map(message: Any, name: str, key: str, value: str) -> None:
    entry = message.nested_type.add(name=f"{name.title()}Entry")
    entry.options.map_entry = True
    _field(entry, "key", key)
    _field(entry, "value", value)
    _field(message, name, f".shop.v1.{message.name}.{entry.name}", repeated=True)


def _add_plain(file: Any) -> None:
    """Add a message of everything that needs no JSON form of its own."""
    plain = file.message_type.add(name="Plain")
    plain.oneof_decl.add(name="payment")
    for kind in _SCALARS:
        if kind != "float":
            _field(plain, f"a_{kind}", kind)
            _field(plain, f"many_{kind}", kind, repeated=True)
    _field(plain, "colour", ".shop.v1.Colour")
    _field(plain, "colours", ".shop.v1.Colour", repeated=True)
    _field(plain, "receipt", ".shop.v1.Receipt")
    _field(plain, "receipts", ".shop.v1.Receipt", repeated=True)
    _field(plain, "nothing", ".google.protobuf.NullValue")
    for name, kind in (("card", "string"), ("cash", "int64"), ("bill", ".shop.v1.Receipt")):
        _field(plain, name, kind).oneof_index = 0
    plain.oneof_decl.add(name="_maybe")
    maybe = _field(plain, "maybe", "int32")
    maybe.oneof_index, maybe.proto3_optional = 1, True


def _order_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="shop/v1/order.proto", package="shop.v1", syntax="proto3")
    file.dependency.extend(one.name for one in _IMPORTS)
    colour = file.enum_type.add(name="Colour")
    for number, name in enumerate(("COLOUR_UNSPECIFIED", "COLOUR_RED", "COLOUR_BLUE")):
        colour.value.add(name=name, number=number)

    item = file.message_type.add(name="Item")
    _field(item, "sku", "string", required=True)
    _field(item, "unit_price", "double")
    _field(item, "items", ".shop.v1.Item", repeated=True)

    order = file.message_type.add(name="Order")
    order.oneof_decl.add(name="payment")
    for kind in _SCALARS:
        _field(order, f"a_{kind}", kind)
    _field(order, "colour", ".shop.v1.Colour")
    _field(order, "items", ".shop.v1.Item", repeated=True)
    _field(order, "main_item", ".shop.v1.Item")
    _field(order, "numbers", "int32", repeated=True)
    _map(order, "labels", "string", "double")
    _map(order, "flags", "bool", "string")
    _map(order, "counts", "int64", "int32")
    _map(order, "parts", "string", ".shop.v1.Item")
    for name, kind in (("card", "string"), ("cash", "int32"), ("voucher", ".shop.v1.Item")):
        _field(order, name, kind).oneof_index = 0
    for name, kind in (
        ("at", "Timestamp"),
        ("lasts", "Duration"),
        ("mask", "FieldMask"),
        ("wrapped", "DoubleValue"),
        ("struct", "Struct"),
        ("value", "Value"),
        ("list", "ListValue"),
        ("any", "Any"),
        ("nothing", "NullValue"),
    ):
        _field(order, name, f".google.protobuf.{kind}")

    wanted = file.message_type.add(name="WantedOrder")
    _field(wanted, "customer_name", "string", required=True)
    _field(wanted, "items", ".shop.v1.Item", repeated=True, required=True)
    _field(wanted, "main_item", ".shop.v1.Item")

    receipt = file.message_type.add(name="Receipt")
    _field(receipt, "number", "int64")
    _field(receipt, "total", "double")
    _field(receipt, "note", "string")

    _add_plain(file)
    broken = file.message_type.add(name="Broken")
    for name in ("number", "total"):
        _field(broken, name, "double")
    _field(broken, "note", "bytes")

    service = file.service.add(name="OrderService")
    options = descriptor_pb2.MethodOptions
    for name, level, path in (
        ("Place", options.IDEMPOTENCY_UNKNOWN, "/v1/orders"),
        ("Put", options.IDEMPOTENT, "/v1/orders:put"),
        ("Quote", options.NO_SIDE_EFFECTS, "/v1/quotes"),
    ):
        method = service.method.add(name=name, input_type=".shop.v1.Order", output_type=".shop.v1.Receipt")
        if level:
            method.options.idempotency_level = level
        rule = method.options.Extensions[annotations_pb2.http]
        rule.post, rule.body = path, "*"
    # Of another kind: with a variable, of another verb; not routed: a stream.
    get = service.method.add(name="Get", input_type=".shop.v1.Item", output_type=".shop.v1.Order")
    get.options.Extensions[annotations_pb2.http].get = "/v1/orders/{sku}"
    service.method.add(name="Follow", input_type=".shop.v1.Item", output_type=".shop.v1.Order", server_streaming=True)
    service.method.add(name="Want", input_type=".shop.v1.WantedOrder", output_type=".google.protobuf.Empty")
    return file


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet()
    for one in _IMPORTS:
        files.MergeFromString(file_descriptor_set(one))
    for file in (*files.file, _order_file()):
        pool.Add(file)
    return pool


POOL: Any = _pool()
DESCRIPTORS = file_descriptor_set(POOL.FindFileByName("shop/v1/order.proto"))
Order, Item, Receipt, WantedOrder, Plain, Broken = (
    message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"shop.v1.{name}"))
    for name in ("Order", "Item", "Receipt", "WantedOrder", "Plain", "Broken")
)


def entry(*targets: str, library: bool = True, **settings: Any) -> catalogue_pb2.CatalogueService:
    """Return the service as the catalogue has it."""
    return catalogue_pb2.CatalogueService(
        name=NAME,
        file_descriptor_set=DESCRIPTORS,
        targets=targets,
        library=library,
        settings=catalogue_pb2.ServiceSettings(**settings),
    )


def method_handler(behaviour: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """Serve a method of the shop's by what takes an `Order` and returns a `Receipt`."""
    return grpc.unary_unary_rpc_method_handler(
        behaviour,
        request_deserializer=Order.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def add_to_server(server: Any, handlers: dict[str, Any]) -> None:
    """Serve the shop by these handlers of its methods."""
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
