"""What the schema of a message says of each of its fields, under the name that JSON has for it."""

from __future__ import annotations

from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2
from support import described
from support.described import F

from poste.protojson.json_schema import MessageSchemas


def test_a_field_is_described_by_itself_though_another_is_called_as_it_in_json() -> None:
    """A generated client would send `null` for what is required, and refuse to send none of what is not."""
    file = descriptor_pb2.FileDescriptorProto(name="crossed.proto", package="crossed.v1", syntax="proto2")
    pair = file.message_type.add(name="Pair")
    pair.options.deprecated_legacy_json_field_conflicts = True
    one = described.field(pair, "one", json_name="other")
    one.options.Extensions[field_behavior_pb2.field_behavior].append(field_behavior_pb2.REQUIRED)
    described.field(pair, "other", F.TYPE_INT32, json_name="one")
    descriptor = described.pool_of(file).FindMessageTypeByName("crossed.v1.Pair")

    schema = MessageSchemas([descriptor], [], lambda _: "").components["crossed.v1.Pair"]
    assert schema["required"] == ["other"]
    assert schema["properties"]["other"] == {"type": "string"}
    assert "null" in schema["properties"]["one"]["type"]
