"""One part's process: started, and again with back-off after each crash, until its task is cancelled.

What it is doing follows from that task and its process::

    stopped ──start──▶ starting ──▶ ready ◀──▶ unready
       ▲                 ▲ │           │          │
       │         back-off│ ▼           ▼          ▼
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
from poste_cli.local import leash, log_file
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


#: Shows an event of a part: its name, what it did (such as `crashed`), and more about it.
Report = Callable[[str, str, str], None]


class Child:
    """Runs one part and restarts it when it crashes; `changed` is called whenever its state changes."""

    def __init__(self, part: Part, grace_seconds: float, changed: Callable[[], None], report: Report) -> None:
        self.part = part
        #: Why its last start failed for good, if it did; it is tried again all the same.
        self.broken: str | None = None
        #: Why it was not ready at its last probe; None if it was.
        self.why: str | None = None
        #: Since when that is the reason.
        self.why_since = 0.0
        #: The task that keeps it running, and its process in this life, if it has one.
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        #: What the probes of this life have shown: starting, ready or unready.
        self._shown = State.STARTING
        #: It crashed, and was not ready since.
        self._crashed = False
        self._grace_seconds = grace_seconds
        self._changed = changed
        self._report = report

    @property
    def state(self) -> State:
        """What it is doing."""
        if self._task is None or self._task.done():
            return State.STOPPED
        if self._task.cancelling():
            return State.STOPPING
        return State.CRASHED if self._process is None and self._crashed else self._shown

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
            self._shown, self._crashed = State.STARTING, False
            self._task = group.create_task(self._keep(), name=self.part.name)
            self._task.add_done_callback(lambda _: self._changed())
            self._changed()

    async def stop(self) -> None:
        """Have it stopped, and wait until it is gone."""
        if self._task is None:
            return
        if self.wanted:
            self._task.cancel()
            self._changed()
        await asyncio.wait([self._task])

    def hurry(self) -> None:
        """Give it no more grace, neither in the stop that is under way nor in a later one."""
        self._grace_seconds = 0.0
        if not self.wanted:
            self._kill()

    def seen(self, why: str | None) -> None:
        """Note why the running process was not ready at a probe; None if it was."""
        if not self.wanted:
            return
        if why != self.why:
            self.why, self.why_since = why, time.monotonic()
        if why is None and self._crashed:
            self._report(self.part.name, "restarted", f", pid {self.pid}")
        before = self.state
        if why is None:
            self._crashed, self.broken, self._shown = False, None, State.READY
        elif self._shown is State.READY:
            self._shown = State.UNREADY
        if self.state is not before:
            self._changed()

    async def _keep(self) -> None:
        """Run it, and start it again whenever it ends, until cancelled."""
        backoff_seconds = _FIRST_BACKOFF_SECONDS
        while True:
            begin = time.monotonic()
            how = await self._live()
            if time.monotonic() - begin >= _LONG_LIFE_SECONDS:
                backoff_seconds = _FIRST_BACKOFF_SECONDS
            self._note_crash(how, backoff_seconds)
            await asyncio.sleep(backoff_seconds)
            backoff_seconds = min(2 * backoff_seconds, _MAX_BACKOFF_SECONDS)

    async def _live(self) -> str:
        """Run it through one life; returns how it ended. It is gone then, and also if this is cancelled."""
        try:
            self._process = await self._spawn()
            code = await self._process.wait()
        except OSError as error:
            return f"not started: {error.strerror}"
        finally:
            await self._end()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _note_crash(self, how: str, backoff_seconds: float) -> None:
        last_line = log_file.last_line(self.part.log)
        said = how == _CANT_START and last_line
        # Redis' own exit code says nothing: if it ends before it ever answered, it can't use its folder.
        if (said or self.part.name == REDIS) and self._shown is State.STARTING:
            self.broken = f"{self.part.name} can't start: {last_line or how} (log: {self.part.log})"
        self._shown, self._crashed = State.STARTING, True
        more = f": {last_line}" if said else f"; its log is {self.part.log}"
        self._report(self.part.name, "crashed", f" ({how}); restart in {backoff_seconds:g} s{more}")
        self._changed()

    async def _spawn(self) -> asyncio.subprocess.Process:
        with log_file.opened(self.part.log) as output:
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

    async def _end(self) -> None:
        """Ask the process to stop, and kill it if it does not in time, or at once if its grace is over."""
        if self._process is None:
            return
        try:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()
                await done_within(self._grace_seconds, self._process.wait())
        finally:
            self._kill()
            await self._process.wait()
            self._process = None

    def _kill(self) -> None:
        """Kill the process, and whatever it started."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
