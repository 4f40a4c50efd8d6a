"""A snapshot as tables: the services, and the newest tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from rich.table import Table
from rich.text import Text

from poste.client import ServiceStatus, Snapshot
from poste.domain.shown import visible
from poste_cli import printing
from poste_cli.top import words

#: How wide a terminal must be, in columns, for the services' whole names, for the trend, for all figures, and for some.
_WHOLE: Final = 180
_TREND: Final = 164
_ALL: Final = 142
_WIDE: Final = 126
_MIDDLE: Final = 104
_USUAL: Final = 78
_SMALL: Final = 64
#: How wide a figure's column is at least: from `9.5 ms` to `200 ms` none moves another.
_FIGURE: Final = 6
#: How many snapshots a trend shows.
TREND: Final = 20


#: The figures of a service, and how wide the terminal must be for each.
FIGURES: Final = {
    "DIRECT/S": _SMALL,
    "ERRORS": _USUAL,
    "P99": _USUAL,
    "QUEUED": 0,
    "RUNNING": _MIDDLE,
    "DELAYED": _ALL,
    "DEAD": 0,
    "KEPT": _ALL,
    "OLDEST": 0,
    "IN/S": _WIDE,
    "OUT/S": _WIDE,
    "EMPTY IN": _MIDDLE,
}
#: Those of direct calls, which are known without the middleware.
_DIRECT: Final = 3
#: What says of dead letters and errors that there are none, or that it is not known.
_NONE: Final = ("0", "0 %", "-", "?")
#: What the cursor is on.
Cursor = str | int | None


class Shown(NamedTuple):
    """The services that there is room for, of all; how many there are beside them; and the short names of several."""

    services: Sequence[ServiceStatus]
    others: int
    doubles: Collection[str]

    @property
    def lines(self) -> int:
        """How many lines they take."""
        return len(self.services) + bool(self.others)


def shown(snapshot: Snapshot, rows: int, cursor: Cursor) -> Shown:
    """Return which services are shown in so many rows: those that need attention most, or those around the cursor."""
    services, doubles = snapshot.services, _doubles(snapshot)
    if len(services) <= rows:
        return Shown(services, 0, doubles)
    services = tuple(sorted(services, key=_urgency))
    room = max(rows - 1, 0)
    place = next((number for number, one in enumerate(services) if one.name == cursor), 0)
    # One more than fits above the cursor's, so that it can go on.
    first = max(0, min(place - room + 2, len(services) - room))
    found = services[first : first + room]
    return Shown(found, len(services) - len(found), doubles)


def services(shown: Shown, width: int, trends: Mapping[str, Sequence[int]], cursor: Cursor = None) -> Table:
    """Return the table of the services.

    Args:
        shown: Which.
        width: How many columns the terminal has.
        trends: How many calls waited for each service at the last snapshots; shown if there is room for it.
        cursor: The service of this name is marked.
    """
    table = _table()
    table.add_column("SERVICE", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("IS", no_wrap=True)
    if width >= _MIDDLE:
        table.add_column("REPLICAS", justify="right", no_wrap=True)
    if width >= _TREND:
        table.add_column("WAITING", no_wrap=True, min_width=TREND)
    titles = [title for title, least in FIGURES.items() if width >= least]
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True, min_width=_FIGURE)
    for service in shown.services:
        cells = figures(service)
        table.add_row(
            _name(service.name, short=width < _WHOLE and _short(service.name) not in shown.doubles),
            words.light(service.light, service.figures.halt if service.figures else ""),
            *([f"{service.ready}/{service.known}"] if width >= _MIDDLE else []),
            *([Text(words.trend(list(trends.get(service.name, ()))), "blue")] if width >= _TREND else []),
            *(Text(cells[title], "red" if _is_bad(title, cells[title]) else "") for title in titles),
            style="reverse" if service.name == cursor else None,
        )
    if shown.others:
        table.add_row(Text(f"… and {shown.others} more", "dim"))
    return table


def tasks(snapshot: Snapshot, width: int, rows: int, cursor: Cursor = None) -> Table:
    """Return the table of the newest tasks, with so many rows at most; the one with the cursor's id is marked."""
    table = _table()
    table.add_column("STATE", no_wrap=True, min_width=11)
    table.add_column("METHOD", no_wrap=True, overflow="ellipsis")
    table.add_column("AGE", justify="right", no_wrap=True)
    if width >= _USUAL:
        table.add_column("ATTEMPT", justify="right", no_wrap=True)
    table.add_column("TASK", no_wrap=True, overflow="ellipsis", ratio=1)
    doubles = _doubles(snapshot)
    for task in (snapshot.tasks or ())[:rows]:
        age = max(0.0, (snapshot.time - task.create_time).total_seconds())
        table.add_row(
            words.state(task.state.name),
            Text(visible(f"{task.service if (name := _short(task.service)) in doubles else name}/{task.method}")),
            printing.duration(age),
            *([str(task.attempt)] if width >= _USUAL else []),
            Text(visible(task.id), "dim"),
            style="reverse" if task.id == cursor else None,
        )
    return table


def figures(service: ServiceStatus) -> Mapping[str, str]:
    """Write a service's figures, by their titles."""
    return dict(zip(FIGURES, (*_direct(service), *_queued(service)), strict=True))


def _direct(service: ServiceStatus) -> Sequence[str]:
    known = service.direct
    if known is None:
        return ("-",) * _DIRECT
    errors = words.share(known.error_share) if known.rate else "-"
    return words.rate(known.rate), errors, words.latency(known.p99_seconds)


def _queued(service: ServiceStatus) -> Sequence[str]:
    known = service.figures
    if known is None:
        return ("?",) * (len(FIGURES) - _DIRECT)
    counts = (known.queued, known.running, known.delayed, known.dead, known.kept)
    return (
        *map("{:,}".format, counts),
        printing.duration(known.oldest_age_seconds),
        words.rate(known.in_rate),
        words.rate(known.out_rate),
        printing.duration(known.eta_seconds),
    )


def _is_bad(title: str, cell: str) -> bool:
    return title in ("DEAD", "ERRORS") and cell not in _NONE


def _urgency(service: ServiceStatus) -> tuple[bool, int, str]:
    waiting = 0 if service.figures is None else service.figures.waiting + service.figures.dead
    return service.light == "up", -waiting, service.name


def _doubles(snapshot: Snapshot) -> Collection[str]:
    """Return the short names that more than one service has: these are shown whole."""
    counts = Counter(_short(one.name) for one in snapshot.services)
    return {name for name, count in counts.items() if count > 1}


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="bold", expand=True)


def _name(name: str, *, short: bool) -> Text:
    package, dot, last = visible(name).rpartition(".")
    return Text(last) if short else Text.assemble((package + dot, "dim"), last)
