"""How lights, states and figures are written, here as on the page."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from poste.client import Snapshot
from poste.domain.shown import visible
from poste_cli import printing

#: Below so many a second, rates are written with one decimal.
_FEW: Final = 10
#: Below this, latencies are written with one decimal; from this on, as durations are.
_SHORT_LATENCY: Final = 0.00995
_SECOND: Final = 0.9995
#: Each light has a sign of its own: not all users see the colours.
_LIGHTS: Final = {
    "up": ("●", "green"),
    "busy": ("◐", "yellow"),
    "away": ("○", "bold red"),
    "hung": ("▲", "bold red"),
    "unlisted": ("-", "dim"),
}
_STATES: Final = {
    "QUEUED": ("○", "default"),
    "RUNNING": ("▶", "cyan"),
    "SUCCEEDED": ("✓", "green"),
    "FAILED": ("✗", "red"),
    "CANCELLED": ("-", "dim"),
    "EXPIRED": ("-", "yellow"),
    "DEAD": ("▲", "bold red"),
}
_STRANGE: Final = ("?", "default")
_BARS: Final = " ▁▂▃▄▅▆▇█"


def light(name: str, halt: str = "") -> Text:
    """Write a service's light, and why nothing is taken from its queue."""
    sign, style = _LIGHTS.get(name, _STRANGE)
    return Text.assemble((f"{sign} {visible(name)}", style), (f" ‖ {halt}", "magenta") if halt else "")


def state(name: str) -> Text:
    """Write a task's state."""
    sign, style = _STATES.get(name, _STRANGE)
    return Text(f"{sign} {visible(name.lower())}", style)


def rate(a_second: float | None) -> str:
    """Write how many there are a second; `-` if that is unknown."""
    if a_second is None:
        return "-"
    return f"{a_second:.1f}" if 0 < a_second < _FEW else f"{a_second:,.0f}"


def latency(seconds: float | None) -> str:
    """Write how long an answer took: `0.8 ms`, `12 ms`, then as durations are written; `-` if there was none."""
    if seconds is None:
        return "-"
    if seconds < _SHORT_LATENCY:
        return f"{1000 * seconds:.1f} ms"
    return f"{1000 * seconds:.0f} ms" if seconds < _SECOND else printing.duration(seconds)


def share(part: float) -> str:
    """Write a part of a whole: `0 %`, `0.3 %`, `12 %`."""
    percent = 100 * part
    return f"{percent:.1f} %" if 0 < percent < _FEW else f"{percent:.0f} %"


def trend(values: list[int]) -> str:
    """Draw figures as bars, the largest one whole; none for 0."""
    most = max(values, default=0)
    return "".join(_BARS[-(-value * (len(_BARS) - 1) // most) if most else 0] for value in values)


def summary(snapshot: Snapshot) -> Text:
    """Sum a snapshot up in one line."""
    lights = Text(", ").join(
        Text(f"{sign} {number} {name}", style)
        for name, (sign, style) in _LIGHTS.items()
        if (number := sum(one.light == name for one in snapshot.services))
    )
    if not snapshot.middleware:
        return Text.assemble(lights, " · ", ("the middleware or its Redis is away: what waits is safe", "bold red"))
    figures = [one.figures for one in snapshot.services if one.figures is not None]
    waiting = sum(one.waiting for one in figures)
    oldest = max((one.oldest_age_seconds or 0.0 for one in figures), default=0.0)
    dead = sum(one.dead for one in figures)
    undelivered = sum(one.undelivered for one in figures)
    untold = Text(f"{undelivered:,} undelivered · ", "red") if undelivered else Text()
    age = f", the oldest for {printing.duration(oldest)}" if waiting else ""
    which = (" (poste dead)", "dim") if dead else ""
    return Text.assemble(
        lights, f" · {waiting:,} waiting{age} · ", untold, (f"{dead:,} dead", "red" if dead else ""), which
    )
