"""Answers on standard output: tables for a terminal, JSON for a program.

Everything that comes from outside leaves through here, and holds nothing then that a terminal would obey; JSON stays
the same JSON.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from poste.domain.shown import visible, visible_json

if TYPE_CHECKING:
    from poste.client import Problem

#: Rich cuts a table to a terminal's width; what is read by a pipe must keep every word.
_PIPE_WIDTH: Final = 400
#: A space at which no line is broken.
_UNBROKEN: Final = "\N{NO-BREAK SPACE}"
#: What is between two columns.
_GAP: Final = 2
#: How many of a unit of size make the next.
_UNIT: Final = 1000


def compact(document: object) -> None:
    """Print one JSON document on one line."""
    click.echo(visible_json(json.dumps(document, ensure_ascii=False)))


def pretty(document: object) -> None:
    """Print one JSON document for a person."""
    click.echo(visible_json(json.dumps(document, ensure_ascii=False, indent=2)))


def line(text: str) -> None:
    """Print one line."""
    click.echo(visible(text))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns; where a terminal is too narrow for that, one below the other."""
    from rich.console import Console  # noqa: PLC0415 - costs a verb that prints JSON nothing
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    shown = [[visible(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *shown, strict=True)]
    if sum(widths) + _GAP * (len(widths) - 1) > console.width:
        _stack(columns, shown, console.width)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in shown:
        # As Text: what comes from a service must not be read as rich's own markup.
        grid.add_row(*map(Text, row))
    console.print(grid)


def _stack(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    """Print each row as its first cell, and below it the others with their columns' names, no word broken."""
    before = ""
    for first, *others in rows:
        if first != before:
            click.echo(click.style(first, bold=True))
        before = first
        line = ""
        for name, value in zip(columns[1:], others, strict=True):
            said = f"{name.lower()} {value}".lstrip() if value else ""
            if line and said and len(line) + _GAP + len(said) > width - _GAP:
                _wrapped(line, width)
                line = ""
            line = (" " * _GAP).join(filter(None, (line, said)))
        _wrapped(line, width)


def _wrapped(line: str, width: int) -> None:
    # Where it is a list, between its members only.
    whole = line.replace(" ", _UNBROKEN).replace(f",{_UNBROKEN}", ", ") if ", " in line else line
    for part in textwrap.wrap(whole, width - 2 * _GAP, break_long_words=False, break_on_hyphens=False):
        click.echo(" " * _GAP + part.replace(_UNBROKEN, " "))


def size(count: int) -> str:
    """Write a number of bytes, short: `900 B`, `18.2 MB`."""
    number, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        # As it would be rounded: never 1000 of a smaller unit.
        if number < _UNIT - 0.5:
            break
        number, unit = number / _UNIT, larger
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def facts(pairs: Mapping[str, object]) -> None:
    """Print names and values, one a line; what has no value is left out."""
    known = {name: value for name, value in pairs.items() if value is not None}
    width = max(map(len, known), default=0)
    for name, value in known.items():
        nested = isinstance(value, dict | list)
        shown = visible_json(json.dumps(value, ensure_ascii=False)) if nested else visible(str(value))
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {shown}")


def complain(text: str) -> None:
    """Print one line on standard error."""
    click.echo(f"poste: {visible(text)}", err=True)


def note(text: str) -> None:
    """Print progress on standard error: standard output is for programs."""
    click.echo(visible(text), err=True)


def problem(error: Problem, about: str = "") -> None:
    """Print a refusal on standard error: what, why, and the request's id."""
    request = f"request {error.request_id}" if error.request_id else ""
    said = ", ".join(filter(None, (error.document.get("code"), request)))
    text = f"{about}: {error.message}" if about else error.message
    complain(f"{text} ({said})" if said else text)
    for fault in error.errors:
        click.echo(visible(f"  {fault.field}: {fault.reason}"), err=True)
