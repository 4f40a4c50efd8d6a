"""Logs the threads and tasks that don't end at shutdown: an author's code, which can't be ended."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Never

from poste.runtime import logs, tracing

_log = logs.get("lifecycle")
#: So many are named.
_NAMED: Final = 20
#: How long the spans that wait may take to leave, in seconds.
_FLUSH_SECONDS: Final = 2.0
_WATCHES: Final[list[Callable[[], Sequence[str]]]] = []


def watch(running: Callable[[], Sequence[str]]) -> None:
    """Ask at the end of the process for the names of what goes on in threads, which nothing can end."""
    _WATCHES.append(running)


def left_behind() -> list[str]:
    """Return the names of what goes on."""
    return [name for running in _WATCHES for name in running()]


def name_of(task: asyncio.Task[Any]) -> str:
    """Return where a task's code waits, for people: in which function of its author's, if it is in any."""
    coroutine: Any = task.get_coro()
    name = str(getattr(coroutine, "__qualname__", task.get_name()))
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        name = f"{coroutine.__qualname__} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"
        if not str(frame.f_globals.get("__name__")).startswith("poste."):
            break
        coroutine = coroutine.cr_await
    return name


def end_process(code: int, left: Sequence[str]) -> Never:
    """End the process at once. Waiting for the interpreter's own end would be waiting for what does not end."""
    _log.error("left behind", count=len(left), what=[*left[:_NAMED]])
    tracing.flush(_FLUSH_SECONDS)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)
