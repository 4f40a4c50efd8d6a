"""ProtoJSON to the letter: as strict for well-known types as for numbers; what is printed can be sent back."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    json_format,
    struct_pb2,
    text_format,
    timestamp_pb2,
    wrappers_pb2,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import described
from support.described import F

from poste import protojson

SCALARS = {name.removeprefix("TYPE_").lower(): number for name, number in F.Type.items()}
for _compound in ("message", "group", "enum"):
    del SCALARS[_compound]
WRAPPERS = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
WELL_KNOWN = ("Any", "Duration", "FieldMask", "ListValue", "Struct", "Timestamp", "Value", "Empty")
KEYS = ("string", "bool", "int32", "int64", "uint64")


def add_fields(message: Any, own: str) -> None:
    """Add fields of every kind, single and repeated; `own` is the message's name with a dot before it."""
    for name, kind in SCALARS.items():
        described.field(message, f"a_{name}", kind)
        described.field(message, f"many_{name}", kind, repeated=True)
    types = [*WELL_KNOWN, *(f"{name}Value" for name in WRAPPERS)]
    for name in types:
        described.field(message, f"a_{name.lower()}", f".google.protobuf.{name}")
        described.field(message, f"many_{name.lower()}", f".google.protobuf.{name}", repeated=True)
    described.field(message, "a_null", ".google.protobuf.NullValue", type=F.TYPE_ENUM)
    described.field(message, "colour", ".all.Colour", type=F.TYPE_ENUM)
    described.field(message, "colours", ".all.Colour", repeated=True, type=F.TYPE_ENUM)
    described.field(message, "itself", own)
    for key in KEYS:
        described.map_field(message, f"{key}_to_double", SCALARS[key], F.TYPE_DOUBLE, own)
    for name in ("Value", "Struct", "Any", "FloatValue"):
        described.map_field(message, f"to_{name.lower()}", F.TYPE_STRING, f".google.protobuf.{name}", own)


def choice(message: Any) -> None:
    message.oneof_decl.add(name="choice")
    for name in ("one_string", "one_float"):
        described.field(message, name, SCALARS[name.removeprefix("one_")], oneof_index=0)
    described.field(message, "one_value", ".google.protobuf.Value", oneof_index=0)
    described.field(message, "one_null", ".google.protobuf.NullValue", type=F.TYPE_ENUM, oneof_index=0)


def new_file(name: str, syntax: str, *imports: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=name, package=name.removesuffix(".proto"), syntax=syntax)
    file.dependency.extend(imports)
    return file


def extension(scope: Any, name: str, kind: int | str, **more: Any) -> None:
    # Fields are added to a stand-in, for extensions are numbered by hand.
    stand_in = descriptor_pb2.DescriptorProto()
    added = described.field(stand_in, name, kind, **more)
    added.number, added.extendee = 1000 + len(scope.extension) + 100 * hasattr(scope, "field"), ".old.Old"
    scope.extension.append(added)


def make_pool() -> Any:
    google = [one.DESCRIPTOR for one in (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2)]
    google.append(wrappers_pb2.DESCRIPTOR)
    imports = [file.name for file in google]
    new = new_file("all.proto", "proto3", *imports)
    colour = new.enum_type.add(name="Colour")
    for number, name in enumerate(("NONE", "RED")):
        colour.value.add(name=name, number=number)
    add_fields(new.message_type.add(name="All"), ".all.All")
    choice(new.message_type[0])

    old = new_file("old.proto", "proto2", *imports)
    closed = old.enum_type.add(name="Closed")
    closed.value.add(name="ONLY", number=7)
    message = old.message_type.add(name="Old")
    message.extension_range.add(start=1000, end=2000)
    for name, kind in SCALARS.items():
        described.field(message, f"a_{name}", kind)
    described.field(message, "closed", ".old.Closed", type=F.TYPE_ENUM)
    message.nested_type.add(name="Grouped")
    described.field(message.nested_type[0], "text")
    described.field(message.nested_type[0], "at", ".google.protobuf.Timestamp")
    described.field(message, "grouped", ".old.Old.Grouped", type=F.TYPE_GROUP)
    described.field(message, "many", ".old.Old", repeated=True)
    # Another field's name, as an extension's; one within a message; all forms of content.
    extension(old, "a_string", F.TYPE_STRING)
    extension(old, "a_number", F.TYPE_FLOAT)
    extension(old, "an_old", ".old.Old")
    extension(old, "a_value", ".google.protobuf.Value")
    extension(old, "colours", ".old.Closed", repeated=True, type=F.TYPE_ENUM)
    extension(old, "instants", ".google.protobuf.Timestamp", repeated=True)
    extension(message, "inner", F.TYPE_BYTES)
    return described.pool_of(*google, new, old)


POOL = make_pool()
All, Old = described.message_class(POOL, "all.All"), described.message_class(POOL, "old.Old")


def decode(make: Any, value: Any) -> Any:
    return make.FromString(protojson.decode(make.DESCRIPTOR, json.dumps(value).encode()))


def wrong(make: Any, value: Any) -> dict[str, str]:
    with pytest.raises(protojson.FieldErrors) as caught:
        protojson.decode(make.DESCRIPTOR, json.dumps(value).encode())
    return {error.field: error.reason for error in caught.value.errors}


SHAPE = "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("aFloat", 3.4028236e38, "out of range"),
        ("aFloat", "-3.4028236e38", "out of range"),
        ("aDuration", "1_0s", "such as 1.5s"),
        ("aDuration", " 1s", "such as 1.5s"),
        ("aDuration", "1s ", "such as 1.5s"),
        ("aDuration", "1s\n", "such as 1.5s"),
        ("aDuration", "+1s", "such as 1.5s"),
        ("aDuration", "--1s", "such as 1.5s"),
        ("aDuration", "01s", "such as 1.5s"),
        ("aDuration", "1e3s", "such as 1.5s"),
        ("aDuration", ".5s", "such as 1.5s"),
        ("aDuration", "1.s", "such as 1.5s"),
        ("aDuration", "1", "such as 1.5s"),
        ("aDuration", "s", "such as 1.5s"),
        ("aDuration", "\u0661s", "such as 1.5s"),
        ("aDuration", 1, "such as 1.5s"),
        ("aDuration", "1.0000000001s", "nine digits"),
        ("aDuration", "1.1234567890s", "nine digits"),
        ("aDuration", "315576000001s", "between"),
        ("aDuration", "9" * 5000 + "s", "between"),
        ("aTimestamp", "2026-01-02T03:04:05", "time zone, such as Z"),
        ("aTimestamp", "2026-01-02T03:04:05.5", "time zone, such as Z"),
        ("aTimestamp", "2026-01-02T03:04:05+25:00", "zone that there is not"),
        ("aTimestamp", "2026-01-02T03:04:05+24:00", "zone that there is not"),
        ("aTimestamp", "2026-01-02T03:04:05-01:60", "zone that there is not"),
        ("aTimestamp", "2026-01-02T03:04:05+0100", SHAPE),
        ("aTimestamp", "2026-01-02T03:04:05+1:00", SHAPE),
        ("aTimestamp", "2026-1-02T03:04:05Z", SHAPE),
        ("aTimestamp", "2026-01-2T03:04:05Z", SHAPE),
        ("aTimestamp", "2026-01-02T3:04:05Z", SHAPE),
        ("aTimestamp", "2026-01-02 03:04:05Z", SHAPE),
        ("aTimestamp", "2026-01-02t03:04:05Z", SHAPE),
        ("aTimestamp", "2026-01-02T03:04:05z", SHAPE),
        ("aTimestamp", "2026-01-02T03:04Z", SHAPE),
        ("aTimestamp", "2026-01-02", SHAPE),
        ("aTimestamp", "2026-01-02T03:04:05.Z", SHAPE),
        ("aTimestamp", "2026-01-02T03:04:05Z ", SHAPE),
        ("aTimestamp", "2026-01-02T03:04:05ZZ", SHAPE),
        ("aTimestamp", "2026-01-02T03:04:05Z\n", SHAPE),
        ("aTimestamp", "\u0662026-01-02T03:04:05Z", SHAPE),
        ("aTimestamp", 1767323045, SHAPE),
        ("aTimestamp", "2026-02-30T00:00:00Z", "there is not"),
        ("aTimestamp", "2026-01-02T24:00:00Z", "there is not"),
        ("aTimestamp", "2026-01-02T23:59:60Z", "there is not"),
        ("aTimestamp", "0000-01-01T00:00:00Z", "there is not"),
        ("aTimestamp", "0001-01-01T00:00:00+00:01", "years 1 to 9999"),
        ("aTimestamp", "9999-12-31T23:59:59-00:01", "years 1 to 9999"),
        ("aTimestamp", "2026-01-02T03:04:05.0123456789Z", "nine digits"),
        ("aFieldmask", "a, b", "' b'"),
        ("aFieldmask", "a_b", "lowerCamelCase"),
        ("aFieldmask", "a,,b", "''"),
        ("aFieldmask", ",", "''"),
        ("aFieldmask", "a.", "names with points"),
        ("aFieldmask", ".a", "names with points"),
        ("aFieldmask", "a b", "names with points"),
        ("aFieldmask", "ä", "names with points"),
        ("aFieldmask", ["a"], "must be a string"),
        ("aStruct", [], "must be an object"),
        ("aListvalue", {}, "must be an array"),
        ("manyDuration", None, None),
    ],
)
def test_what_the_format_does_not_have_is_refused_with_a_reason_that_helps(field, value, reason):
    """Else `1_0s` is ten seconds, digits are cut in silence, and a client does not learn what is wrong."""
    if reason is None:
        assert decode(All, {field: value}) == All()
        return
    errors = wrong(All, {field: value})

    assert list(errors) == [field]
    assert reason in errors[field]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"aFloat": 3.4028235e38}, "a_float: 3.4028234663852886e38"),
        ({"aFloat": "-3.4028235e+38"}, "a_float: -3.4028234663852886e38"),
        ({"aFloat": 1e-45}, "a_float: 1.401298464324817e-45"),
        ({"manyFloat": ["NaN", "Infinity", "-Infinity"]}, "many_float: [nan, inf, -inf]"),
        ({"aFloatvalue": 3.4028235e38}, "a_floatvalue { value: 3.4028234663852886e38 }"),
        ({"aDuration": "-0.5s"}, "a_duration { nanos: -500000000 }"),
        ({"aDuration": "-1.000000001s"}, "a_duration { seconds: -1 nanos: -1 }"),
        ({"aDuration": "0.1234s"}, "a_duration { nanos: 123400000 }"),
        ({"aDuration": "315576000000.999999999s"}, "a_duration { seconds: 315576000000 nanos: 999999999 }"),
        ({"aTimestamp": "1970-01-01T01:00:00+01:00"}, "a_timestamp {}"),
        ({"aTimestamp": "1969-12-31T23:59:59.999999999-00:00"}, "a_timestamp { seconds: -1 nanos: 999999999 }"),
        ({"aTimestamp": "1970-01-01T00:00:00.1-23:59"}, "a_timestamp { seconds: 86340 nanos: 100000000 }"),
        ({"aTimestamp": "9999-12-31T23:59:59Z"}, "a_timestamp { seconds: 253402300799 }"),
        ({"aTimestamp": "0001-01-01T00:00:00Z"}, "a_timestamp { seconds: -62135596800 }"),
        ({"aFieldmask": ""}, "a_fieldmask {}"),
        ({"aFieldmask": "a,bC.d1E"}, 'a_fieldmask { paths: ["a", "b_c.d1_e"] }'),
        ({"aFieldmask": "*"}, 'a_fieldmask { paths: "*" }'),
        ({"aValue": None}, "a_value { null_value: NULL_VALUE }"),
        ({"manyValue": [None, 1]}, "many_value { null_value: NULL_VALUE } many_value { number_value: 1 }"),
        ({"toValue": {"k": None}}, 'to_value { key: "k" value { null_value: NULL_VALUE } }'),
        (
            {"toValue": {"k": [None]}},
            'to_value { key: "k" value { list_value { values { null_value: NULL_VALUE } } } }',
        ),
        ({"toStruct": {"k": {}}}, 'to_struct { key: "k" value {} }'),
        ({"oneValue": None}, "one_value { null_value: NULL_VALUE }"),
        ({"oneNull": None}, "one_null: NULL_VALUE"),
        ({"aValue": {}}, "a_value { struct_value {} }"),
        ({"aValue": []}, "a_value { list_value {} }"),
        ({"aStruct": {"": "x"}}, 'a_struct { fields { key: "" value { string_value: "x" } } }'),
    ],
)
def test_what_the_format_has_is_read(value, expected):
    """Else Poste refuses what it prints itself, or what any other ProtoJSON prints."""
    assert repr(decode(All, value)) == repr(text_format.Parse(expected, All()))


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"[old.none]": 1}, "[old.none]"),
        ({"[old.a_number]": True}, "[old.a_number]"),
        ({"[old.instants]": ["x"]}, "[old.instants][0]"),
        ({"[old.an_old]": {"[old.an_old]": {"aInt32": "x"}}}, "[old.an_old].[old.an_old].aInt32"),
        ({"[old.colours]": ["NONE"]}, "[old.colours][0]"),
        ({"[old.colours]": [1]}, "[old.colours][0]"),
        ({"[]": 1}, "[]"),
        ({"[old.Old]": 1}, "[old.Old]"),
        ({"closed": 1}, "closed"),
    ],
)
def test_an_extension_is_read_as_a_field_is(value, field):
    """Else what is wrong in one is a 500, or not said."""
    assert list(wrong(Old, value)) == [field]
    assert list(wrong(All, {"[old.a_number]": 1})) == ["[old.a_number]"]


text = st.text(st.characters(codec="utf-8"), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
nanos = st.sampled_from([0, 1, 10**3, 10**6, 999_999_999]) | st.integers(0, 999_999_999)
doubles = st.floats(allow_nan=False) | st.just(math.nan)
floats = st.floats(allow_nan=False, width=32) | st.sampled_from([math.nan, 3.4028234663852886e38, -(2.0**-149)])
words = st.from_regex(r"\A(_?[a-z]|[0-9])([a-z0-9]|_[a-z]){0,6}\Z")
signed = {32: st.integers(-(2**31), 2**31 - 1), 64: st.integers(-(2**63), 2**63 - 1)}
unsigned = {32: st.integers(0, 2**32 - 1), 64: st.integers(0, 2**64 - 1)}
scalars = {
    F.TYPE_DOUBLE: doubles,
    F.TYPE_FLOAT: floats,
    F.TYPE_BOOL: st.booleans(),
    F.TYPE_STRING: text,
    F.TYPE_BYTES: st.binary(max_size=5),
    **{SCALARS[f"{kind}32"]: signed[32] for kind in ("int", "sint", "sfixed")},
    **{SCALARS[f"{kind}64"]: signed[64] for kind in ("int", "sint", "sfixed")},
    **{SCALARS[f"{kind}32"]: unsigned[32] for kind in ("uint", "fixed")},
    **{SCALARS[f"{kind}64"]: unsigned[64] for kind in ("uint", "fixed")},
}
#: What an Any holds here: no maps, whose bytes may be in another order.
PACKED = ("Duration", "Timestamp", "DoubleValue", "FloatValue", "Empty", "FieldMask", "Value", "Any")


def fill(draw: Any, message: Any, depth: int = 0) -> None:
    """Fill a message with whatever its type may hold."""
    match message.DESCRIPTOR.full_name:
        case "google.protobuf.Timestamp":
            message.seconds, message.nanos = draw(st.integers(-62135596800, 253402300799)), draw(nanos)
        case "google.protobuf.Duration":
            sign = draw(st.sampled_from([1, -1]))
            message.seconds, message.nanos = sign * draw(st.integers(0, 315576000000)), sign * draw(nanos)
        case "google.protobuf.FieldMask":
            message.paths.extend(draw(st.lists(st.lists(words, min_size=1, max_size=2).map(".".join), max_size=2)))
        case "google.protobuf.Value" | "google.protobuf.Struct" | "google.protobuf.ListValue" as name:
            suitable = {"Struct": st.dictionaries(text, json_values, max_size=2), "ListValue": st.lists(json_values)}
            json_format.ParseDict(draw(suitable.get(name.rpartition(".")[2], json_values)), message)
        case "google.protobuf.Any":
            fill_any(draw, message, depth)
        case _:
            for field in draw(st.lists(st.sampled_from(fields_of(message)), max_size=3)) if fields_of(message) else ():
                if depth < 3 or field.message_type is None:
                    fill_field(draw, message, field, depth)


def fill_any(draw: Any, message: Any, depth: int) -> None:
    name = draw(st.sampled_from((*PACKED, "")))
    if not name or depth > 4:
        message.type_url, message.value = draw(st.sampled_from(["", "x", "a.b/none.Such"])), draw(st.binary(max_size=5))
        return
    held = described.message_class(POOL, f"google.protobuf.{name}")()
    if name == "Value":
        held.number_value = draw(st.floats(allow_nan=False, allow_infinity=False))
    else:
        fill(draw, held, depth + 1)
    message.type_url = f"type.googleapis.com/google.protobuf.{name}"
    message.value = held.SerializeToString()


def fields_of(message: Any) -> list[Any]:
    extensions = POOL.FindAllExtensions(message.DESCRIPTOR) if message.DESCRIPTOR.is_extendable else ()
    return [*message.DESCRIPTOR.fields, *extensions]


def fill_field(draw: Any, message: Any, field: Any, depth: int) -> None:
    held = message.Extensions[field] if field.is_extension else getattr(message, field.name)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        entry = kind.fields_by_name
        for key in draw(st.lists(scalars[entry["key"].type], max_size=2)):
            if entry["value"].message_type is None:
                held[key] = draw(scalars[entry["value"].type])
            else:
                fill(draw, held[key], depth + 1)
    elif kind is not None:
        if not field.is_repeated:
            held.SetInParent()
        for one in [held.add() for _ in range(draw(st.integers(0, 2)))] if field.is_repeated else [held]:
            fill(draw, one, depth + 1)
    else:
        enum = field.enum_type
        value = scalars[field.type] if enum is None else st.sampled_from([one.number for one in enum.values])
        if field.is_repeated:
            held.extend(draw(st.lists(value, max_size=3)))
        elif field.is_extension:
            message.Extensions[field] = draw(value)
        else:
            setattr(message, field.name, draw(value))


@st.composite
def messages(draw: Any, make: Any) -> Any:
    message = make()
    fill(draw, message)
    return message


def has_unknown_any(value: Any) -> bool:
    if isinstance(value, dict):
        named = str(value.get("@type", "google.protobuf")).rpartition("/")[2]
        return not named.startswith("google.protobuf") or any(map(has_unknown_any, value.values()))
    return isinstance(value, list) and any(map(has_unknown_any, value))


@settings(deadline=None, database=None, max_examples=250, suppress_health_check=list(HealthCheck))
@given(st.one_of(messages(All), messages(Old)))
def test_what_is_printed_can_be_sent_back(message):
    """Else a client can't change what it read and send it again, or loses some of it."""
    make, data = type(message), message.SerializeToString()

    there = protojson.encode(make.DESCRIPTOR, data)
    back = make.FromString(protojson.decode(make.DESCRIPTOR, there))

    assert back.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
    if not has_unknown_any(json.loads(there)):
        theirs = json_format.MessageToDict(
            make.FromString(data), always_print_fields_with_no_presence=True, descriptor_pool=POOL
        )
        assert json.loads(there) == theirs
