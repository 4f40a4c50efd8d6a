"""A task's whole history: the lines of all parts' logs that name it, in the order of their times."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from chaos.observations import Call


def of(call: Call, folder: Path) -> list[str]:
    """Return the lines that speak of a call or of its task."""
    wanted = [f'"call-{call.number}"']
    task = call.place.rpartition("/")[2]
    if task:
        wanted += [task, key_of(task)]
    found: list[tuple[str, str]] = []
    for log in sorted((folder / "logs").glob("*.log")):
        with log.open(errors="replace") as file:
            found += [
                (_time(line), f"{log.stem}: {line.strip()}") for line in file if any(one in line for one in wanted)
            ]
    return [line for _, line in sorted(found)]


def key_of(task: str) -> str:
    """Return what a task is called in Redis and in the logs of those who run it."""
    raw = base64.urlsafe_b64decode(task + "=" * (-len(task) % 4))
    return base64.urlsafe_b64encode(raw[1:13]).decode()


def _time(line: str) -> str:
    try:
        value = json.loads(line)
    except ValueError:
        return ""
    return str(value.get("timestamp", "")) if isinstance(value, dict) else ""
