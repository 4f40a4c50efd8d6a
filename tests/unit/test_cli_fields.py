"""The message that `poste call` makes of its arguments."""

from __future__ import annotations

import io
import sys

import click
import pytest

from poste_cli import fields


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
def test_a_value_is_json_if_it_reads_as_json(text, value):
    """A number would arrive as text, or a word would have to be quoted twice; a huge one would end in a traceback."""
    assert fields.message([text], None) == {"a": value}


@pytest.mark.parametrize("given", [["a"], ["=2"], ["a=1", "a=2"]])
def test_what_is_no_field_is_refused(given):
    """A slip of the pen would be called with something else than was meant."""
    with pytest.raises(click.UsageError):
        fields.message(given, None)


@pytest.mark.parametrize("data", ["[1]", "2", "{", '{"a": NaN}', '{"a": 1e999}', '{"a": 1, "a": 2}', "@/no/such/file"])
def test_data_that_is_no_json_object_is_refused(data):
    """It would be sent half read, or end in a traceback."""
    with pytest.raises(click.UsageError):
        fields.message([], data)


def test_data_may_come_from_an_argument_a_file_or_standard_input(tmp_path, monkeypatch):
    """Long messages could not be given at all."""
    file = tmp_path / "message.json"
    file.write_text('{"a": "é"}', encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"a": 3}'))

    given = [fields.message([], '{"a": 1}'), fields.message([], f"@{file}"), fields.message([], "-")]

    assert given == [{"a": 1}, {"a": "é"}, {"a": 3}]


def test_data_and_fields_exclude_each_other():
    """It would be anybody's guess which of the two wins."""
    with pytest.raises(click.UsageError):
        fields.message(["a=1"], '{"a": 2}')
