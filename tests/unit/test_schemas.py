"""A method's schema: what its fingerprint depends on, and which schema may follow which, by buf's WIRE rules."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, struct_pb2
from hypothesis import given
from hypothesis import strategies as st
from support.described import F, field, map_field, message_class, pool_of, service

from calculator.v1 import sum_pb2
from poste.rpc.schemas.schema import MethodSchema, is_fingerprint, parse
from poste.rpc.schemas.wire_rules import breaking_changes

Change = Callable[[Any], object]
#: Kinds, and what each may become without a change of what is on the wire.
_ROWS = (
    {F.TYPE_INT32, F.TYPE_INT64, F.TYPE_UINT32, F.TYPE_UINT64, F.TYPE_BOOL},
    {F.TYPE_SINT32, F.TYPE_SINT64},
    {F.TYPE_FIXED32, F.TYPE_SFIXED32},
    {F.TYPE_FIXED64, F.TYPE_SFIXED64},
    {F.TYPE_STRING},
    {F.TYPE_BYTES},
    {F.TYPE_FLOAT},
    {F.TYPE_DOUBLE},
)
_KINDS = sorted(kind for row in _ROWS for kind in row)


def bank(change: Change = lambda _: None, *, syntax: str = "proto3") -> MethodSchema:
    """The schema of a method that pays: its request has every kind of thing that may change."""
    file = descriptor_pb2.FileDescriptorProto(name="bank.proto", package="bank.v1", syntax=syntax)
    request, answer = file.message_type.add(name="Payment"), file.message_type.add(name="Receipt")
    field(request, "amount", F.TYPE_INT64)
    field(request, "to", ".bank.v1.Account")
    field(request, "currency", ".bank.v1.Currency", type=F.TYPE_ENUM)
    field(request, "notes", F.TYPE_STRING, repeated=True)
    map_field(request, "tags", F.TYPE_STRING, F.TYPE_STRING, ".bank.v1.Payment")
    request.oneof_decl.add(name="when")
    field(request, "day", F.TYPE_STRING, oneof_index=0)
    field(request, "hour", F.TYPE_INT32, oneof_index=0)
    request.reserved_range.add(start=20, end=24)
    request.reserved_name.append("old")
    account = file.message_type.add(name="Account")
    field(account, "iban")
    currency = file.enum_type.add(name="Currency")
    for number, name in enumerate(("EURO", "DOLLAR", "YEN")):
        currency.value.add(name=name, number=number)
    currency.reserved_range.add(start=10, end=12)
    currency.reserved_name.append("GULDEN")
    field(answer, "id")
    file.message_type.add(name="Other").field.add(name="x", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
    service(file, "Bank", {"Pay": (".bank.v1.Payment", ".bank.v1.Receipt")})
    change(file)
    method = pool_of(file).FindServiceByName("bank.v1.Bank").methods_by_name["Pay"]
    return MethodSchema(method.input_type, method.output_type)


def breaks(change: Change, before: Change = lambda _: None, *, syntax: str = "proto3") -> list[str]:
    now, earlier = bank(change, syntax=syntax), bank(before, syntax=syntax)
    return breaking_changes(parse(earlier.text), parse(now.text))


def payment(file: Any) -> Any:
    return file.message_type[0]


def of(file: Any, name: str) -> Any:
    return next(one for one in payment(file).field if one.name == name)


def without(message: Any, name: str, *, reserved: bool = False) -> None:
    gone = next(one for one in message.field if one.name == name)
    if reserved:
        message.reserved_range.add(start=gone.number, end=gone.number + 1)
    message.field.remove(gone)


def test_a_fingerprint_is_short_and_the_same_each_time():
    """Else records of one method differ, and each of them is judged."""
    assert is_fingerprint(bank().fingerprint)
    assert bank().fingerprint == bank().fingerprint
    assert not is_fingerprint("")
    assert not is_fingerprint("x" * 15 + "/")


def unrelated(file: Any) -> None:
    file.message_type.add(name="Further")
    field(file.message_type[3], "y")
    file.service[0].method.add(name="Look", input_type=".bank.v1.Other", output_type=".bank.v1.Further")


def reordered(file: Any) -> None:
    for listed in (file.message_type, file.enum_type[0].value, payment(file).field):
        kept = sorted(listed, key=lambda one: one.name, reverse=True)
        # The first value of an enum of proto3 is 0.
        kept.sort(key=lambda one: getattr(one, "number", 0) != 0 if listed is file.enum_type[0].value else 0)
        del listed[:]
        listed.extend(kept)


def commented(file: Any) -> None:
    file.source_code_info.location.add(path=[4, 0], span=[0, 0, 1], leading_comments="pays")
    file.options.java_package = "com.bank"


def ranges_split(file: Any) -> None:
    del payment(file).reserved_range[:]
    payment(file).reserved_range.add(start=22, end=24)
    payment(file).reserved_range.add(start=20, end=22)


@pytest.mark.parametrize("change", [unrelated, reordered, commented, ranges_split])
def test_a_fingerprint_depends_on_nothing_but_the_methods_messages(change):
    """Else calls are judged, or even held, for a change of a comment or of another method."""
    assert bank(change).fingerprint == bank().fingerprint


def test_a_fingerprint_does_not_depend_on_files():
    """Else a message that moves to a file of its own makes another schema."""
    account = descriptor_pb2.FileDescriptorProto(name="account.proto", package="bank.v1", syntax="proto3")
    file = descriptor_pb2.FileDescriptorProto(name="a.proto", package="bank.v1", syntax="proto3")
    one = descriptor_pb2.FileDescriptorProto(name="b.proto", package="bank.v1", syntax="proto3")
    for holder in (account, one):
        field(holder.message_type.add(name="Account"), "iban")
    file.dependency.append("account.proto")
    for holder in (file, one):
        field(holder.message_type.add(name="Payment"), "to", ".bank.v1.Account")
    pools = [pool_of(account, file), pool_of(one)]
    apart, together = (pool.FindMessageTypeByName("bank.v1.Payment") for pool in pools)

    assert MethodSchema(apart, apart).fingerprint == MethodSchema(together, together).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda file: setattr(of(file, "amount"), "type", F.TYPE_STRING),
        lambda file: setattr(of(file, "amount"), "name", "sum"),
        lambda file: field(file.message_type[1], "more"),
        lambda file: field(file.message_type[2], "bic"),
        lambda file: file.enum_type[0].value.add(name="POUND", number=3),
    ],
)
def test_a_fingerprint_depends_on_all_that_the_method_reaches(change):
    """Else a call runs under another schema than its own, unseen."""
    assert bank(change).fingerprint != bank().fingerprint


@pytest.mark.parametrize("syntax", ["proto2", "proto3"])
def test_a_schema_follows_itself_and_is_read_as_it_was_written(syntax):
    """Else what is compared is not what the method has."""
    schema = bank(syntax=syntax)

    assert breaks(lambda _: None, syntax=syntax) == []
    read = parse(schema.text)
    assert (read.request, read.response) == ("bank.v1.Payment", "bank.v1.Receipt")
    assert set(read.messages) == {"bank.v1.Payment", "bank.v1.Payment.Map0Entry", "bank.v1.Receipt", "bank.v1.Account"}
    assert read.enums["bank.v1.Currency"].values == {0: ("EURO",), 1: ("DOLLAR",), 2: ("YEN",)}


def test_a_message_that_holds_itself_has_a_schema():
    """Else google.protobuf.Struct, a tree, or a list of lists never ends."""
    value = struct_pb2.Value.DESCRIPTOR

    assert len(parse(MethodSchema(value, value).text).messages) == 4


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"poste method schema 2\n[]",
        b"poste method schema 1\n",
        b"poste method schema 1\n[1,2]",
        b'poste method schema 1\n["a","b",{"m":[[[1]],[],[]]},{}]',
        b'poste method schema 1\n["a","b",3,{}]',
    ],
)
def test_what_is_no_schema_is_refused(text):
    """Else a damaged one ends the middleware's work with an error that names nothing."""
    with pytest.raises(ValueError, match="schema"):
        parse(text)


def default(value: str) -> Change:
    return lambda file: setattr(of(file, "amount"), "default_value", value)


def renamed_request(file: Any) -> None:
    file.message_type.add().CopyFrom(payment(file))
    file.message_type[-1].name = "Payment2"
    for one in file.message_type[-1].field:
        if one.type_name:
            one.type_name = one.type_name.replace(".Payment.", ".Payment2.")
    file.service[0].method[0].input_type = ".bank.v1.Payment2"


def out_of_the_oneof(file: Any) -> None:
    of(file, "hour").ClearField("oneof_index")


def other_oneof(file: Any) -> None:
    payment(file).oneof_decl.add(name="later")
    of(file, "hour").oneof_index = 1


def other_account(file: Any) -> None:
    field(file.message_type.add(name="Customer"), "iban")
    of(file, "to").type_name = ".bank.v1.Customer"


def moved_enum(*names: str) -> Change:
    def change(file: Any) -> None:
        enum = file.message_type[1].enum_type.add(name="Currency")
        for number, name in enumerate(names):
            enum.value.add(name=name, number=number)
        of(file, "currency").type_name = ".bank.v1.Receipt.Currency"

    return change


def fewer_reserved(file: Any) -> None:
    payment(file).reserved_range[0].end = 22
    payment(file).reserved_name.remove("old")


def fewer_values_reserved(file: Any) -> None:
    del file.enum_type[0].reserved_range[:]
    file.enum_type[0].reserved_name.remove("GULDEN")


def without_value(file: Any) -> None:
    del file.enum_type[0].value[2]


def required(name: str) -> Change:
    def change(file: Any) -> None:
        field(payment(file), name).label = F.LABEL_REQUIRED

    return change


#: buf's rule, what changes, and what is said of it.
BREAKING: list[tuple[str, str, Change, Change, list[str]]] = [
    (
        "FIELD_WIRE_COMPATIBLE_TYPE",
        "proto3",
        lambda _: None,
        lambda file: setattr(of(file, "amount"), "type", F.TYPE_STRING),
        ["bank.v1.Payment: field 1 `amount` changed from int64 to string"],
    ),
    (
        "FIELD_WIRE_COMPATIBLE_TYPE",
        "proto3",
        lambda _: None,
        other_account,
        ["bank.v1.Payment: field 2 `to` changed from bank.v1.Account to bank.v1.Customer"],
    ),
    (
        "FIELD_WIRE_COMPATIBLE_TYPE",
        "proto3",
        lambda _: None,
        moved_enum("EURO", "DOLLAR"),
        ["bank.v1.Payment: field 3 `currency` changed from bank.v1.Currency to bank.v1.Receipt.Currency"],
    ),
    (
        "FIELD_WIRE_COMPATIBLE_TYPE",
        "proto3",
        lambda file: setattr(of(file, "day"), "type", F.TYPE_BYTES),
        lambda _: None,
        ["bank.v1.Payment: field 6 `day` changed from bytes to string"],
    ),
    (
        "FIELD_WIRE_COMPATIBLE_CARDINALITY",
        "proto3",
        lambda _: None,
        lambda file: setattr(of(file, "notes"), "label", F.LABEL_OPTIONAL),
        ["bank.v1.Payment: field 4 `notes` changed from repeated to singular"],
    ),
    (
        "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED",
        "proto3",
        lambda _: None,
        lambda file: without(payment(file), "amount"),
        ["bank.v1.Payment: field 1 `amount` was removed, and its number is not reserved"],
    ),
    (
        "FIELD_SAME_ONEOF",
        "proto3",
        lambda _: None,
        out_of_the_oneof,
        ["bank.v1.Payment: field 7 `hour` moved from the oneof `when` to outside of a oneof"],
    ),
    (
        "FIELD_SAME_ONEOF",
        "proto3",
        lambda _: None,
        other_oneof,
        ["bank.v1.Payment: field 7 `hour` moved from the oneof `when` to the oneof `later`"],
    ),
    (
        "FIELD_SAME_DEFAULT",
        "proto2",
        default("3"),
        default("4"),
        ["bank.v1.Payment: the default of field 1 `amount` changed from 3 to 4"],
    ),
    (
        "FIELD_SAME_DEFAULT",
        "proto2",
        lambda _: None,
        default("4"),
        ["bank.v1.Payment: the default of field 1 `amount` changed from none to 4"],
    ),
    (
        "MESSAGE_SAME_REQUIRED_FIELDS",
        "proto2",
        lambda _: None,
        required("who"),
        ["bank.v1.Payment: field 8 `who` was added, and is required"],
    ),
    (
        "MESSAGE_SAME_REQUIRED_FIELDS",
        "proto2",
        required("who"),
        lambda file: payment(file).reserved_range.add(start=8, end=9),
        ["bank.v1.Payment: field 8 `who` was removed, and was required"],
    ),
    (
        "RESERVED_MESSAGE_NO_DELETE",
        "proto3",
        lambda _: None,
        fewer_reserved,
        [
            "bank.v1.Payment: of the reserved field numbers 20 to 23 some are not reserved any more",
            "bank.v1.Payment: the field name `old` is not reserved any more",
        ],
    ),
    (
        "RESERVED_ENUM_NO_DELETE",
        "proto3",
        lambda _: None,
        fewer_values_reserved,
        [
            "bank.v1.Currency: of the reserved value numbers 10 to 12 some are not reserved any more",
            "bank.v1.Currency: the value name `GULDEN` is not reserved any more",
        ],
    ),
    (
        "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED",
        "proto3",
        lambda _: None,
        without_value,
        ["bank.v1.Currency: value 2 `YEN` was removed, and its number is not reserved"],
    ),
    (
        "RPC_SAME_REQUEST_TYPE",
        "proto3",
        lambda _: None,
        renamed_request,
        ["the request changed from bank.v1.Payment to bank.v1.Payment2"],
    ),
    (
        "RPC_SAME_RESPONSE_TYPE",
        "proto3",
        lambda _: None,
        lambda file: setattr(file.service[0].method[0], "output_type", ".bank.v1.Other"),
        ["the response changed from bank.v1.Receipt to bank.v1.Other"],
    ),
]


@pytest.mark.parametrize(
    ("syntax", "before", "change", "words"), [one[1:] for one in BREAKING], ids=[one[0] for one in BREAKING]
)
def test_what_buf_calls_breaking_breaks(syntax, before, change, words):
    """Else a call runs under a schema by which its request says something else: the case is named by buf's rule."""
    assert breaks(change, before, syntax=syntax) == words


def two_more(file: Any) -> None:
    field(payment(file), "memo")
    field(file.message_type[1], "at", F.TYPE_INT64)


COMPATIBLE: dict[str, Change] = {
    "fields are added": two_more,
    "a field is renamed": lambda file: setattr(of(file, "amount"), "name", "sum"),
    "a field is removed and its number reserved": lambda file: without(payment(file), "amount", reserved=True),
    "a value is added": lambda file: file.enum_type[0].value.add(name="POUND", number=3),
    "a value is removed and its number reserved": lambda file: (
        without_value(file),
        file.enum_type[0].reserved_range.add(start=2, end=2),
    ),
    "a string becomes bytes": lambda file: setattr(of(file, "day"), "type", F.TYPE_BYTES),
    "an enum moves": moved_enum("EURO", "DOLLAR", "YEN", "POUND"),
    "more is reserved": lambda file: payment(file).reserved_range.add(start=24, end=30),
    "another message changes": lambda file: without(file.message_type[3], "x"),
}


@pytest.mark.parametrize("change", COMPATIBLE.values(), ids=COMPATIBLE)
def test_what_buf_calls_compatible_runs(change):
    """Else every deploy holds calls that it does no harm to."""
    assert breaks(change) == []


def test_presence_is_of_no_account():
    """Else an `optional` that is added to a field, or taken off, makes another schema: the wire has the same."""

    def optional(file: Any) -> None:
        payment(file).oneof_decl.add(name="_amount")
        of(file, "amount").proto3_optional, of(file, "amount").oneof_index = True, 1

    assert bank(optional).fingerprint == bank().fingerprint


@pytest.mark.parametrize("kind", _KINDS)
def test_every_pair_of_scalars_is_judged_by_its_row(kind):
    """Else values of some pair are read wrong, unnoticed; bytes are what a string may become."""
    for other in _KINDS:
        alike = any({kind, other} <= row for row in _ROWS) or (kind, other) == (F.TYPE_STRING, F.TYPE_BYTES)
        found = breaks(
            lambda file, other=other: setattr(of(file, "amount"), "type", other),
            lambda file: setattr(of(file, "amount"), "type", kind),
        )
        assert (found == []) is alike, (F.Type.Name(kind), F.Type.Name(other))


_SMALL = {
    **dict.fromkeys(_ROWS[0] - {F.TYPE_BOOL}, st.integers(0, 2**31 - 1)),
    F.TYPE_BOOL: st.booleans(),
    **dict.fromkeys(_ROWS[1], st.integers(-(2**31), 2**31 - 1)),
    **dict.fromkeys((*_ROWS[2], *_ROWS[3]), st.integers(0, 2**31 - 1)),
    F.TYPE_STRING: st.text(max_size=5),
    F.TYPE_BYTES: st.binary(max_size=5),
    F.TYPE_FLOAT: st.floats(width=32, allow_nan=False),
    F.TYPE_DOUBLE: st.floats(allow_nan=False),
}


def flat(fields: dict[int, int], reserved: set[int]) -> tuple[MethodSchema, Any]:
    """A method whose request has fields of these kinds by number, and the class of its requests."""
    file = descriptor_pb2.FileDescriptorProto(name="flat.proto", package="flat.v1", syntax="proto3")
    request = file.message_type.add(name="Request")
    for number, kind in fields.items():
        request.field.add(name=f"f{number}", number=number, type=kind, label=F.LABEL_OPTIONAL)
    for number in reserved:
        request.reserved_range.add(start=number, end=number + 1)
    pool = pool_of(file)
    kind_of = pool.FindMessageTypeByName("flat.v1.Request")
    return MethodSchema(kind_of, kind_of), message_class(pool, "flat.v1.Request")


@given(data=st.data())
def test_what_is_compatible_reads_what_was_written(data):
    """Else the rules let a request through that its handler reads as something else."""
    numbers = st.integers(1, 6)
    before = data.draw(st.dictionaries(numbers, st.sampled_from(_KINDS), min_size=1))
    now = {**before, **data.draw(st.dictionaries(numbers, st.sampled_from(_KINDS)))}
    reserved = data.draw(st.sets(numbers))
    now = {number: kind for number, kind in now.items() if number not in reserved}
    (earlier, earlier_class), (later, later_class) = flat(before, set()), flat(now, reserved)
    found = breaking_changes(parse(earlier.text), parse(later.text))
    changed = {number for number in before if number in now and now[number] != before[number]}
    may = [
        any({before[one], now[one]} <= row for row in _ROWS) or (before[one], now[one]) == (F.TYPE_STRING, F.TYPE_BYTES)
        for one in changed
    ]
    assert (found == []) is all(may)
    if found:
        return
    values = {number: data.draw(_SMALL[kind]) for number, kind in before.items()}
    message = earlier_class(**{f"f{number}": value for number, value in values.items()})

    read = later_class.FromString(message.SerializeToString())

    for number in before.keys() & now.keys():
        value, got = values[number], getattr(read, f"f{number}")
        if F.TYPE_BOOL in (now[number], before[number]):
            value, got = bool(value), bool(got)
        assert got == (value.encode() if isinstance(value, str) and isinstance(got, bytes) else value)


@given(seed=st.integers(0, 2**32))
def test_a_schema_follows_itself_whatever_the_order_of_its_fields(seed):
    """Else the fingerprint depends on what wrote the descriptors."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    numbers = rng.sample(range(1, 100), 8)
    fields = {number: rng.choice(_KINDS) for number in numbers}
    shuffled = dict(rng.sample([*fields.items()], len(fields)))
    one, _ = flat(fields, set())
    other, _ = flat(shuffled, set())

    assert one.text == other.text
    assert breaking_changes(parse(one.text), parse(other.text)) == []


def test_generated_code_and_a_pool_of_the_catalogue_have_one_fingerprint():
    """Else a worker and the gateway name one schema by two names, and every call is judged."""
    own = sum_pb2.DESCRIPTOR.services_by_name["SumService"].methods_by_name["Add"]
    read = pool_of(sum_pb2.DESCRIPTOR).FindServiceByName("calculator.v1.SumService").methods_by_name["Add"]

    named = [MethodSchema(one.input_type, one.output_type).fingerprint for one in (own, read)]

    assert named[0] == named[1]
