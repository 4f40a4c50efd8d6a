"""A process' life: one event loop, signals that ask it to stop, and side tasks whose death is the process' death.

Only a signal ends a process, or the death of one of its own parts; and always in order, within bounds. Whatever a task
of an author's ends with (asyncio lets a KeyboardInterrupt or a SystemExit out of any task, through the loop) is logged,
and the loop goes on. What does not end when it is cancelled is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import math
import resource
import signal
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from poste.domain.errors import PosteError, StartError
from poste.domain.shown import visible
from poste.runtime import leaving, logs, loop_lag
from poste.runtime.event_loop import EventLoop

T = TypeVar("T")

#: The exit code of a process that ended in order and is to be started anew (EX_TEMPFAIL of sysexits.h): one that looks
#: for other than 0 (`Restart=on-failure`) starts it, too.
RESTART: Final = 75

_log = logs.get("lifecycle")
#: From this size on a block of memory is mapped by itself, in bytes; and glibc's name for that (malloc.h). gRPC reads
#: large messages in pieces of this size: elsewhere what was left of them lay about, megabytes of each.
_MAPPED_BYTES: Final = 64 * 1024
_M_MMAP_THRESHOLD: Final = -3
#: How many more objects were made than freed before the garbage collector runs, and how often for older ones.
GC_THRESHOLDS: Final = (20_000, 20, 20)
#: The most descriptors that a process takes: what opens more has a leak, and should be seen to fail.
_DESCRIPTORS = 65_536
#: How long a cancelled task may take before it is cancelled again, in seconds.
_INSIST_SECONDS = 0.5
#: How long tasks may take at the end of the process to end by themselves, in seconds.
_SETTLE_SECONDS = 0.2
#: How long a handler may take to clean up once it was cancelled, in seconds; then it is left behind.
CLEANUP_SECONDS: Final = 2.0
#: Tasks that were cancelled by their owners.
_CANCELLED: Final[weakref.WeakSet[asyncio.Task[Any]]] = weakref.WeakSet()


class RestartWanted(Exception):  # noqa: N818 - it states a fact
    """Raised by `main` once it has stopped in order: the process is to be started anew."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    """Run `main` on uvloop until it returns; SIGTERM and SIGINT set the event that it is given.

    If something is still under way then that can't be ended, the process ends here and now, in order but for that.

    Returns:
        The exit code: 0 after an orderly stop, 2 if it could not start, 1 if a part of it died, `RESTART` if it asked
        for that (`RestartWanted`).
    """
    _raise_descriptors()
    # What is imported by now stays, and what a call leaves behind is freed without the collector: it may run rarely.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    _give_back_large_blocks()
    loop = EventLoop()
    asked: list[signal.Signals] = []
    code = _live(loop, main, asked)
    left = _wind_up(loop)
    if code == RESTART and asked:
        # It was asked to stop on its way to the restart: there is to be none.
        code = 0
    if left:
        leaving.end_process(code, left)
    loop.close()
    return code


def _raise_descriptors() -> None:
    """Have as many descriptors as the host allows, up to a bound: 1,024, as a shell gives, one client can use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _give_back_large_blocks() -> None:
    """Have memory that large messages took go back to the system once they are gone.

    glibc raises the size from which a block is mapped by itself each time that such a block is freed, up to 32 MB. From
    then on blocks of megabytes lie between small ones, and a process stays as large as its worst moment, and grows past
    it (mallopt(3), M_MMAP_THRESHOLD: to set it ends that).
    """
    # Another C library than glibc has no such call.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def _live(
    loop: asyncio.AbstractEventLoop,
    main: Callable[[asyncio.Event], Coroutine[Any, Any, None]],
    asked: list[signal.Signals],
) -> int:
    try:
        _drive(loop, loop.create_task(_with_signals(main, asked)))
    except StartError as error:
        print(f"poste: {visible(str(error))}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 2
    except RestartWanted:
        return RESTART
    except BaseExceptionGroup as group:
        return _died(group)
    except PosteError as error:
        _log.error("ended", error=str(error))
        return 1
    except BaseException:  # noqa: BLE001 - the edge: whatever it was is logged once, here
        _log.exception("ended")
        return 1
    return 0


def _drive(loop: asyncio.AbstractEventLoop, task: asyncio.Task[T]) -> T:
    """Turn the loop until a task is done, whatever others end with; returns its result."""
    task.add_done_callback(lambda _: loop.stop())
    while not task.done():
        try:
            loop.run_forever()
        except Exception:
            raise
        except BaseException as error:  # noqa: BLE001 - signals set an event: it came from a task, which has it too
            if not task.done():
                _log.error("only a signal ends this process", exc_info=error)
    return task.result()


def _wind_up(loop: asyncio.AbstractEventLoop) -> list[str]:
    """End what is still under way; returns the names of what does not end."""
    # Anything that is left is a library's or an author's: our own has been ended by now, in its order.
    if tasks := asyncio.all_tasks(loop):
        # gRPC's of a stream that was cut off end by themselves in a moment; cancelled, they print a traceback.
        _drive(loop, loop.create_task(_wait(tasks, _SETTLE_SECONDS)))
        _drive(loop, loop.create_task(end(tasks, seconds=CLEANUP_SECONDS)))
    executor = loop.create_task(loop.shutdown_default_executor())
    last = [executor, loop.create_task(loop.shutdown_asyncgens())]
    _drive(loop, loop.create_task(_wait(last, CLEANUP_SECONDS)))
    left = [leaving.name_of(task) for task in tasks if not task.done()]
    if not executor.done():
        left.append("a thread of the loop's own pool")
    return left + leaving.left_behind()


async def _wait(tasks: Iterable[asyncio.Task[Any]], seconds: float) -> None:
    await asyncio.wait(tasks, timeout=seconds)


def _died(group: BaseExceptionGroup[BaseException]) -> int:
    """Log why a task group failed, in one line if a StartError is the cause; returns the process' exit code."""
    start, rest = group.split(StartError)
    if start is not None and rest is None:
        error: BaseException = start
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"poste: {visible(str(error))}", file=sys.stderr)  # noqa: T201 - the same
        return 2
    _log.error("ended", exc_info=group)
    return 1


async def _with_signals(
    main: Callable[[asyncio.Event], Coroutine[Any, Any, None]], asked: list[signal.Signals]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask(number: signal.Signals) -> None:
        asked.append(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    loop_lag.watch()
    await main(stop)


def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task, as its owner.

    A task that runs an author's code may also be cancelled by that code, or by a library that it uses:
    `was_cancelled` is true of the owner's cancellation only.
    """
    _CANCELLED.add(task)
    task.cancel()


def was_cancelled(task: asyncio.Task[Any]) -> bool:
    """Return whether a task was cancelled by its owner (`cancel`)."""
    return task in _CANCELLED


async def end(tasks: Iterable[asyncio.Task[Any]], *, seconds: float = math.inf) -> set[asyncio.Task[Any]]:
    """Cancel tasks until they have ended; returns those that have not, after so many seconds.

    Once is not enough: in Python 3.11 `asyncio.wait_for`, which libraries use, swallows a cancellation that comes at
    the moment in which what it waits for is done (python/cpython#86296), and a duty that is a loop then never ends.
    A duty of ours always ends in the end. For an author's code there must be a bound.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while (pending := {task for task in tasks if not task.done()}) and (left := deadline - loop.time()) > 0:
        for task in pending:
            cancel(task)
        await asyncio.wait(pending, timeout=min(left, _INSIST_SECONDS))
    return pending


@contextlib.asynccontextmanager
async def side_tasks(*duties: Awaitable[None]) -> AsyncIterator[None]:
    """Run duties beside the body, and cancel them when the body ends.

    A duty that raises takes the body with it: a process whose side task died must not seem alive.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_coroutine(duty)) for duty in duties]
        try:
            yield
        finally:
            await end(tasks)


async def _coroutine(duty: Awaitable[None]) -> None:
    await duty
