"""Logs: one line per event, JSON unless a person reads them on a terminal."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
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
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.log_level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
        if people
        else structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(part=part)
    # Libraries' own lines (grpc, aiohttp) take the same road, warnings and worse only.
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr, force=True)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_no_cancellations)


def _dumps(event: dict[str, Any], default: Callable[[Any], Any]) -> bytes:
    try:
        return orjson.dumps(event, default=default)
    except TypeError:
        # A lone surrogate, or a number beyond 64 bits: a line must never be the reason why something fails.
        return json.dumps(event, default=default).encode()


def _no_cancellations(record: logging.LogRecord) -> bool:
    """Leave out that a stream (a health watch, say) was cut off by a stop: gRPC reports that as an error."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def get(room: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of one room."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(room=room))
