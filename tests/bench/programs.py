"""Programs beside Poste's parts in a measurement: the load, the limits, the peers. Each dies with the bench."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

from support.cli import environment

from bench.load import Plan, Report
from poste_cli.local import leash

#: The bench's own folder: limits and peers are below it.
HERE: Final = Path(__file__).parent
#: How long a program may take to say that it is ready, in seconds.
_READY_SECONDS: Final = 30.0
#: How long one may take to stop, in seconds.
_STOP_SECONDS: Final = 15.0
#: How long the load's last answers and its report may take, in seconds.
_LAST_SECONDS: Final = 60.0


class WrongRunError(Exception):
    """A run did not do what was to be measured: its figures would mean nothing."""


class Program:
    """One running program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def line(self) -> str:
        """Return the next line that it writes.

        Raises:
            WrongRunError: It ended, or was silent for too long.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(_READY_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise WrongRunError(f"process {self.pid} says nothing") from None
        if not line:
            raise WrongRunError(f"process {self.pid} ended before it was ready")
        return line.decode().strip()

    async def result(self, seconds: float) -> Any:
        """Wait for its end; returns the JSON that it wrote, None if it wrote nothing.

        Raises:
            WrongRunError: It failed, or took too long.
        """
        try:
            async with asyncio.timeout(seconds):
                written, _ = await self._process.communicate()
        except TimeoutError:
            raise WrongRunError(f"process {self.pid} is not done within {seconds} s") from None
        if self._process.returncode != 0:
            raise WrongRunError(f"process {self.pid} failed: exit code {self._process.returncode}")
        return json.loads(written) if written.strip() else None

    async def stop(self) -> None:
        """End it, by force if it does not end when it is asked to."""
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def start(
    arguments: Sequence[str], *, python: str = sys.executable, cwd: Path | None = None, **variables: str
) -> Program:
    """Start a Python program; what it writes as errors goes where the bench's own go."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), python, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=environment(**_paths(), **variables),
    )
    return Program(process)


@contextlib.asynccontextmanager
async def running(*arguments: str, **options: Any) -> AsyncIterator[Program]:
    """Run a program while the body runs."""
    program = await start(arguments, **options)
    try:
        yield program
    finally:
        await program.stop()


@contextlib.asynccontextmanager
async def limit(name: str, *arguments: str) -> AsyncIterator[tuple[Program, int]]:
    """Run one of `limits/` while the body runs; yields it and the port that it says it listens on."""
    async with running("-m", f"bench.limits.{name}", *arguments) as program:
        yield program, int(await program.line())


async def finish(*arguments: str, seconds: float = 240, **options: Any) -> Any:
    """Run a program to its end; returns the JSON that it wrote, None if it wrote nothing.

    Raises:
        WrongRunError: It failed, or took too long.
    """
    async with running(*arguments, **options) as program:
        return await program.result(seconds)


@contextlib.asynccontextmanager
async def loading(plan: Plan) -> AsyncIterator[asyncio.Future[Report]]:
    """Run the load; the body begins when it does, and yields what its report comes by.

    Raises:
        WrongRunError: An answer was not as it must be.
    """
    async with running("-m", "bench.load", json.dumps(dataclasses.asdict(plan))) as program:
        await program.line()
        yield asyncio.ensure_future(_report(program, plan))


async def load(plan: Plan) -> Report:
    """Run the load to its end.

    Raises:
        WrongRunError: An answer was not as it must be.
    """
    async with loading(plan) as report:
        return await report


async def _report(program: Program, plan: Plan) -> Report:
    return Report(**await program.result(plan.warm_seconds + plan.seconds + _LAST_SECONDS))


def _paths() -> dict[str, str]:
    """Let the programs find the bench and the project, wherever they run."""
    paths = [
        str(HERE.parent),
        *(str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(":") if path),
    ]
    return {"PYTHONPATH": ":".join(dict.fromkeys(paths))}
