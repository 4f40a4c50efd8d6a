"""What operators are shown of a call before a replay: the request, and no secret in it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import any_pb2, descriptor_pb2, duration_pb2
from support import described
from support.described import F

from poste.rpc.catalogue import describe
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.tasks import call_view
from poste_gateway.tasks.call_view import MASK


def _pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="pay.proto", package="pay.v1", syntax="proto3")
    file.dependency.append("google/protobuf/any.proto")
    card = file.message_type.add(name="Card")
    described.field(card, "owner")
    for name, kind in (("number", F.TYPE_STRING), ("pin", F.TYPE_INT32), ("seal", F.TYPE_BYTES)):
        described.field(card, name, kind).options.debug_redact = True
    call = file.message_type.add(name="Pay")
    described.field(call, "amount", F.TYPE_INT32)
    described.field(call, "card", ".pay.v1.Card")
    described.field(call, "others", ".pay.v1.Card", repeated=True)
    described.map_field(call, "by_name", F.TYPE_STRING, ".pay.v1.Card", ".pay.v1.Pay")
    described.map_field(call, "notes", F.TYPE_STRING, F.TYPE_STRING, ".pay.v1.Pay")
    described.field(call, "answers", repeated=True).options.debug_redact = True
    described.field(call, "extra", ".google.protobuf.Any")
    described.service(file, "Desk", {"Pay": (".pay.v1.Pay", ".pay.v1.Pay")})
    return described.pool_of(any_pb2.DESCRIPTOR, file)


@pytest.fixture(scope="module")
def pool() -> Any:
    return _pool()


def shown(pool: Any, request: bytes, **more: Any) -> dict[str, Any]:
    # As the catalogue has it: of what a service registered, less may be kept than it said.
    service = describe(described.entry(pool, "pay.v1.Desk"))
    return call_view.to_value(pb.InspectTaskResponse(request=request, **more), "Pay", service)


def test_what_the_proto_marks_as_secret_is_masked_wherever_it_stands(pool: Any) -> None:
    """Who may replay calls would read the card numbers of all customers."""
    card = described.message_class(pool, "pay.v1.Card")(owner="Ada", number="4711", pin=1234, seal=b"s")
    packed = any_pb2.Any(type_url="type.googleapis.com/pay.v1.Card", value=card.SerializeToString())
    call = described.message_class(pool, "pay.v1.Pay")(amount=3, card=card, others=[card, card], answers=["a", "b"])
    call.by_name["x"].CopyFrom(card)
    call.notes["k"] = "v"
    call.extra.MergeFromString(packed.SerializeToString())
    value = shown(pool, call.SerializeToString())

    text = str(value["request"])
    assert not any(secret in text for secret in ("4711", "1234", "czo", "cw=="))
    assert value["request"]["card"]["owner"] == value["request"]["extra"]["owner"] == "Ada"
    assert value["request"]["card"]["number"] == value["request"]["others"][1]["number"] == MASK
    assert (value["request"]["amount"], value["request"]["notes"]) == (3, {"k": "v"})
    assert value["request"]["answers"] == [MASK, MASK]
    secrets = [f"{at}.{name}" for at in ("byName", "card", "extra", "others") for name in ("number", "pin", "seal")]
    assert value["masked"] == sorted(["answers", *secrets])


def test_what_an_unknown_any_holds_is_not_shown(pool: Any) -> None:
    """What in it is secret is not known."""
    call = described.message_class(pool, "pay.v1.Pay")()
    call.extra.type_url, call.extra.value = "type.googleapis.com/some.Other", b"4711"
    value = shown(pool, call.SerializeToString())

    assert "NDcxMQ" not in str(value["request"])
    assert value["masked"] == ["extra.value"]


def test_what_an_any_of_a_usual_type_holds_is_shown(pool: Any) -> None:
    """An operator would read `0s`, which is not what the call says: no file of the service's has that type."""
    call = described.message_class(pool, "pay.v1.Pay")()
    call.extra.type_url = "type.googleapis.com/google.protobuf.Duration"
    call.extra.value = duration_pb2.Duration(seconds=3).SerializeToString()
    value = shown(pool, call.SerializeToString())

    assert value["request"]["extra"]["value"] == "3s"
    assert value["masked"] == []


def test_fields_may_be_called_as_what_messages_can_do() -> None:
    """The operator would get a 500 of every call of such a service; and a path of a name that nothing shown has."""
    file = descriptor_pb2.FileDescriptorProto(name="odd.proto", package="odd.v1", syntax="proto2")
    call = file.message_type.add(name="Call")
    call.options.deprecated_legacy_json_field_conflicts = True
    for name in ("ListFields", "ClearField", "SerializeToString", "DESCRIPTOR", "a_b", "aB"):
        described.field(call, name).options.debug_redact = name in ("ListFields", "a_b")
    described.field(call, "pin", F.TYPE_INT32).options.debug_redact = True
    call.extension_range.add(start=100, end=200)
    hint = file.extension.add(name="hint", number=100, extendee=".odd.v1.Call", type=F.TYPE_STRING, label=1)
    hint.options.debug_redact = True
    described.service(file, "Desk", {"Pay": (".odd.v1.Call", ".odd.v1.Call")})
    pool = described.pool_of(file)
    made = described.message_class(pool, "odd.v1.Call")
    message = made(ListFields="4711", a_b="1234", aB="shown", pin=5)
    message.Extensions[pool.FindExtensionByName("odd.v1.hint")] = "0815"
    request = made.SerializeToString(message)

    service = describe(described.entry(pool, "odd.v1.Desk"))
    value = call_view.to_value(pb.InspectTaskResponse(request=request), "Pay", service)
    assert (value["request"]["ListFields"], value["request"]["a_b"], value["request"]["aB"]) == (MASK, MASK, "shown")
    assert value["masked"] == ["ListFields", "[odd.v1.hint]", "a_b", "pin"]
    assert "[odd.v1.hint]" not in value["request"]


@pytest.mark.parametrize("request_bytes", [b"\xff", b"\x08"])
def test_a_request_that_is_none_by_now_says_so(pool: Any, request_bytes: bytes) -> None:
    """The operator would get a 500 of the very call that is to be looked into."""
    value = shown(pool, request_bytes)

    assert value["request"] is None
    assert value["unreadable"].startswith("it is no pay.v1.Pay")


def test_what_is_no_longer_kept_is_null_and_not_empty(pool: Any) -> None:
    """An empty message is a request, too."""
    gone = call_view.to_value(pb.InspectTaskResponse(), "Pay", None)

    assert (gone["request"], gone["requestId"], "unreadable" in gone) == (None, None, False)
    assert shown(pool, b"")["request"]["amount"] == 0


def test_headers_that_carry_secrets_are_masked(pool: Any) -> None:
    """A kept bearer token would let the operator act as the customer."""
    metadata = "authorization: Bearer abc\nx-api-key: k\ntenant: acme\ntenant: other\n"
    value = shown(pool, b"", metadata=metadata, request_id="r1")

    assert value["headers"] == {"authorization": [MASK], "x-api-key": [MASK], "tenant": ["acme", "other"]}
    assert value["requestId"] == "r1"
