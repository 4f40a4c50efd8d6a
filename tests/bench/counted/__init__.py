"""Programs whose instructions are counted: each makes its calls once for warming up, then again under the count."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NoReturn

import uvloop

import poste_calculator
from poste.rpc.catalogue import Service, describe
from poste.runtime import logs
from poste_mom.catalogue.catalogue_file import read

#: How many calls are under way at once, as from so many connections.
AT_ONCE: Final = 32
_CALLS: Final = 60 * AT_ONCE

#: Makes so many calls.
Calls = Callable[[int], Awaitable[None]]


def services() -> dict[str, Service]:
    """Return the samples as they are catalogued once they have been up."""
    entries = read(Path(poste_calculator.__path__[0]) / "catalogue.toml")
    for entry in entries:
        entry.library = True
    return {entry.name: describe(entry) for entry in entries}


def run(prepare: Callable[[], Coroutine[Any, Any, Calls]]) -> NoReturn:
    """Count what a program's calls cost, and say how many they were."""
    _log_nowhere()
    uvloop.run(_count(prepare))
    raise AssertionError("it ended by itself")


async def _count(prepare: Callable[[], Coroutine[Any, Any, Calls]]) -> NoReturn:
    make_calls = await prepare()
    await asyncio.sleep(0)
    gc.collect()
    gc.freeze()
    gc.disable()
    await make_calls(_CALLS)
    _begin()
    await make_calls(_CALLS)
    sys.stdout.write(f"{_CALLS}\n")
    sys.stdout.flush()
    # At once, for all that comes would be counted too.
    os._exit(0)


def _begin() -> None:
    """Have valgrind count from here on."""
    command = ["callgrind_control", "-i", "on", str(os.getpid())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _log_nowhere() -> None:
    """Have lines written as in a deployment, but where they are not read."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    told = os.dup(sys.stderr.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
    settings: Any = SimpleNamespace(log_format="json", log_level="info")
    logs.configure(settings, "counted")
    sys.stderr = os.fdopen(told, "w", buffering=1)
