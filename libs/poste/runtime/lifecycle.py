"""A process' life: one event loop, signals that ask it to stop, and side tasks whose death is the process' death."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any

import uvloop

from poste.domain.errors import PosteError, StartError
from poste.runtime import logs, loop_lag

_log = logs.get("lifecycle")
#: How many more objects were made than freed before cycles are looked for, and how often in older ones.
_GC_THRESHOLDS = (20_000, 20, 20)
#: How long a cancelled task may take before it is cancelled again, in seconds.
_INSIST_SECONDS = 0.5


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    """Run `main` on uvloop until it returns; SIGTERM and SIGINT set the event that it is given.

    Returns:
        The exit code: 0 after an orderly stop, 2 if it could not start, 1 if a part of it died.
    """
    # What is imported by now stays, and what a call leaves behind goes by itself: looking for cycles rarely is enough.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        uvloop.run(_with_signals(main))
    except StartError as error:
        print(f"poste: {error}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 2
    except BaseExceptionGroup as group:
        return _died(group)
    except PosteError as error:
        _log.error("ended", error=str(error))
        return 1
    except Exception:  # noqa: BLE001 - the edge: whatever it was is logged once, here
        _log.exception("ended")
        return 1
    return 0


def _died(group: BaseExceptionGroup[BaseException]) -> int:
    """Tell why a task group fell, in one line if a StartError is the cause."""
    start, rest = group.split(StartError)
    if start is not None and rest is None:
        error: BaseException = start
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"poste: {error}", file=sys.stderr)  # noqa: T201 - the same
        return 2
    _log.error("ended", exc_info=group)
    return 1


async def _with_signals(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop_lag.watch()
    await main(stop)


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    Once is not enough: in Python 3.11 `asyncio.wait_for`, which libraries use, swallows a cancellation that comes at
    the moment in which what it waits for is done (python/cpython#86296), and a duty that is a loop then never ends.
    """
    while pending := {task for task in tasks if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_INSIST_SECONDS)


@contextlib.asynccontextmanager
async def side_tasks(*duties: Awaitable[None]) -> AsyncIterator[None]:
    """Run duties beside the body, and cancel them when the body ends.

    A duty that raises takes the body with it: a process whose side task died must not look alive.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_coroutine(duty)) for duty in duties]
        try:
            yield
        finally:
            await end(tasks)


async def _coroutine(duty: Awaitable[None]) -> None:
    await duty
