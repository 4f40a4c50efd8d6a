"""The lines of the parts' logs, merged in the order of their times, and what is written to them from then on."""

from __future__ import annotations

import datetime as dt
import heapq
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from poste_cli.local import log_file

#: How Redis begins a line: its process, its role, and the time on this host's clock.
_REDIS: Final = re.compile(r"\d+:\w (\d+ \w{3} \d{4} \d\d:\d\d:\d\d\.\d{3}) ([.*#-]) ")
_REDIS_TIME: Final = "%d %b %Y %H:%M:%S.%f"
#: Its marks of a line's level.
_REDIS_LEVELS: Final = {".": "debug", "-": "debug", "*": "info", "#": "warning"}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line.

    Attributes:
        time: When it was written; that of the line before if it does not say.
        part: Whose it is.
        level: `info` and the like.
        text: What happened.
        fields: What else it says.
    """

    time: dt.datetime
    part: str
    level: str
    text: str
    fields: dict[str, Any]


class PartLog:
    """One part's log, read from the oldest line on."""

    def __init__(self, path: Path) -> None:
        """Name its file; `log_file.older` has what was in it before."""
        self._path = path
        self._part = path.stem
        self._offset = 0
        self._begun = False
        self._time = dt.datetime.fromtimestamp(0, dt.UTC)

    def lines(self) -> Iterator[LogLine]:
        """Yield the lines that were written since the last time; all of them at first."""
        if not self._begun:
            self._begun = True
            yield from self._read(log_file.older(self._path))
            self._offset = 0
        elif self._size() < self._offset:
            # It was rotated: what is there now is new.
            self._offset = 0
        yield from self._read(self._path)

    def _size(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def _read(self, path: Path) -> Iterator[LogLine]:
        try:
            with path.open("rb") as file:
                file.seek(self._offset)
                for raw in file:
                    if not raw.endswith(b"\n"):
                        return
                    self._offset += len(raw)
                    if text := raw.decode(errors="replace").strip():
                        yield self._line(text)
        except FileNotFoundError:
            return

    def _line(self, text: str) -> LogLine:
        found = _json(text) or _of_redis(text)
        level, event, fields = "info", text, dict[str, Any]()
        if found is not None:
            self._time, level, event, fields = found
        return LogLine(self._time, self._part, level, event, fields)


def merged(logs: Iterable[PartLog]) -> Iterator[LogLine]:
    """Yield what is new in several logs, the oldest first."""
    return heapq.merge(*(log.lines() for log in logs), key=lambda line: line.time)


def _json(text: str) -> tuple[dt.datetime, str, str, dict[str, Any]] | None:
    """Read a line of one of Poste's own parts; None if it is none."""
    if not text.startswith("{"):
        return None
    try:
        fields = json.loads(text)
        time = dt.datetime.fromisoformat(fields.pop("timestamp"))
        level, event = str(fields.pop("level", "info")), str(fields.pop("event", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    fields.pop("part", None)
    return (time if time.tzinfo else time.replace(tzinfo=dt.UTC)), level, event, fields


def _of_redis(text: str) -> tuple[dt.datetime, str, str, dict[str, Any]] | None:
    """Read a line of Redis'; None if it is none."""
    found = _REDIS.match(text)
    if found is None:
        return None
    try:
        time = dt.datetime.strptime(found[1], _REDIS_TIME).astimezone()
    except ValueError:
        return None
    return time, _REDIS_LEVELS[found[2]], text[found.end() :], {}
