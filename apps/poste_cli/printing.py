"""Answers on standard output: tables for a terminal, JSON for a program.

Everything that comes from outside leaves through here, and holds nothing then that a terminal would obey; JSON stays
the same JSON.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from itertools import takewhile
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
#: What is not broken either: a command or a name between backticks, as it is typed.
_WHOLE: Final = re.compile(r"`[^`\n]*`")
_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
#: Below this, seconds are written with one decimal.
_SHORT_SECONDS: Final = 9.95
#: How many of a unit of size make the next.
_UNIT: Final = 1000


def compact(document: object) -> None:
    """Print one JSON document on one line."""
    click.echo(visible_json(json.dumps(document, ensure_ascii=False)))


def pretty(document: object) -> None:
    """Print one JSON document for a person."""
    click.echo(visible_json(json.dumps(document, ensure_ascii=False, indent=2)))


def line(text: str) -> None:
    """Print one line; where a terminal is too narrow for it, it goes on in the next one, between words."""
    click.echo(_fitted(visible(text)))


def verbatim(text: str) -> None:
    """Print one line that is to be copied, such as a command: no terminal's width breaks it."""
    click.echo(visible(text))


def _fitted(text: str, *, err: bool = False, hang: int = _GAP) -> str:
    """Return a text with the line breaks that it needs on a terminal; further lines begin so far to the right."""
    if not (sys.stderr if err else sys.stdout).isatty():
        return text
    begin = " " * (len(text) - len(text.lstrip()) + hang)
    unbroken = _WHOLE.sub(lambda found: found[0].replace(" ", _UNBROKEN), text)
    width = shutil.get_terminal_size().columns
    lines = textwrap.wrap(unbroken, width, subsequent_indent=begin, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(_UNBROKEN, " ")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns; where a terminal is too narrow, each with its first cell on a line of its own.

    Where that is not enough either, all of a row's cells are told with their columns' names.
    """
    from rich.console import Console  # noqa: PLC0415 - costs a verb that prints JSON nothing
    from rich.table import Table  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)
    shown = [[visible(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *shown, strict=True)]
    whole = sum(widths) + _GAP * (len(widths) - 1)
    if whole > console.width:
        if whole - widths[0] <= console.width:
            _split(columns, shown, widths)
        else:
            _stack(columns, shown, console.width)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in shown:
        # As Text: what comes from a service must not be read as rich's own markup.
        grid.add_row(*map(Text, row))
    console.print(grid)


def _split(columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    """Print each row as its first cell, once for those that share it, and below it the others, under their columns."""
    before = ""
    for number, (first, *others) in enumerate([columns, *rows]):
        cells = (cell.ljust(width) for cell, width in zip(others, widths[1:], strict=True))
        below = (" " * _GAP + (" " * _GAP).join(cells)).rstrip()
        if first != before:
            click.echo(click.style(first, bold=True))
        before = first
        click.echo(below if number else click.style(below, bold=True))


def _stack(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    """Print each row as its first cell, and below it the others with their columns' names, no word broken.

    Of rows with the same first cell, what begins as in the row before is not told again.
    """
    before: Sequence[str] = ()
    for row in rows:
        same = len([*takewhile(lambda pair: pair[0] == pair[1], zip(before, row, strict=False))])
        before = row
        if not same:
            click.echo(click.style(row[0], bold=True))
        line = ""
        for name, value in [*zip(columns, row, strict=True)][max(same, 1) :]:
            said = f"{name.lower()} {value}".lstrip() if value else ""
            if line and said and len(line) + _GAP + len(said) > width - _GAP:
                _wrapped(line, width)
                line = ""
            line = (" " * _GAP).join(filter(None, (line, said)))
        _wrapped(line, width)


def _wrapped(line: str, width: int) -> None:
    # Where it is a list, between its members only.
    whole = line.replace(" ", _UNBROKEN).replace(f",{_UNBROKEN}", ", ") if ", " in line else line
    for part in textwrap.wrap(whole, width - _GAP, break_long_words=False, break_on_hyphens=False):
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


def duration(seconds: float | None) -> str:
    """Write a time, short: `0.4 s`, `34 s`, `5 min`, `2 h 5 min`, `3 d`; `-` if there is none."""
    if seconds is None:
        return "-"
    if seconds < _SHORT_SECONDS:
        return f"{seconds:.1f} s"
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds // _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:.0f} d"


def facts(pairs: Mapping[str, object]) -> None:
    """Print names and values, one a line; what has no value is left out."""
    known = {name: value for name, value in pairs.items() if value is not None}
    width = max(map(len, known), default=0)
    for name, value in known.items():
        if isinstance(value, dict | list):
            shown = visible_json(json.dumps(value, ensure_ascii=False))
        else:
            shown = _fitted(" " * (width + _GAP) + visible(str(value)), hang=0).strip()
        click.echo(f"{click.style(name.ljust(width), dim=True)}  {shown}")


def number(count: int, word: str) -> str:
    """Write a number and what there are so many of: `1 call`, `2 calls`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def complain(text: str) -> None:
    """Print one line on standard error."""
    click.echo(_fitted(f"poste: {visible(text)}", err=True), err=True)


def note(text: str) -> None:
    """Print progress on standard error: standard output is for programs."""
    click.echo(_fitted(visible(text), err=True), err=True)


def problem(error: Problem, about: str = "") -> None:
    """Print a refusal on standard error: what, why, and the request's id."""
    request = f"request {error.request_id}" if error.request_id else ""
    said = ", ".join(filter(None, (error.document.get("code"), request)))
    text = f"{about}: {error.message}" if about else error.message
    complain(f"{text} ({said})" if said else text)
    for fault in error.errors:
        told = f"{fault.field}: {fault.reason}"
        if told not in error.message:
            note(f"  {told}")
