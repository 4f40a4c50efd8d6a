"""One process of a local Poste: how it is started so that it can't outlive us, and how it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Self

from poste_cli.local import leash
from poste_cli.local.log_file import LogFile
from poste_cli.local.parts import Part


class Child:
    """A started process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, part: Part, log: LogFile) -> Self:
        """Start a part, whose output goes to a log.

        It gets a session of its own, so that a Ctrl-C in the terminal reaches us alone and we stop it in its turn.

        Raises:
            OSError: It could not be started.
        """
        output = log.open()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(Path(leash.__file__)), str(os.getpid())),
                *part.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(part.environment),
                # Not the user's folder: a worker imports from where it stands, and must not find anything there.
                cwd=part.log.parent,
                start_new_session=True,
                # Whatever it writes (Redis its AOF, first of all) is for its own user's eyes.
                umask=0o077,
                pass_fds=part.descriptors,
            )
        finally:
            os.close(output)
        return cls(process)

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
