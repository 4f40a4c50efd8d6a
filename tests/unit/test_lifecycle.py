"""A process' life: side tasks end when they are cancelled, and take the process along when they fail."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from poste.runtime import lifecycle
from poste.runtime.lifecycle import side_tasks

RESTARTING = """
import os, signal, sys
from poste.runtime import lifecycle

async def main(stop):
    if sys.argv[1] == "True":
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
    raise lifecycle.RestartWanted

sys.exit(lifecycle.run(main))
"""


async def test_a_duty_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    """Libraries swallow one now and then: the process would never stop."""
    swallowed = asyncio.Event()

    async def duty() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(10):
        async with side_tasks(duty()):
            # Lets the duty begin: what has not begun is cancelled without being asked.
            await asyncio.sleep(0)

    assert swallowed.is_set()


async def test_a_duty_that_fails_takes_the_body_with_it() -> None:
    """A process whose side task died must not seem alive."""

    async def duty() -> None:
        raise RuntimeError("broken")

    with pytest.RaisesGroup(RuntimeError):
        async with side_tasks(duty()):
            await asyncio.Event().wait()


@pytest.mark.parametrize(("asks", "code"), [(False, lifecycle.RESTART), (True, 0)])
def test_who_asks_a_process_to_stop_gets_no_restart(asks: bool, code: int) -> None:
    """One that was on its way to a restart when it was asked to stop would be there again, and hear of it no more."""
    ended = subprocess.run([sys.executable, "-c", RESTARTING, str(asks)], check=False, timeout=60)

    assert ended.returncode == code
