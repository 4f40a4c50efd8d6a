"""Logs: one line per event, JSON unless a person reads them on a terminal."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import datetime as dt
import json
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

import orjson
import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from poste.runtime.settings import Settings

# Without the locals: they hold requests and secrets.
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(settings: Settings, part: str) -> None:
    """Set up logging for this process; every line says which `part` wrote it."""
    people = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()] if people else [_TRACEBACKS, structlog.processors.JSONRenderer(_dumps)]
    )
    lines = None if people else _Lines(sys.stderr.fileno())
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.log_level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr) if lines is None else lines.get,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(part=part)
    Journal.configure(part, lines if _LEVELS[settings.log_level] <= logging.INFO else None)
    # Libraries' own lines (grpc, aiohttp) take the same road, warnings and worse only.
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr, force=True)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_no_cancellations)


#: The request that the running code serves; every line says it. (structlog's `merge_contextvars` takes each variable
#: whose name begins like this one's; its own way of setting one costs ten times as much.)
request_id: contextvars.ContextVar[str] = contextvars.ContextVar("structlog_request_id")


class Journal:
    """Writes one line for each event of a kind, a call or a task: there are more of these than of all other lines.

    A line that is not read on a terminal goes past structlog, whose chain costs more than all that the line tells of.
    """

    _part: str | None = None
    _lines: _Lines | None = None

    def __init__(self, room: str, event: str) -> None:
        """Write one room's lines about one kind of event."""
        self._room, self._event = room, event
        self._log = get(room)
        #: How each line begins, for one part.
        self._beginning: tuple[str | None, bytes] = (None, b"")

    @classmethod
    def configure(cls, part: str, lines: _Lines | None) -> None:
        """Write to `lines` from now on, or by structlog if there are none."""
        cls._part, cls._lines = part, lines

    def write(self, facts: dict[str, Any]) -> None:
        """Write a line with some facts, which become its own."""
        lines = self._lines
        if lines is None:
            self._log.info(self._event, **facts)
            return
        facts["timestamp"] = dt.datetime.now(dt.UTC)
        part, beginning = self._beginning
        if part != self._part:
            always = {"event": self._event, "level": "info", "part": self._part, "room": self._room}
            beginning = _dumps(always, repr)[:-1] + b","
            self._beginning = self._part, beginning
        lines.msg(beginning + _dumps(facts, repr)[1:])


class _Lines:
    """Writes lines; those of one turn of the loop leave in one write, for a system call costs more than a line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: list[bytes] = []
        #: Whose lines wait: the loop's.
        self._thread = 0
        atexit.register(self._flush)

    def get(self, *_: object) -> _Lines:
        """Return the logger, for structlog asks for one."""
        return self

    def msg(self, line: bytes) -> None:
        """Write a line, at the end of this turn of the loop at the latest."""
        if self._waiting and threading.get_ident() == self._thread:
            self._waiting.append(line)
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # A thread's line, or one from before the loop or after it.
            self._write(line + b"\n")
            return
        self._thread = threading.get_ident()
        self._waiting.append(line)
        loop.call_soon(self._flush)

    debug = info = warning = error = critical = exception = msg

    def _flush(self) -> None:
        if self._waiting:
            lines, self._waiting = self._waiting, []
            self._write(b"\n".join(lines) + b"\n")

    def _write(self, data: bytes) -> None:
        # Nobody reads any more, or not fast enough for a pipe that does not block: a process must not fail for its log.
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]


def _dumps(event: dict[str, Any], default: Callable[[Any], Any]) -> bytes:
    try:
        return orjson.dumps(event, default=default, option=orjson.OPT_UTC_Z)
    except TypeError:
        # A lone surrogate, or a number beyond 64 bits: a line must never be the reason why something fails.
        return json.dumps(event, default=default).encode()


def _no_cancellations(record: logging.LogRecord) -> bool:
    """Leave out that a stream (a health watch, say) was cut off by a stop: gRPC reports that as an error."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def get(room: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of one room."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(room=room))
