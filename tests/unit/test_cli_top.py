"""`poste top` by itself: what is shown of many services, and where keys lead, without a gateway."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from rich.text import Text

from poste.client import Snapshot
from poste_cli.top import keys
from poste_cli.top.details import ServiceDetail
from poste_cli.top.keys import Key
from poste_cli.top.screen import Top

NO_FIGURES = dict.fromkeys(("queued", "running", "delayed", "scheduled", "dead", "enqueued", "replayed", "ended"), 0)
FIGURES = {
    **NO_FIGURES,
    **dict.fromkeys(("oldestAgeSeconds", "inRate", "outRate", "etaSeconds")),
    "paused": False,
    "standsStill": False,
}
DIRECT = {"rate": 250.0, "errorRate": 2.5, "p99Seconds": 0.0042}


def snapshot(number: int, **away: int) -> Snapshot:
    """Return one of so many services; those that are named are away, and so many calls wait for each."""
    services = []
    for one in range(number):
        name = f"Service{one:03}"
        waiting = away.get(name)
        services.append(
            {
                "name": f"company.v1.{name}",
                "light": "up" if waiting is None else "away",
                "replicas": {"ready": 1, "known": 1},
                "direct": DIRECT,
                "figures": {**FIGURES, "queued": waiting or 0},
            }
        )
    return Snapshot.read({
        "time": "2026-11-30T01:00:00.123Z", "gateway": "host", "middleware": True, "services": services, "tasks": [],
    })  # fmt: skip


def drawn(top: Top, *, columns: int = 120, rows: int = 24) -> str:
    """Return what is on the screen; no line is longer than it is wide."""
    console = Console(width=columns, height=rows, file=io.StringIO(), legacy_windows=False)
    console.print(top)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= columns
    return text


@pytest.mark.parametrize("columns", [40, 64, 80, 104, 126, 142, 164, 180, 250])
@pytest.mark.parametrize("number", [0, 1, 300])
def test_any_number_of_services_fits_any_terminal(number, columns):
    """Lines would wrap, and the last ones push the first off the screen."""
    top = Top("http://localhost:8080")
    top.show(snapshot(number))

    assert len(drawn(top, columns=columns).splitlines()) <= 24


def test_of_many_services_those_that_need_attention_come_first_and_all_are_reached():
    """The one that is away would be somewhere behind the end of the screen."""
    top = Top("http://localhost:8080")
    top.show(snapshot(60, Service059=7))
    first = drawn(top)
    for _ in range(59):
        top.press(Key.DOWN)
        last = drawn(top)

    assert "Service059" in first
    assert "… and 41 more" in first
    # What is away comes first: the last is the last of those that are up.
    assert "Service058" in last
    assert "Service059" not in last


def test_services_of_one_short_name_are_told_apart():
    """Three hundred rows would read `Things`, and nobody could tell which of them is away."""
    seen = snapshot(3)
    names = ("sales.v1.Things", "stock.v1.Things", "stock.v1.Shelves")
    services = tuple(replace(one, name=name) for one, name in zip(seen.services, names, strict=True))
    top = Top("http://localhost:8080")
    top.show(replace(seen, services=services))
    rows = [line.split()[0] for line in drawn(top, columns=80).splitlines() if "\N{BLACK CIRCLE} up" in line]

    assert rows == ["sales.v1.Things", "stock.v1.Things", "Shelves"]


def test_ends_that_could_not_be_told_are_in_the_sum():
    """They would be seen by none but who asks for them."""
    seen = snapshot(1)
    (one,) = seen.services
    top = Top("http://localhost:8080")
    top.show(replace(seen, services=(replace(one, figures=replace(one.figures, undelivered=300)),)))

    assert "0 waiting · 300 undelivered · 0 dead" in drawn(top)


def test_direct_calls_are_shown():
    """A service with hundreds of calls a second would look idle."""
    top = Top("http://localhost:8080")
    top.show(snapshot(1))
    (row,) = [line.split() for line in drawn(top, columns=80).splitlines() if "Service000" in line]

    assert row[3:] == ["250", "1.0", "%", "4.2", "ms", "0", "0", "-"]


def test_keys_are_read_as_terminals_send_them():
    """An arrow would be an escape, and two letters that are struck by themselves."""
    struck = b"\x1b[A\x1bOBj?\x1b[5~x\rq\x1b"

    assert [*keys.read(struck)] == [Key.UP, Key.DOWN, Key.DOWN, Key.HELP, Key.OPEN, Key.QUIT, Key.BACK]


def test_a_long_text_is_read_line_by_line_and_left_by_one_key():
    """What is below the screen's end could not be read; or each Enter would be one more Esc."""
    top = Top("http://localhost:8080")
    top.show(snapshot(1))
    drawn(top)
    top.press(Key.DOWN)
    top.press(Key.OPEN)
    assert isinstance(top.detail, ServiceDetail)
    top.detail.lines = [(Text(f"line {number}"), None) for number in range(50)]
    first = drawn(top)
    for _ in range(50):
        top.press(Key.DOWN)
    top.press(Key.OPEN)
    last = drawn(top)
    top.press(Key.BACK)

    assert "line 0" in first
    assert "line 49" not in first
    assert "line 49" in last
    assert top.detail is None
