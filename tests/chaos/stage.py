"""Everything that runs during a run: links, parts, clients. What chaos and soak have in common."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from chaos import faults, quiet
from chaos.memory import Memory
from chaos.observations import Trouble
from chaos.parts import REDIS, Layout, lay_out
from chaos.process import Clock, Process

#: Everything that runs leave behind, from where they were started.
_FOLDER: Final = Path(".chaos")
#: How long the gateways may take to know all services, in seconds.
_QUEUEABLE_SECONDS: Final = 30.0
#: The exit code of a run that could not be made.
_NOT_MADE: Final = 2


def begin(run: Callable[[Path], Awaitable[int]], name: str) -> int:
    """Make a run in a fresh folder; returns the exit code."""
    folder = (_FOLDER / name).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Every connection through a link takes two descriptors.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        return uvloop.run(_until_signalled(run(folder)))
    except asyncio.CancelledError:
        sys.stderr.write("chaos: interrupted\n")
        return _NOT_MADE
    except BaseExceptionGroup as group:
        late, rest = group.split(NotUpError)
        if rest is not None:
            raise
        sys.stderr.write(f"chaos: {late} (logs: {folder / 'logs'})\n")
        return _NOT_MADE


async def _until_signalled(run: Awaitable[int]) -> int:
    """Make a run; a signal that asks for its end ends all its parts first, in order."""
    making = asyncio.ensure_future(run)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, making.cancel)
    return await making


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs."""

    layout: Layout
    processes: dict[str, Process]
    memory: Memory
    troubles: list[Trouble]
    now: Clock

    def well(self, name: str) -> bool:
        """Return whether a part is up."""
        return self.processes[name].well


class NotUpError(Exception):
    """The parts did not get ready; the text says which, and why."""


@contextlib.asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """Run links and parts while the body runs; ready when it begins, all gone when it has ended.

    Raises:
        NotUpError: Not all of them got ready.
    """
    layout, now, troubles = lay_out(folder), Clock(), list[Trouble]()
    processes = {name: Process(part, layout.redis_port, troubles, now) for name, part in layout.parts.items()}
    for part in layout.parts.values():
        faults.set_clock(part.clock, 0.0)
    stage = Stage(layout, processes, Memory(processes, now), troubles, now)
    async with asyncio.TaskGroup() as group:
        try:
            for link in layout.links.values():
                await link.open()
            keepers = {name: group.create_task(process.keep()) for name, process in processes.items()}
            if late := await quiet.all_up(processes):
                raise NotUpError("; ".join(late))
            await asyncio.wait_for(quiet.all_queueable(layout.gateways), _QUEUEABLE_SECONDS)
            watching = group.create_task(stage.memory.watch())
            yield stage
            watching.cancel()
        finally:
            # Redis last, so that the others can leave in order.
            await asyncio.gather(*(process.close() for name, process in processes.items() if name != REDIS))
            await processes[REDIS].close()
            await asyncio.wait(keepers.values())
            for link in layout.links.values():
                await link.close()
