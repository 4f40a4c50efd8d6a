"""Logs: one line per event, JSON unless a person reads them on a terminal.

Every line has a largest size (`poste.runtime.log_facts`), and no control characters (`poste.domain.shown`): untrusted
text must not control the terminal of who reads a log. Lines of Python's own `logging` and `warnings`, those of
handlers' authors above all, become lines like any other, and name the call that they belong to.
"""

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
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import orjson
import structlog

from poste.domain.shown import visible, visible_json
from poste.runtime import log_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from poste.runtime.settings import Settings

#: The longest line, in bytes: what collects logs (Docker, journald) takes a longer one to pieces.
MAX_LINE_BYTES: Final = 16 * 1024
#: An event log's line that is no longer holds no long text, in bytes; longer ones are cut.
_USUAL_BYTES: Final = 2000
#: A logger's name until its line is made: structlog has an argument `logger` of its own.
_LOGGER: Final = "_logger"
#: What stays in a line that can't be made to fit.
_ALWAYS: Final = ("event", "level", "timestamp", "part", "logger")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
#: Libraries that log their own work at lower levels than warnings: it is dropped. What an author's handlers
#: log, and what their libraries do, is written from the process' own level on.
_LIBRARIES: Final = ("aiohttp", "asyncio", "concurrent", "grpc", "opentelemetry", "pebble", "redis")
#: What every record of Python's own logging has; what else it has, its line says too (`extra`), but in a name of ours.
_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})
_OURS: Final = frozenset({*_ALWAYS, "request_id", "task", "exception", "exc_info", "self"})


class Pipe(NamedTuple):
    """How a process writes its lines: for people, from which level on, and which part it is."""

    people: bool
    level: str
    part: str


def configure(settings: Settings, part: str) -> None:
    """Set up logging for this process; every line says which `part` wrote it."""
    people = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    inherit(Pipe(people, settings.log_level, part))


def inherited() -> Pipe | None:
    """Return how this process writes its lines, for its child processes; None if that was not set up."""
    return _Configured.pipe


def inherit(pipe: Pipe) -> None:
    """Write as another process does, to where it does."""
    _Configured.pipe = pipe
    people, level = pipe.people, _LEVELS[pipe.level]
    shared: list[structlog.typing.Processor] = [
        _named,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[structlog.typing.Processor] = [_shown, structlog.dev.ConsoleRenderer()] if people else [_line]
    lines = None if people else _Lines(sys.stderr.fileno())
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr) if lines is None else lines.get,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(part=pipe.part)
    EventLog.configure(pipe.part, lines if level <= logging.INFO else None)
    # In the place of whatever the program had set up: two formats in one log are none.
    standard = _Standard()
    standard.addFilter(_no_cancellations)
    logging.basicConfig(level=level, handlers=[standard], force=True)
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
    # What Python itself would print, whole and as it is.
    threading.excepthook = _thread_failed
    sys.unraisablehook = _unraisable


#: Returns what the call, or the task, is called that the running code is for: every line says it. One variable, and
#: what it returns is made for a line that is written: both cost every call.
names: contextvars.ContextVar[Callable[[], Mapping[str, str]]] = contextvars.ContextVar("poste_names")


class _Configured:
    pipe: Pipe | None = None


class EventLog:
    """Writes one line for each event of a kind, a call or a task: there are more of these than of all other lines.

    As JSON it bypasses structlog, whose processors cost more than the call that the line is about.
    """

    _part: str | None = None
    _lines: _Lines | None = None

    def __init__(self, logger: str, event: str) -> None:
        """Write one logger's lines about one kind of event."""
        self._logger, self._event = logger, event
        self._log = get(logger)
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
            always = {"event": self._event, "level": "info", "part": self._part, "logger": self._logger}
            beginning = _dumps(always)[:-1] + b","
            self._beginning = self._part, beginning
        line = _dumps(facts)
        if len(line) > _USUAL_BYTES:
            _, line = _fitting(facts)
        lines.msg(beginning + line[1:])


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
        # The reader is gone, or too slow for a pipe that does not block: a process must not fail for its log.
        with contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]


class _Standard(logging.Handler):
    """Has what goes by Python's own logging written as our own lines are."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        facts = {name: value for name, value in vars(record).items() if name not in _STANDARD and name not in _OURS}
        if record.stack_info:
            facts["stack"] = record.stack_info
        log = get(record.name)
        try:
            text = record.getMessage()
        except Exception:
            # Logging's own rule: an error in a line ends no call.
            log.exception("a line of the log can't be made", message=record.msg)
            return
        log.log(_known_level(record.levelno), text, exc_info=record.exc_info, **facts)


def _known_level(number: int) -> int:
    """Return the level of those there are that is next below a program's own."""
    return max((level for level in _LEVELS.values() if level <= number), default=logging.DEBUG)


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        get("thread").error("thread failed", thread=args.thread and args.thread.name, exc_info=args.exc_value)


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    get("python").error(args.err_msg or "exception ignored", where=args.object, exc_info=args.exc_value)


def _named(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say who writes, and what the running code is for, unless the line says by itself what it is of."""
    if (logger := event.pop(_LOGGER, None)) is not None:
        event["logger"] = logger
    if (current := names.get(None)) is not None:
        for name, value in current().items():
            event.setdefault(name, value)
    return event


def _line(_: object, __: str, event: structlog.typing.EventDict) -> bytes:
    """Render a line as JSON."""
    return _fitting(event)[1]


def _shown(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Make a line fit for a terminal."""
    facts, _line = _fitting(event)
    # What is in a container is shown by its repr, which escapes by itself.
    shown = {visible(name): visible(value) if isinstance(value, str) else value for name, value in facts.items()}
    stacks = facts.get("exception")
    if isinstance(stacks, list):
        shown["exception"] = "\n".join(map(visible, log_facts.words(stacks)))
    return shown


def _fitting(event: MutableMapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Bound a line; returns it as facts, and as JSON that is no longer than a line may be."""
    error = _error_of(event.pop("exc_info", None))
    for limits in log_facts.LIMITS:
        facts = log_facts.bounded(event, limits)
        if error is not None:
            facts["exception"] = log_facts.exception(error, limits)
        line = _dumps(facts)
        if len(line) <= MAX_LINE_BYTES:
            return facts, line
    facts = {name: facts[name] for name in _ALWAYS if name in facts} | {"left_out": "all else: it was too long"}
    return facts, _dumps(facts)


def _error_of(info: Any) -> BaseException | None:
    """Find the exception that a line was given, in any form that logging knows."""
    if isinstance(info, tuple):
        return cast("BaseException | None", info[1])
    return info if isinstance(info, BaseException) else sys.exception() if info else None


def _dumps(facts: dict[str, Any]) -> bytes:
    try:
        line = orjson.dumps(facts, default=repr, option=orjson.OPT_UTC_Z)
    except TypeError:
        # A lone surrogate, or a number beyond 64 bits: a line must never be the reason why something fails.
        return json.dumps(facts, default=str).encode()
    return line if line.isascii() else visible_json(line.decode()).encode()


def _no_cancellations(record: logging.LogRecord) -> bool:
    """Leave out that a stream (a health watch, say) was cut off by a stop: gRPC reports that as an error."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def get(logger: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of that name."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(**{_LOGGER: logger}))
