"""One process of a local Poste: how it is started so that it can't outlive us, and how it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final, Self

from poste_cli.local import leash
from poste_cli.local.parts import Part

#: A log that is larger than this when its part starts is put aside, in bytes.
_MAX_LOG_BYTES: Final = 10 * 1024 * 1024
#: As much of a log's end as is searched for its last line, in bytes.
_TAIL_BYTES: Final = 4096


class Child:
    """A started process."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, log_start: int) -> None:
        self._process = process
        self._log = log
        self._log_start = log_start

    @classmethod
    async def start(cls, part: Part) -> Self:
        """Start a part.

        It gets a session of its own, so that a Ctrl-C in the terminal reaches us alone and we stop it in its turn.

        Raises:
            OSError: It could not be started.
        """
        log, log_start = _open_log(part.log)
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(Path(leash.__file__)), str(os.getpid())),
                *part.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(part.environment),
                # Not the user's folder: a worker imports from where it stands, and must not find anything there.
                cwd=part.log.parent,
                start_new_session=True,
                pass_fds=part.descriptors,
            )
        finally:
            os.close(log)
        return cls(process, part.log, log_start)

    @property
    def pid(self) -> int:
        """The process' id."""
        return self._process.pid

    async def wait(self) -> int:
        """Wait for its end; returns its exit code, or the signal's number, negative, that killed it."""
        return await self._process.wait()

    async def stop(self, grace_seconds: float) -> None:
        """Ask it to stop, and kill it if it does not in time; returns when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_seconds):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def kill(self) -> None:
        """Kill it, and whatever it started."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def last_line(self) -> str:
        """Return the last line that it wrote in this life; empty if there is none."""
        try:
            with self._log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, end - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _open_log(path: Path) -> tuple[int, int]:
    """Open a log to append to; returns its descriptor and its length."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _MAX_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return log, os.fstat(log).st_size
