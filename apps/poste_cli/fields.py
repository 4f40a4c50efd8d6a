"""Makes the request message of `poste call` from the command line's arguments."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import click


def message(fields: Iterable[str], data: str | None) -> dict[str, Any]:
    """Build the message from `FIELD=VALUE` arguments or from the value of `-d`.

    Args:
        fields: Each `FIELD=VALUE`; a value is JSON if it reads as JSON, else a string.
        data: JSON text, `@FILE`, or `-` for standard input.

    Raises:
        click.UsageError: They make no message.
    """
    given = list(fields)
    if data is None:
        return _from_fields(given)
    if given:
        raise click.UsageError("give the message either as FIELD=VALUE or with -d, not both")
    return _from_json(_text(data))


def _from_fields(fields: list[str]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for item in fields:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{item!r} is not FIELD=VALUE")
        if name in built:
            raise click.UsageError(f"{name!r} is given twice")
        built[name] = _value(value)
    return built


def _value(text: str) -> Any:
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


def _from_json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
        json.dumps(document, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"-d is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise click.UsageError("-d is not a JSON object")
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
