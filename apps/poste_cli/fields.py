"""Makes the request message of `poste call` from the command line's arguments.

A value's type is that of its field, where the gateway says what the method's request is made of: `customer=123` is a
string for a string field. `FIELD:=VALUE` is JSON as it stands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from poste.client import MessageField, MethodOutline

#: Types whose JSON is a string, whatever is in it.
_TEXTS: Final = frozenset(
    {
        *("string", "bytes"),
        *(f"google.protobuf.{name}" for name in ("StringValue", "BytesValue", "Timestamp", "Duration", "FieldMask")),
    }
)
#: Types of which `null` is a value.
_NULLS: Final = frozenset({"google.protobuf.Value", "google.protobuf.NullValue"})
_BOOLS: Final = frozenset({"bool", "google.protobuf.BoolValue"})


@dataclass(frozen=True, slots=True)
class Given:
    """One argument.

    Attributes:
        name: The field's name, or names down to it with a dot between them.
        text: Its value, as it was typed.
        raw: It is JSON (`:=`).
    """

    name: str
    text: str
    raw: bool


def message(fields: Sequence[Given], outline: MethodOutline | None, note: Callable[[str], None]) -> dict[str, Any]:
    """Build the message from `FIELD=VALUE` arguments.

    Args:
        fields: The arguments.
        outline: What the message is made of; None if that is not known: a value is JSON then if it reads as JSON, else
            a string.
        note: Called with what may be a slip, and is done all the same.

    Raises:
        click.UsageError: They make no message.
    """
    built: dict[str, Any] = {}
    known = None if outline is None else outline.messages.get(outline.request)
    for one in fields:
        target, name, field = _place(built, one.name, known, outline)
        _put(target, name, field, one, note)
    return built


def given(arguments: Iterable[str]) -> list[Given]:
    """Read `FIELD=VALUE` and `FIELD:=JSON` arguments.

    Raises:
        click.UsageError: One is neither.
    """
    found = []
    for item in arguments:
        name, equals, text = item.partition("=")
        raw = name.endswith(":")
        name = name.removesuffix(":")
        if not equals or not name:
            raise click.UsageError(f"{item!r} is not FIELD=VALUE")
        if raw:
            read_json(text, f"the value of {name!r}")
        found.append(Given(name, text, raw))
    return found


def whole(data: str) -> dict[str, Any]:
    """Read the value of `-d`: JSON text, `@FILE`, or `-` for standard input.

    Raises:
        click.UsageError: It is no JSON object.
    """
    document = read_json(_text(data), "-d")
    if not isinstance(document, dict):
        raise click.UsageError("-d is not a JSON object")
    return document


def _find(known: Sequence[MessageField] | None, name: str) -> MessageField | None:
    return next((field for field in known or () if name in (field.name, field.json_name)), None)


def _place(
    message: dict[str, Any], name: str, known: Sequence[MessageField] | None, outline: MethodOutline | None
) -> tuple[dict[str, Any], str, MessageField | None]:
    """Return the message that a name's field is in, the field's own name, and the field: `a.b` is field b of a."""
    field = _find(known, name)
    head, dot, rest = name.partition(".")
    above = _find(known, head)
    if field is not None or not dot or outline is None or above is None or above.repeated or above.key_type:
        return message, name, field
    below = outline.messages.get(above.type)
    if below is None:
        return message, name, None
    inner = message.setdefault(head, {})
    if not isinstance(inner, dict):
        raise click.UsageError(f"{head!r} is given whole, and by its fields too")
    return _place(inner, rest, below, outline)


def _put(
    target: dict[str, Any], name: str, field: MessageField | None, one: Given, note: Callable[[str], None]
) -> None:
    """Put a value into a message; a repeated field's values one after the other."""
    if one.raw:
        value = read_json(one.text, name)
    elif field is None or field.key_type is not None:
        value = _guessed(one.text)
    elif not field.repeated:
        value = _typed(one, field.type, note)
    elif isinstance(listed := _guessed(one.text), list):
        value = listed
    else:
        before = target.get(name, [])
        if isinstance(before, list):
            target[name] = [*before, _typed(one, field.type, note)]
            return
        value = None
    if name in target:
        raise click.UsageError(f"{one.name!r} is given twice")
    target[name] = value


def _typed(one: Given, kind: str, note: Callable[[str], None]) -> Any:
    """Return a value as its field's type has it; what is none of that type stays text, which the gateway refuses."""
    if kind in _TEXTS:
        if one.text == "null":
            note(f"{one.name} is the text 'null'; {one.name}:=null leaves it unset")
        return one.text
    if kind in _BOOLS:
        return {"true": True, "false": False}.get(one.text, one.text)
    value = _guessed(one.text)
    return one.text if value is None and kind not in _NULLS else value


def _guessed(text: str) -> Any:
    """Read a value as JSON if it is JSON; `NaN` and figures past any float stay text, for ProtoJSON spells them so."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return value


def _text(data: str) -> str:
    if not data.startswith("@") and data != "-":
        return data
    try:
        return sys.stdin.read() if data == "-" else Path(data[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{data[1:]}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{data}: not UTF-8") from error


def read_json(text: str, what: str) -> Any:
    """Read JSON, which has no NaN and no name twice; `what` it is, for the user.

    Raises:
        click.UsageError: It is none.
    """
    try:
        document = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
        json.dumps(document, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{what} is not JSON: {error}") from error
    return document


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value; as a string, {name!r}, it is one")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that is given twice: keeping only the last would drop what was typed."""
    built = dict(pairs)
    if len(built) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands twice")
    return built
