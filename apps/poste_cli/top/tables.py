"""A snapshot as tables: the services, and the newest tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from poste.client import ServiceStatus, Snapshot
from poste.domain.shown import visible
from poste_cli.top import words

#: How wide a terminal must be, in columns, for the services' whole names, for the trend, for all figures, and for some.
_WHOLE: Final = 146
_WIDE: Final = 126
_MIDDLE: Final = 104
_USUAL: Final = 78
_SMALL: Final = 64
#: How many snapshots a trend shows.
TREND: Final = 20


#: The figures of a queue, and how wide the terminal must be for each.
FIGURES: Final = {
    "QUEUED": 0,
    "RUNNING": _USUAL,
    "DELAYED": _MIDDLE,
    "DEAD": 0,
    "KEPT": _WIDE,
    "OLDEST": 0,
    "IN/S": _MIDDLE,
    "OUT/S": _MIDDLE,
    "EMPTY IN": _SMALL,
}


def services(snapshot: Snapshot, width: int, rows: int, trends: Mapping[str, Sequence[int]]) -> Table:
    """Return the table of the services; if there are too many, of those that need attention most.

    Args:
        snapshot: What is seen.
        width: How many columns the terminal has.
        rows: How many rows there may be.
        trends: How many calls waited for each service at the last snapshots; shown if there is room for it.
    """
    table = _table()
    table.add_column("SERVICE", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("IS", no_wrap=True)
    if width >= _MIDDLE:
        table.add_column("REPLICAS", justify="right", no_wrap=True)
    if width >= _WIDE:
        table.add_column("WAITING", no_wrap=True, min_width=TREND)
    titles = [title for title, least in FIGURES.items() if width >= least]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    shown = snapshot.services
    if len(shown) > rows:
        shown = tuple(sorted(shown, key=_urgency)[: max(rows - 1, 0)])
    for service in shown:
        cells = figures(service)
        table.add_row(
            _name(service.name, short=width < _WHOLE),
            words.light(service.light, service.figures.halt if service.figures else ""),
            *([f"{service.ready}/{service.known}"] if width >= _MIDDLE else []),
            *([Text(words.trend(list(trends.get(service.name, ()))), "blue")] if width >= _WIDE else []),
            *(Text(cells[title], "red" if title == "DEAD" and cells[title] != "0" else "") for title in titles),
        )
    if len(shown) < len(snapshot.services):
        table.add_row(Text(f"… and {len(snapshot.services) - len(shown)} more", "dim"))
    return table


def tasks(snapshot: Snapshot, width: int, rows: int) -> Table:
    """Return the table of the newest tasks, with so many rows at most."""
    table = _table()
    table.add_column("STATE", no_wrap=True, min_width=11)
    table.add_column("METHOD", no_wrap=True, overflow="ellipsis")
    table.add_column("AGE", justify="right", no_wrap=True)
    if width >= _USUAL:
        table.add_column("ATTEMPT", justify="right", no_wrap=True)
    table.add_column("TASK", no_wrap=True, overflow="ellipsis", ratio=1)
    for task in (snapshot.tasks or ())[:rows]:
        age = max(0.0, (snapshot.time - task.create_time).total_seconds())
        table.add_row(
            words.state(task.state.name),
            Text(visible(f"{task.service.rpartition('.')[2]}/{task.method}")),
            words.duration(age),
            *([str(task.attempt)] if width >= _USUAL else []),
            Text(visible(task.id), "dim"),
        )
    return table


def figures(service: ServiceStatus) -> Mapping[str, str]:
    """Write a queue's figures, by their titles."""
    known = service.figures
    if known is None:
        return dict.fromkeys(FIGURES, "?")
    counts = (known.queued, known.running, known.delayed, known.dead, known.kept)
    cells = [
        *map("{:,}".format, counts),
        words.duration(known.oldest_age_seconds),
        words.rate(known.in_rate),
        words.rate(known.out_rate),
        words.duration(known.eta_seconds),
    ]
    return dict(zip(FIGURES, cells, strict=True))


def _urgency(service: ServiceStatus) -> tuple[bool, int, str]:
    waiting = 0 if service.figures is None else service.figures.waiting + service.figures.dead
    return service.light == "up", -waiting, service.name


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="bold", expand=True)


def _name(name: str, *, short: bool) -> Text:
    package, dot, last = visible(name).rpartition(".")
    return Text(last) if short else Text.assemble((package + dot, "dim"), last)
