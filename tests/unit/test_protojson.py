"""ProtoJSON as the REST face has it: strict on the way in, complete on the way out."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
from google.protobuf import descriptor_pb2, json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import described, shop
from support.described import F
from testing.v1 import ledger_pb2

from calculator.v1 import sum_pb2
from poste import protojson
from poste_gateway.calls.protocols.rpc import PROTO_CODEC

ORDER = shop.Order.DESCRIPTOR
DEEP = 60
# No deadlines and no health checks: machines are slow now and then.
anywhere = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def decode(body: str | bytes, descriptor=ORDER):
    raw = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    message = shop.Order if descriptor is ORDER else shop.WantedOrder
    return message.FromString(protojson.decode(descriptor, raw))


def wrong(body: str | bytes, descriptor=ORDER) -> dict[str, str]:
    raw = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    with pytest.raises(protojson.FieldErrors) as caught:
        protojson.decode(descriptor, raw)
    for field, reason in caught.value.errors:
        # Whatever was sent, the answer can be written as UTF-8.
        f"{field}{reason}".encode()
    return {error.field: error.reason for error in caught.value.errors}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b'{"aString": "\xff"}',
        "null",
        "[]",
        "5",
        '"x"',
        "{",
        "{} {}",
        "{}x",
        "\ufeff{}",
        "{'aDouble': 1}",
        '{"aDouble": NaN}',
        '{"aDouble": Infinity}',
        '{"aDouble": -Infinity}',
        '{"aDouble": 01}',
        '{"aDouble": .5}',
        '{"aString": "\n"}',
        "[" * 100_000,
        '{"struct":' * 100_000,
    ],
)
def test_a_body_that_is_not_one_json_object_is_refused(body):
    """Else a broken body is a 500, or is taken for an empty message."""
    assert list(wrong(body)) == [""]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ('{"aDouble": 1, "aDouble": 2}', "aDouble"),
        ('{"mainItem": {"sku": "a", "sku": "b"}}', "mainItem.sku"),
        ('{"items": [{"sku": "a"}, {"sku": "a", "sku": "b"}]}', "items[1].sku"),
        ('{"struct": {"x": {"y": 1, "y": 2}}}', "struct.x.y"),
        ('{"struct": {"x": {"y": 1, "y": 2}, "x": 1}}', "struct.x"),
    ],
)
def test_a_key_that_is_there_twice_is_refused_under_its_path(body, path):
    """Else one of the two values is dropped in silence, and which one depends on the parser."""
    assert list(wrong(body)) == [path]


@pytest.mark.parametrize(
    "value",
    [
        "true",
        "[]",
        "{}",
        '"inf"',
        '" 5"',
        '"5 "',
        '"1_0"',
        '"nan"',
        '""',
        '"0x1"',
        '"+1"',
        '"\u0661"',
        "1e999",
        "-1e999",
        "9" * 400,
    ],
)
@pytest.mark.parametrize("field", ["aDouble", "aFloat", "aInt32", "aInt64", "aUint64"])
def test_what_is_no_number_is_refused_by_number_fields(field, value):
    """Else `true` is 1.0, and a typing error becomes a figure."""
    assert list(wrong(f'{{"{field}": {value}}}')) == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("aInt32", "2147483648"),
        ("aInt32", "-2147483649"),
        ("aInt32", "1.5"),
        ("aInt32", '"1.5"'),
        ("aInt32", '"1e10"'),
        ("aUint32", "-1"),
        ("aInt64", "9223372036854775808"),
        ("aInt64", '"1e999999"'),
        ("aInt64", '"1e-999999"'),
        ("aInt64", "1e18"),
        ("aUint64", "18446744073709551616"),
        ("aUint64", '"-1"'),
        ("aInt32", '"NaN"'),
        ("aInt32", f'"{"9" * 5000}"'),
        ("aDouble", f'"{"9" * 5000}"'),
        ("aDouble", '"1e999"'),
        ("aFloat", "3.5e38"),
        ("aBool", "1"),
        ("aBool", '"true"'),
        ("aString", "1"),
        ("aString", '"\\ud800"'),
        ("aBytes", '"a"'),
        ("aBytes", '"ä"'),
        ("aBytes", '"AA="'),
        ("aBytes", '"A A="'),
        ("aBytes", "5"),
        ("colour", '"COLOUR_GREEN"'),
        ("colour", '"1"'),
        ("colour", "true"),
        ("colour", "1.5"),
        ("colour", "4294967296"),
        ("items", "{}"),
        ("items", '"x"'),
        ("mainItem", "[]"),
        ("mainItem", '"x"'),
        ("mainItem", "5"),
        ("numbers", "5"),
        ("labels", "[]"),
        ("at", "[]"),
        ("at", '"yesterday"'),
        ("at", "5"),
        ("at", '"10000-01-01T00:00:00Z"'),
        ("lasts", '"1h"'),
        ("lasts", f'"{"9" * 5000}s"'),
        ("mask", '"a_b"'),
        ("wrapped", "true"),
        ("wrapped", "[]"),
        ("struct", "5"),
        ("value", "1e999"),
        ("list", "{}"),
        ("unknown", "1"),
        ("a_doubl", "1"),
        ("[shop.v1.x]", "1"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_under_its_field(field, value):
    """Else it is rounded, wrapped or guessed, or a client's mistake ends as a 500."""
    assert list(wrong(f'{{"{field}": {value}}}')) == [field]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ('{"items": [{"sku": "a"}, {"sku": "b"}, {"sku": "c", "unitPrice": true}]}', "items[2].unitPrice"),
        ('{"numbers": [1, null]}', "numbers[1]"),
        ('{"numbers": [1, "x"]}', "numbers[1]"),
        ('{"items": [null]}', "items[0]"),
        ('{"labels": {"x": true}}', "labels[x]"),
        ('{"labels": {"x": null}}', "labels[x]"),
        ('{"flags": {"maybe": "x"}}', "flags[maybe]"),
        ('{"counts": {"1": 1, "1.0": 2}}', "counts[1.0]"),
        ('{"counts": {"x": 1}}', "counts[x]"),
        ('{"parts": {"x": {}}}', "parts[x].sku"),
        ('{"aDouble": 1, "a_double": 2}', "a_double"),
        ('{"card": "x", "cash": 1}', "cash"),
        ('{"mainItem": {"sku": "a", "\\ud800": 1}}', "mainItem.?"),
        ('{"struct": {"x": 1e999}}', "struct.x"),
        ('{"struct": {"x": [1, {"y": "\\ud800"}]}}', "struct.x[1].y"),
        ('{"struct": {"\\ud800": 1}}', "struct.?"),
        ('{"list": [1, 1e999]}', "list[1]"),
        ('{"value": {"x": 1e999}}', "value.x"),
        ('{"any": {"@type": "x"}}', "any.@type"),
        ('{"any": {"@type": "\\ud800"}}', "any.@type"),
        ('{"any": {"@type": "\\ud800", "value": ""}}', "any.@type"),
        ('{"any": {"@type": "type.googleapis.com/none.Such"}}', "any.@type"),
        ('{"any": {"sku": "a"}}', "any.@type"),
        ('{"any": {"@type": "type.googleapis.com/shop.v1.Item", "sku": 1}}', "any.sku"),
        ('{"any": {"@type": "type.googleapis.com/shop.v1.Item"}}', "any.sku"),
        ('{"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": 5}}', "any.value"),
        ('{"any": {"@type": "type.googleapis.com/google.protobuf.Duration"}}', "any.value"),
    ],
)
def test_the_path_leads_to_the_field(body, path):
    """Else a client with a long body has to search for its mistake."""
    assert list(wrong(body)) == [path]


def test_every_missing_required_field_is_named_at_every_level():
    """Else a client finds them one call at a time."""
    body = '{"items": [{"sku": "a"}, {"sku": null}], "mainItem": {}}'

    errors = wrong(body, shop.WantedOrder.DESCRIPTOR)

    assert list(errors) == ["items[1].sku", "mainItem.sku", "customerName"]
    assert set(errors.values()) == {"is required"}


def test_many_errors_are_cut_to_a_readable_number():
    """Else a body of a mebibyte makes an answer of many."""
    assert len(wrong('{"numbers": [' + ",".join(["true"] * 1000) + "]}")) == 20


@pytest.mark.parametrize("depth", [DEEP * 10, 120])
def test_what_no_service_could_parse_is_refused(depth):
    """Else the service fails on it with a status that seems its own defect."""
    nested = '{"sku": "x", "items": [' * depth + "]}" * depth
    assert wrong('{"mainItem": ' + nested + "}")
    assert wrong('{"struct": ' + '{"x":' * DEEP + "1" + "}" * (DEEP + 1))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"aDouble": 1.5}', {"a_double": 1.5}),
        ('{"a_double": 1}', {"a_double": 1.0}),
        ('{"aDouble": "1.5e3"}', {"a_double": 1500.0}),
        ('{"aDouble": "-Infinity"}', {"a_double": -math.inf}),
        ('{"aDouble": 1e308}', {"a_double": 1e308}),
        ('{"aDouble": 1' + "0" * 308 + "}", {"a_double": 1e308}),
        ('{"aFloat": 3.4028234e38}', {"a_float": 3.4028234663852886e38}),
        ('{"aInt32": "1e5"}', {"a_int32": 100_000}),
        ('{"aInt32": 1e5}', {"a_int32": 100_000}),
        ('{"aInt32": 5.0}', {"a_int32": 5}),
        ('{"aInt32": "-0"}', {"a_int32": 0}),
        ('{"aInt64": "9223372036854775807"}', {"a_int64": 2**63 - 1}),
        ('{"aInt64": "0e999"}', {"a_int64": 0}),
        ('{"aUint64": 18446744073709551615}', {"a_uint64": 2**64 - 1}),
        ('{"aBytes": "-_8="}', {"a_bytes": b"\xfb\xff"}),
        ('{"aBytes": "+/8"}', {"a_bytes": b"\xfb\xff"}),
        ('{"aString": "\\ud83d\\ude00 ä"}', {"a_string": "😀 ä"}),
        ('{"colour": "COLOUR_RED"}', {"colour": 1}),
        ('{"colour": 77}', {"colour": 77}),
        ('{"numbers": ["7", 8.0]}', {"numbers": [7, 8]}),
        ('{"labels": {"x": "2", "": 0}}', {"labels": {"x": 2, "": 0}}),
        ('{"flags": {"true": "yes"}}', {"flags": {True: "yes"}}),
        ('{"counts": {"-5": 6}}', {"counts": {-5: 6}}),
        ('{"card": null, "cash": 3}', {"cash": 3}),
        ('{"card": ""}', {"card": ""}),
        ('{"aDouble": null, "items": null, "mainItem": null, "labels": null, "wrapped": null}', {}),
    ],
)
def test_what_protojson_allows_is_read(body, expected):
    """Else clients that keep to the standard are refused."""
    assert decode(body) == shop.Order(**expected)


def test_the_sign_of_zero_is_kept():
    """Else -0 comes in as 0."""
    assert math.copysign(1, decode('{"aDouble": -0}').a_double) == -1


def test_an_empty_message_is_present():
    """Else `{}` and null mean the same."""
    assert decode('{"wrapped": 0}').HasField("wrapped")
    assert decode('{"voucher": {"sku": ""}}').HasField("voucher")
    assert decode('{"value": null}').HasField("value")
    assert not decode('{"nothing": null}').HasField("any")


@pytest.mark.parametrize(
    "body",
    [
        '{"at": "2026-01-02T03:04:05.600Z"}',
        '{"lasts": "-1.500s"}',
        '{"mask": "a,b.cD"}',
        '{"wrapped": 1.5}',
        '{"struct": {"a": [1, null, {"b": "x"}], "c": true}}',
        '{"value": [1, {}]}',
        '{"list": [1, "x"]}',
        '{"any": {"@type": "type.googleapis.com/shop.v1.Item", "sku": "a", "unitPrice": 2, "items": []}}',
        '{"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "3s"}}',
    ],
)
def test_wellknown_types_come_back_as_they_went_in(body):
    """Else timestamps, structs and the like can't be used in a service."""
    written = json.loads(protojson.encode(ORDER, protojson.decode(ORDER, body.encode())))

    expected = json.loads(body)
    assert {name: written[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (5.0, '{"result":5}'),
        (0.0, '{"result":0}'),
        (-0.0, '{"result":-0.0}'),
        (-5.0, '{"result":-5}'),
        (0.1, '{"result":0.1}'),
        (1e15, '{"result":1000000000000000}'),
        (1e22, '{"result":1e+22}'),
        (9007199254740992.0, '{"result":9007199254740992}'),
        (math.nan, '{"result":"NaN"}'),
        (math.inf, '{"result":"Infinity"}'),
        (-math.inf, '{"result":"-Infinity"}'),
    ],
)
def test_a_result_is_printed_as_people_write_it(result, text):
    """Else the README's `{"result": 5}` is `{"result": 5.0}` or `{}`."""
    response = sum_pb2.AddResponse(result=result)

    assert text == protojson.encode(sum_pb2.AddResponse.DESCRIPTOR, response.SerializeToString()).decode()


def test_defaults_are_printed_and_text_is_utf8():
    """Else a zero is missing, and 'ä' takes six bytes."""
    written = protojson.encode(shop.Receipt.DESCRIPTOR, shop.Receipt(note="ä").SerializeToString())

    assert written.decode() == '{"number":"0","total":0,"note":"ä"}'


@pytest.mark.parametrize(
    "data", [b"\xff", shop.Order(any={"type_url": "x/shop.v1.Item", "value": b"1"}).SerializeToString()]
)
def test_what_json_cannot_hold_is_an_error_of_its_own(data):
    """Else a broken answer of a service breaks the gateway."""
    with pytest.raises(protojson.UnprintableError):
        protojson.encode(ORDER, data)


@anywhere
@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(body):
    """Else a client gets a 500 for bytes that no other test has."""
    with contextlib.suppress(protojson.FieldErrors):
        protojson.decode(ORDER, body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1e5", "NaN", "AA=="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([field.json_name for field in ORDER.fields])


@anywhere
@given(st.dictionaries(fields, json_values, max_size=4))
def test_what_is_taken_json_format_takes_to_the_same_message(body):
    """Else our reader and all others disagree on what a client meant."""
    raw = json.dumps(body).encode()
    try:
        read = protojson.decode(ORDER, raw)
    except protojson.FieldErrors:
        return
    theirs = json_format.Parse(raw, shop.Order(), descriptor_pool=shop.POOL)
    assert str(shop.Order.FromString(read)) == str(theirs)


int32, int64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(codec="utf-8"), max_size=5)
receipts = st.builds(shop.Receipt, number=int64, total=st.floats(), note=text)
plain_values = {
    "a_double": st.floats(),
    "many_double": st.lists(st.floats(), max_size=3),
    "a_int32": int32,
    "a_int64": int64,
    "many_int64": st.lists(int64, max_size=3),
    "a_uint64": st.integers(0, 2**64 - 1),
    "a_bool": st.booleans(),
    "a_string": text,
    "a_bytes": st.binary(max_size=5),
    "colour": st.integers(-2, 4),
    "colours": st.lists(st.integers(-2, 4), max_size=3),
    "receipt": receipts,
    "receipts": st.lists(receipts, max_size=2),
    "nothing": st.just(0),
    "cash": int64,
    "bill": receipts,
    "maybe": int32,
}


@anywhere
@given(st.fixed_dictionaries({}, optional=plain_values))
def test_what_is_written_json_format_writes_too(values):
    """Else our writers and all others disagree on what a service meant."""
    message = shop.Plain(**values)
    written = json.loads(protojson.encode(shop.Plain.DESCRIPTOR, message.SerializeToString()))
    theirs = json_format.MessageToDict(
        shop.Plain.FromString(message.SerializeToString()), always_print_fields_with_no_presence=True
    )

    assert written == theirs
    assert list(written) == [field.json_name for field in shop.Plain.DESCRIPTOR.fields if field.json_name in theirs]


@anywhere
@given(a=st.floats(), b=st.floats())
def test_every_double_survives_the_way_there_and_back(a, b):
    """Else a sum differs from the one that a gRPC client gets."""
    message = sum_pb2.AddRequest(a=a, b=b)
    data = message.SerializeToString()

    there = protojson.encode(sum_pb2.AddRequest.DESCRIPTOR, data)

    assert repr(message) == repr(sum_pb2.AddRequest.FromString(protojson.decode(sum_pb2.AddRequest.DESCRIPTOR, there)))


def outcome(descriptor, body: bytes) -> object:
    """Return the message, or which fields are wrong: where in the text is another matter."""
    try:
        return protojson.decode(descriptor, body)
    except protojson.FieldErrors as error:
        return [error.field for error in error.errors]


def spelt_otherwise(body: bytes, *keys: bytes) -> bytes:
    """Escape a letter in keys, so that the short way leaves the body alone, and nothing else changes."""
    for key in keys:
        body = body.replace(b'"%b":' % key, b'"%b\\u%04x":' % (key[:-1], key[-1]))
    return body


@anywhere
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "a", "b", "c"]),
            st.one_of(
                st.floats().map(json.dumps),
                st.integers().map(str),
                st.sampled_from(["-0", "-0.0", "1e400", '"1"', '"-0"', '"', "true", "null", "[]", "{}", "", " 1 "]),
            ),
        ),
        max_size=4,
    )
)
def test_the_short_way_leads_where_the_long_one_does(fields):
    """Else the same body means one thing, or is refused, with an escape in it, and not without."""
    descriptor = sum_pb2.AddRequest.DESCRIPTOR
    body = b"{" + ", ".join(f'"{key}":{value}' for key, value in fields).encode() + b"}"

    assert outcome(descriptor, body) == outcome(descriptor, spelt_otherwise(body, b"a", b"b", b"c"))


@pytest.mark.parametrize(
    "body",
    [
        b'{"line": "x", "runText": 1}',
        b'{"line":"x","line":"y"}',
        b'{"line":"-0","crash":false}',
        b'{"line":"a:\'","x":1}',
        b'{"failCode":-0}',
        b'{"failCode":3000000000}',
        b'{"failCode":true}',
        b'{"failCode":1.0}',
        b'{"fail_code":1,"failCode":1}',
        b'{"crash":1}',
    ],
)
def test_the_short_way_knows_its_limits(body):
    """Else strings, whole numbers and truth values are read otherwise than everywhere else."""
    descriptor = ledger_pb2.RecordRequest.DESCRIPTOR
    otherwise = spelt_otherwise(body, b"line", b"crash", b"failCode")

    assert otherwise != body
    assert outcome(descriptor, body) == outcome(descriptor, otherwise)


def test_a_rule_names_fields_as_the_proto_does():
    """What a path says would be another field's, where one is called in JSON as the other is in the proto."""
    file = descriptor_pb2.FileDescriptorProto(name="likes.proto", package="likes", syntax="proto2")
    pair = file.message_type.add(name="Pair")
    pair.options.deprecated_legacy_json_field_conflicts = True
    described.field(pair, "one", json_name="other")
    described.field(pair, "other", json_name="one")
    made = described.message_class(described.pool_of(file), "likes.Pair")

    composer = protojson.Composer(made.DESCRIPTOR, body="", captured=["one"])

    assert made.FromString(composer.compose(b"", ["x"], [])).one == "x"


def whole_and_holder():
    """A proto2 type with a required field, and one that holds it in each way that there is, and may be extended."""
    file = descriptor_pb2.FileDescriptorProto(name="whole.proto", package="whole", syntax="proto2")
    whole = file.message_type.add(name="Whole")
    described.field(whole, "one_of_it").label = F.LABEL_REQUIRED
    holder = file.message_type.add(name="Holder")
    holder.extension_range.add(start=100, end=200)
    described.field(holder, "single", ".whole.Whole")
    described.field(holder, "many_of_them", ".whole.Whole", repeated=True)
    described.map_field(holder, "named", F.TYPE_STRING, ".whole.Whole", ".whole.Holder")
    more = file.extension.add(
        name="more", number=100, label=F.LABEL_OPTIONAL, type=F.TYPE_MESSAGE, type_name=".whole.Whole"
    )
    more.extendee = ".whole.Holder"
    pool = described.pool_of(file)
    return described.message_class(pool, "whole.Whole"), described.message_class(pool, "whole.Holder"), pool


def test_what_no_message_is_whole_without_is_missed_even_if_a_generated_client_wrote_it():
    """A message that can't be serialized would be the gateway's failure."""
    whole, _, _ = whole_and_holder()

    with pytest.raises(protojson.FieldErrors) as missed:
        protojson.decode(whole.DESCRIPTOR, b'{"newer": 1}', lenient=True)

    assert missed.value.errors == [("oneOfIt", "is required")]


def test_what_no_message_is_whole_without_is_missed_in_its_bytes_too():
    """Bytes without it can be read and not written again: with an idempotency key that was the gateway's failure."""
    whole, holder, pool = whole_and_holder()

    def missed(made, body):
        with pytest.raises(protojson.FieldErrors) as caught:
            PROTO_CODEC.read(made.DESCRIPTOR, body)
        assert {error.reason for error in caught.value.errors} == {"is required"}
        return [error.field for error in caught.value.errors]

    assert missed(whole, b"") == ["oneOfIt"]
    held = holder(many_of_them=[whole(one_of_it="x"), whole()])
    held.single.SetInParent()
    held.named["a"].SetInParent()
    held.Extensions[pool.FindExtensionByName("whole.more")].SetInParent()
    assert missed(holder, held.SerializePartialToString()) == [
        *("single.oneOfIt", "manyOfThem[1].oneOfIt", "named[a].oneOfIt", "[whole.more].oneOfIt")
    ]
    assert len(missed(holder, holder(many_of_them=[whole()] * 1000).SerializePartialToString())) == 20
    body = whole(one_of_it="x").SerializeToString()
    assert PROTO_CODEC.read(whole.DESCRIPTOR, body) == body


def test_an_extension_is_looked_for_by_no_name_that_is_none():
    """A name that is no Unicode text was the gateway's failure, wherever a message may be extended."""
    _, holder, _ = whole_and_holder()

    assert wrong('{"[\\ud800x]": 1}', holder.DESCRIPTOR) == {"[?x]": "is not a field of this message"}
