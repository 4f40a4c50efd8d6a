"""The message that `poste call` makes of its arguments."""

from __future__ import annotations

import io
import sys

import click
import pytest
from support import shop

from poste import protojson
from poste.client import MethodOutline
from poste.rpc.catalogue import describe
from poste_cli import examples, fields


def made(*arguments: str, outline: MethodOutline | None = None, notes: list[str] | None = None) -> dict[str, object]:
    return fields.message(fields.given(arguments), outline, ([] if notes is None else notes).append)


@pytest.fixture(scope="module")
def method():
    """The method whose request has a field of each type."""
    return describe(shop.entry()).methods["Place"]


@pytest.fixture(scope="module")
def outline(method):
    return MethodOutline.read(
        {
            "service": shop.NAME,
            "name": "Place",
            "path": method.path,
            "routes": [],
            "notServed": [],
            "idempotent": False,
            "away": "queue",
            "request": method.input.full_name,
            "response": method.output.full_name,
            **protojson.outline(method.input, method.output),
        }
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=2", 2),
        ("a=-2.5", -2.5),
        ("a=true", True),
        ("a=null", None),
        ("a=", ""),
        ("a=two", "two"),
        ('a="2"', "2"),
        ("a=b=c", "b=c"),
        ('a={"b": [1]}', {"b": [1]}),
        ("a=9007199254740993", 9007199254740993),
        ("a=NaN", "NaN"),
        ("a=-Infinity", "-Infinity"),
        ("a=1e999", "1e999"),
        ("a=" + "[" * 100_000, "[" * 100_000),
    ],
)
def test_a_value_of_an_unknown_type_is_json_if_it_reads_as_json(text, value):
    """A number would arrive as text, or a word would have to be quoted twice; a huge one would end in a traceback."""
    assert made(text) == {"a": value}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a_string=123"], {"a_string": "123"}),
        (["aString=true"], {"aString": "true"}),
        (['a_string="x"'], {"a_string": '"x"'}),
        (["a_bytes=1234"], {"a_bytes": "1234"}),
        (["a_bool=true"], {"a_bool": True}),
        (["a_bool=yes"], {"a_bool": "yes"}),
        (["a_int64=12", "a_double=NaN"], {"a_int64": 12, "a_double": "NaN"}),
        # Which the gateway refuses: it would be left out without a word.
        (["a_int32=null"], {"a_int32": "null"}),
        (["colour=COLOUR_RED"], {"colour": "COLOUR_RED"}),
        (["at=2026-01-02T03:04:05Z", "lasts=3s"], {"at": "2026-01-02T03:04:05Z", "lasts": "3s"}),
        (["wrapped=2.5"], {"wrapped": 2.5}),
        (["numbers=1", "numbers=2"], {"numbers": [1, 2]}),
        (["numbers=[1, 2]"], {"numbers": [1, 2]}),
        (['labels={"a": 1}'], {"labels": {"a": 1}}),
        (["main_item.sku=7", "main_item.unit_price=7"], {"main_item": {"sku": "7", "unit_price": 7}}),
        (["voucher.sku=7"], {"voucher": {"sku": "7"}}),
        (['main_item={"sku": "7"}'], {"main_item": {"sku": "7"}}),
        (["a_string:=null"], {"a_string": None}),
        (['numbers:=[1, "2"]'], {"numbers": [1, "2"]}),
        # Which the gateway refuses by name.
        (["main_item.weight=7", "strange=7"], {"main_item": {"weight": 7}, "strange": 7}),
    ],
)
def test_a_value_is_what_its_fields_type_makes_of_it(outline, arguments, message):
    """`customer=123` would be refused for a string field, and a name such as `true` could not be said at all."""
    assert made(*arguments, outline=outline) == message


def test_a_null_that_is_a_text_is_told(outline):
    """A field that was to be left out would be the word `null`, or the word be left out, and either in silence."""
    notes: list[str] = []

    assert made("a_string=null", outline=outline, notes=notes) == {"a_string": "null"}
    assert notes == ["a_string is the text 'null'; a_string:=null leaves it unset"]


@pytest.mark.parametrize(
    "given",
    [["a"], ["=2"], [":=2"], ["a=1", "a=2"], ["a:=two"], ["a:=NaN"], ['a:={"b": 1, "b": 2}']],
)
def test_what_is_no_field_is_refused(given):
    """A misspelt value would be called with something else than was meant."""
    with pytest.raises(click.UsageError):
        made(*given)


@pytest.mark.parametrize("given", [["main_item=1", "main_item.sku=2"], ["main_item.sku=1", "main_item={}"]])
def test_a_message_is_given_whole_or_by_its_fields(outline, given):
    """One of the two would be dropped."""
    with pytest.raises(click.UsageError):
        made(*given, outline=outline)


@pytest.mark.parametrize("data", ["[1]", "2", "{", '{"a": NaN}', '{"a": 1e999}', '{"a": 1, "a": 2}', "@/no/such/file"])
def test_data_that_is_no_json_object_is_refused(data):
    """It would be sent half read, or end in a traceback."""
    with pytest.raises(click.UsageError):
        fields.whole(data)


def test_data_may_come_from_an_argument_a_file_or_standard_input(tmp_path, monkeypatch):
    """Long messages could not be given at all."""
    file = tmp_path / "message.json"
    file.write_text('{"a": "é"}', encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"a": 3}'))

    given = [fields.whole('{"a": 1}'), fields.whole(f"@{file}"), fields.whole("-")]

    assert given == [{"a": 1}, {"a": "é"}, {"a": 3}]


def test_every_field_has_an_example_that_is_taken(method, outline):
    """`poste describe` would have people paste a call that is refused."""
    whole = {
        field.json_name: examples._value(outline, field, 3)
        for field in outline.messages[outline.request]
        if field.oneof is None or field.name == "card"
    }

    decoded = protojson.decode(method.input, protojson.dumps(whole))

    assert decoded
    assert protojson.decode(method.input, protojson.dumps(examples.request(outline)))
