"""The table that a run prints, and the same as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from chaos import history
from chaos.judge import Verdict
from chaos.observations import Call, Observations
from chaos.plan import Fault

#: As many violations go into the report with all that is known of them.
_MAX_TOLD: Final = 50
#: As many are printed with their history.
_MAX_PRINTED: Final = 3
#: As many lines of a long history are printed of its begin, and of its end.
_MAX_LINES: Final = 25


def show(title: str, rows: dict[str, Any], console: Console) -> None:
    """Print one table; a value that is itself a table goes in under its name."""
    table = Table(title=title, title_justify="left", show_header=False, title_style="bold")
    table.add_column(style="cyan")
    table.add_column(justify="right")
    for name, value in rows.items():
        if isinstance(value, dict):
            table.add_section()
            table.add_row(f"[bold]{name}[/bold]", "")
            for inner, count in value.items():
                table.add_row(f"  {inner}", _text(count))
            table.add_section()
        else:
            table.add_row(name, _text(value))
    console.print(table)


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def tell(verdict: Verdict, seen: Observations, folder: Path, console: Console) -> None:
    """Print what was broken, the first ones with their task's whole history."""
    for number, violation in enumerate(verdict.violations[:_MAX_TOLD]):
        place = "" if violation.call is None else f" (call {violation.call})"
        console.print(f"[red]{violation.category}[/red]{place}: {violation.text}", highlight=False, markup=True)
        if violation.call is not None and number < _MAX_PRINTED:
            call = seen.calls[violation.call]
            console.print(f"  {call.wish!r}", highlight=False, markup=False)
            for line in _shortened(history.of(call, folder)):
                console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _shortened(lines: list[str]) -> list[str]:
    """Leave out the middle of a long history; the report has all of it."""
    if len(lines) <= 2 * _MAX_LINES:
        return lines
    return [*lines[:_MAX_LINES], f"… {len(lines) - 2 * _MAX_LINES} lines …", *lines[-_MAX_LINES:]]


def write(
    path: Path, *, summary: dict[str, Any], plan: list[Fault], verdict: Verdict, seen: Observations, folder: Path
) -> None:
    """Write all of it as JSON."""
    violations = []
    for violation in verdict.violations:
        value: dict[str, Any] = dataclasses.asdict(violation)
        if violation.call is not None and len(violations) < _MAX_TOLD:
            call = seen.calls[violation.call]
            value |= {"seen": _call(call), "history": history.of(call, folder)}
        violations.append(value)
    document = {
        **summary,
        "plan": [dataclasses.asdict(fault) for fault in plan],
        "troubles": [dataclasses.asdict(trouble) for trouble in seen.troubles],
        "violations": violations,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, default=str))


def _call(call: Call) -> dict[str, Any]:
    value = dataclasses.asdict(call)
    value["looks"] = value["looks"][-10:]
    return value
