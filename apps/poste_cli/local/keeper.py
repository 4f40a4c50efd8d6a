"""Keeps one part running, in a task that starts it, and again with backoff after a crash, and stops it when cancelled.

::

    stopped ──start──▶ starting ──▶ ready ◀──▶ unready
       ▲                 ▲ │           │          │
       │          backoff│ ▼           ▼          ▼
       ├──stop──────── crashed ◀──────────────────┘
       └── stopping ◀──stop── any state that has a process
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from poste.runtime.waits import done_within
from poste_cli.local import leash
from poste_cli.local.log_file import LogFile
from poste_cli.local.names import REDIS
from poste_cli.local.parts import GRACE_SECONDS, Part

#: The wait before a crashed part is started again, in seconds; doubled for each further crash.
_FIRST_BACKOFF_SECONDS: Final = 0.1
_MAX_BACKOFF_SECONDS: Final = 5.0
#: A part that lived so long, in seconds, is not crashing in a loop: the next crash begins the count anew.
_LONG_LIFE_SECONDS: Final = 10.0
#: A part's own grace is over, and it is still there: after this long, in seconds, it is killed.
KILL_AFTER_SECONDS: Final = GRACE_SECONDS + 2.0
#: A process of ours that can't start ends so, and its last line says why.
_CANT_START: Final = "exit code 2"


class State(enum.Enum):
    """What a part is doing; the value is its public spelling."""

    STOPPED = "stopped"
    STOPPING = "stopping"
    STARTING = "starting"
    READY = "ready"
    #: It was ready in this life, and a call to it would not go direct now.
    UNREADY = "unready"
    #: It crashed, and waits to be started again.
    CRASHED = "crashed"


#: Shows an event of a part: its name, what it did (`crashed`, `restarted`, `stopped`, `started`), and more about it.
Report = Callable[[str, str, str], None]


class Keeper:
    """Runs one part and restarts it when it crashes; `changed` is called whenever its state changes."""

    def __init__(self, part: Part, grace_seconds: float, changed: Callable[[], None], report: Report) -> None:
        self.part = part
        self.state = State.STOPPED
        self.log = LogFile(part.log)
        #: It crashed, and was not ready since.
        self.crashed = False
        #: Why its last start failed for good, if it did; it is tried again all the same.
        self.broken: str | None = None
        self._grace_seconds = grace_seconds
        self._changed = changed
        self._report = report
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def wanted(self) -> bool:
        """Whether it is to run."""
        return self.state not in (State.STOPPED, State.STOPPING)

    @property
    def pid(self) -> int | None:
        """The process' id; None while there is none."""
        return None if self._process is None else self._process.pid

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Have it run, in a task of the group; a stop under way is waited for first."""
        if self.state is State.STOPPING:
            await self.stop()
        if self.state is State.STOPPED:
            self._task = group.create_task(self._keep(), name=self.part.name)
            self._task.add_done_callback(lambda _: self._enter(State.STOPPED))
            self._enter(State.STARTING)

    async def stop(self) -> None:
        """Have it stopped, and wait until it is gone."""
        if self._task is None:
            return
        if self.wanted:
            self._enter(State.STOPPING)
            self._task.cancel()
        await asyncio.wait([self._task])

    def hurry(self) -> None:
        """Give it no more grace, neither in the stop that is under way nor in a later one."""
        self._grace_seconds = 0.0
        if not self.wanted:
            self._kill()

    def seen(self, *, ready: bool) -> None:
        """Note whether the running process was ready at a probe."""
        if ready and self.wanted:
            self.broken = None
            self._enter(State.READY)
        elif self.state is State.READY:
            self._enter(State.UNREADY)

    async def _keep(self) -> None:
        """Run it, and start it again whenever it ends, until cancelled."""
        backoff_seconds = _FIRST_BACKOFF_SECONDS
        while True:
            self._enter(State.STARTING)
            begin = time.monotonic()
            how = await self._live()
            if time.monotonic() - begin >= _LONG_LIFE_SECONDS:
                backoff_seconds = _FIRST_BACKOFF_SECONDS
            self._note_crash(how, backoff_seconds)
            self._enter(State.CRASHED)
            await asyncio.sleep(backoff_seconds)
            backoff_seconds = min(2 * backoff_seconds, _MAX_BACKOFF_SECONDS)

    async def _live(self) -> str:
        """Run it through one life; returns how it ended. Cancelled, has it end."""
        try:
            self._process = await self._spawn()
            code = await self._process.wait()
        except OSError as error:
            return f"not started: {error.strerror}"
        except asyncio.CancelledError:
            self._enter(State.STOPPING)
            await self._end()
            raise
        finally:
            self._process = None
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _note_crash(self, how: str, backoff_seconds: float) -> None:
        self.crashed = True
        last_line = self.log.last_line()
        said = how == _CANT_START and last_line
        # Redis' own exit code says nothing: if it ends before it ever answered, it can't use its folder.
        if (said or self.part.name == REDIS) and self.state is State.STARTING:
            self.broken = f"{self.part.name} can't start: {last_line or how} (log: {self.part.log})"
        more = f": {last_line}" if said else f"; its log is {self.part.log}"
        self._report(self.part.name, "crashed", f" ({how}); restart in {backoff_seconds:g} s{more}")

    async def _spawn(self) -> asyncio.subprocess.Process:
        output = self.log.open()
        try:
            return await asyncio.create_subprocess_exec(
                # It can't outlive us.
                *(sys.executable, "-I", "-S", leash.__file__, str(os.getpid())),
                *self.part.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self.part.environment),
                # Not the user's folder: a worker imports from its working directory, and must find nothing there.
                cwd=self.part.log.parent,
                # A Ctrl-C in the terminal reaches us alone, and we stop it in its turn.
                start_new_session=True,
                # Files that it writes (Redis its AOF, first of all) are readable by this user only.
                umask=0o077,
                pass_fds=self.part.descriptors,
            )
        finally:
            os.close(output)

    async def _end(self) -> None:
        """Ask the process to stop, and kill it if it does not in time, or at once if its grace is over."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await done_within(self._grace_seconds, self._process.wait())
        finally:
            self._kill()
            await self._process.wait()

    def _kill(self) -> None:
        """Kill the process, and whatever it started."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._changed()
