"""One part as a process: started, killed, stopped, and started again when it died, whatever it died of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Final

import aiohttp
import redis.asyncio
from redis.exceptions import RedisError

from chaos.observations import Trouble
from chaos.parts import Part
from poste.runtime import lifecycle
from poste_cli.local import leash

#: How soon a part that died by itself is started again, in seconds.
_PAUSE_SECONDS: Final = 0.3
_LOOK_SECONDS: Final = 0.1
_PROBE_SECONDS: Final = 2.0


class Process:
    """Keeps one part running.

    Attributes:
        part: What it runs.
        pid: Its process now; None while there is none.
        paused: It is stopped by SIGSTOP.
        deaths: How often it ended, and how.
        max_file_bytes: The largest file that it may write (RLIMIT_FSIZE); None for no limit.
        pause_seconds: How long until it is started after its next death.
    """

    def __init__(self, part: Part, redis_port: int, troubles: list[Trouble], now: Clock) -> None:
        self.part = part
        self.pid: int | None = None
        self.paused = False
        self.deaths: dict[str, int] = {}
        self.max_file_bytes: int | None = None
        self.pause_seconds = _PAUSE_SECONDS
        self.starts: list[float] = []
        self._redis_port = redis_port
        self._troubles = troubles
        self._trouble: Trouble | None = None
        self._now = now
        self._closing = False
        self._expected = ""

    @property
    def well(self) -> bool:
        """Whether it runs and has been ready since it was started."""
        return self.pid is not None and not self.paused and self._trouble is None

    async def keep(self) -> None:
        """Run it until `close`."""
        while not self._closing:
            self._trouble = Trouble(self.part.name, "starting" if not self.starts else "down", self._now())
            if self.starts:
                self._troubles.append(self._trouble)
            process = await self._start()
            async with lifecycle.side_tasks(self._until_ready()):
                code = await process.wait()
                self.pid, self.paused = None, False
            how = self._expected or (f"by itself ({code})")
            self._expected = ""
            if self._trouble is not None:
                self._trouble.end = self._now()
            if not self._closing:
                self.deaths[how] = self.deaths.get(how, 0) + 1
                gap = Trouble(self.part.name, how, self._now())
                self._troubles.append(gap)
                pause, self.pause_seconds = self.pause_seconds, _PAUSE_SECONDS
                await asyncio.sleep(pause)
                gap.end = self._now()

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; returns whether there was a process to send it to."""
        if self.pid is None:
            return False
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._expected = number.name
            if number is signal.SIGTERM and self._trouble is None:
                # From here on it is not ready, until its next life is.
                self._trouble = Trouble(self.part.name, number.name, self._now())
                self._troubles.append(self._trouble)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return True

    def limit_files(self, max_bytes: int | None) -> None:
        """Let it write no file beyond this size, in this life and its next ones."""
        self.max_file_bytes = max_bytes
        if self.pid is not None:
            limit = resource.RLIM_INFINITY if max_bytes is None else max_bytes
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    async def close(self, grace_seconds: float = 5.0) -> None:
        """End it for good."""
        self._closing = True
        if self.pid is not None:
            pid = self.pid
            for number in (signal.SIGCONT, signal.SIGTERM):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            end = self._now() + grace_seconds
            while self.pid == pid and self._now() < end:
                await asyncio.sleep(_LOOK_SECONDS)
            if self.pid == pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    async def ready(self) -> str | None:
        """Ask it; returns None if it is ready, else why not."""
        if self.part.ready_url is None:
            return await self._ping()
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PROBE_SECONDS)) as session,
                session.get(self.part.ready_url) as response,
            ):
                return None if response.status == 200 else (await response.text()).strip()
        except (aiohttp.ClientError, OSError) as error:
            return f"does not answer ({type(error).__name__})"

    async def _ping(self) -> str | None:
        client = redis.asyncio.Redis(port=self._redis_port, socket_timeout=_PROBE_SECONDS, retry=None)
        try:
            await client.ping()
        except RedisError as error:
            return str(error)
        finally:
            await client.aclose()
        return None

    async def _start(self) -> asyncio.subprocess.Process:
        log = os.open(self.part.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(Path(leash.__file__)), str(os.getpid())),
                *self.part.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.part.environment,
                cwd=self.part.log.parent,
                start_new_session=True,
            )
        finally:
            os.close(log)
        self.pid = process.pid
        self.starts.append(self._now())
        if self.max_file_bytes is not None:
            self.limit_files(self.max_file_bytes)
        return process

    async def _until_ready(self) -> None:
        while await self.ready() is not None:
            await asyncio.sleep(_LOOK_SECONDS)
        if self._trouble is not None:
            self._trouble.end = self._now()
            self._trouble = None


class Clock:
    """Seconds since the run began."""

    def __init__(self) -> None:
        self._begin = asyncio.get_running_loop().time()

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() - self._begin
