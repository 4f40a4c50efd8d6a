"""Keeps one part running: starts it, sees it crash, starts it again with backoff, and stops it on purpose.

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
import signal
import time
from dataclasses import dataclass
from typing import Final, Protocol

from poste_cli.local.child import Child
from poste_cli.local.log_file import LogFile
from poste_cli.local.parts import GRACE_SECONDS, Part

#: The wait before a crashed part is started again, in seconds; doubled for each further crash.
_FIRST_BACKOFF_SECONDS: Final = 0.1
_MAX_BACKOFF_SECONDS: Final = 5.0
#: A part that lived so long, in seconds, is not crashing in a loop: the next crash begins the count anew.
_LONG_LIFE_SECONDS: Final = 10.0
#: A part's own grace is over, and it is still there: after this long, in seconds, it is killed.
_KILL_AFTER_SECONDS: Final = GRACE_SECONDS + 2.0
#: A process of ours that can't start ends with this exit code, its last line says why.
_CANT_START: Final = 2


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


@dataclass(frozen=True, slots=True)
class Crash:
    """An end that nobody asked for.

    Attributes:
        how: Its exit code or signal, in words.
        last_line: The last line that the part wrote in that life.
        cant_start: It said that it can't start, in that last line.
        was_ready: It had been ready before.
        backoff_seconds: How long it is waited before it is started again.
    """

    how: str
    last_line: str
    cant_start: bool
    was_ready: bool
    backoff_seconds: float


class Watcher(Protocol):
    """Whoever wants to know what becomes of a part."""

    def crashed(self, part: Part, crash: Crash) -> None:
        """It ended, and nobody had asked for it."""

    def changed(self) -> None:
        """Some part's state is another one."""


class Keeper:
    """Keeps one part. `run` owns its process; the other methods tell `run` what is wanted."""

    def __init__(self, part: Part, watcher: Watcher) -> None:
        self.part = part
        self.state = State.STOPPED
        #: How often it was started.
        self.lives = 0
        self.log = LogFile(part.log)
        self._watcher = watcher
        self._child: Child | None = None
        self._wanted = asyncio.Event()
        self._unwanted = asyncio.Event()
        self._gone = asyncio.Event()
        self._gone.set()
        self._turn = asyncio.Lock()
        self._backoff_seconds = _FIRST_BACKOFF_SECONDS

    @property
    def pid(self) -> int | None:
        """The process' id; None while there is none."""
        return None if self._child is None else self._child.pid

    async def start(self) -> None:
        """Want it to run; a stop under way is waited for first."""
        async with self._turn:
            if self._wanted.is_set():
                return
            self._unwanted.clear()
            self._gone.clear()
            self._wanted.set()
            self._enter(State.STARTING)

    async def stop(self, grace_seconds: float = _KILL_AFTER_SECONDS) -> None:
        """Want it gone, and wait until it is; it is killed if that takes longer than `grace_seconds`."""
        async with self._turn:
            self._wanted.clear()
            self._unwanted.set()
            if self.state is not State.STOPPED:
                self._enter(State.STOPPING)
            if self._child is not None:
                await self._child.stop(grace_seconds)
            await self._gone.wait()

    def hurry(self) -> None:
        """Kill it if it is being stopped: nobody wants to wait for its grace."""
        if self._child is not None and self._unwanted.is_set():
            self._child.kill()

    def seen(self, life: int, *, ready: bool) -> None:
        """Take note of what a look at the part in one of its lives found."""
        if life != self.lives or self._child is None or not self._wanted.is_set():
            return
        if ready:
            self._enter(State.READY)
        elif self.state is State.READY:
            self._enter(State.UNREADY)

    async def run(self) -> None:
        """Do what is wanted, until cancelled; a process that is left then is killed."""
        try:
            while True:
                if not self._wanted.is_set():
                    self._enter(State.STOPPED)
                    self._backoff_seconds = _FIRST_BACKOFF_SECONDS
                    self._gone.set()
                    await self._wanted.wait()
                crash = await self._live()
                if crash is not None:
                    self._enter(State.CRASHED)
                    self._watcher.crashed(self.part, crash)
                    await self._pause(crash.backoff_seconds)
        finally:
            if self._child is not None:
                self._child.kill()
                await self._child.wait()
            # Nobody else tells those who wait for its end.
            self._gone.set()

    async def _live(self) -> Crash | None:
        """Run the part through one life; returns the crash that ended it, None if it was stopped."""
        self._enter(State.STARTING)
        begin = time.monotonic()
        self.lives += 1
        try:
            self._child = child = await Child.start(self.part, self.log)
        except OSError as error:
            return Crash(f"not started: {error.strerror}", "", False, False, self._next_backoff(0.0))
        if self._unwanted.is_set():  # The stop came while it was being started, and saw no process yet.
            await child.stop(_KILL_AFTER_SECONDS)
        code = await child.wait()
        self._child = None
        if self._unwanted.is_set():
            return None
        return Crash(
            how=f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}",
            last_line=self.log.last_line(),
            cant_start=code == _CANT_START,
            was_ready=self.state in (State.READY, State.UNREADY),
            backoff_seconds=self._next_backoff(time.monotonic() - begin),
        )

    async def _pause(self, seconds: float) -> None:
        """Wait before the next life, unless it is stopped meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._unwanted.wait()

    def _next_backoff(self, lived_seconds: float) -> float:
        if lived_seconds >= _LONG_LIFE_SECONDS:
            self._backoff_seconds = _FIRST_BACKOFF_SECONDS
        now = self._backoff_seconds
        self._backoff_seconds = min(now * 2, _MAX_BACKOFF_SECONDS)
        return now

    def _enter(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._watcher.changed()
