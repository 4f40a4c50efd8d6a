"""What operators are shown of a call before a replay: the request, and no secret in it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import any_pb2, descriptor_pb2
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
