"""One timer for many deadlines."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

from poste.runtime import loop_lag
from poste.runtime.deadlines import Deadlines


async def test_each_is_told_once_it_is_due_and_the_soonest_first() -> None:
    """Else a call waits for its answer for as long as the first call that was made, or for ever."""
    told: list[str] = []
    last = asyncio.Event()

    def overdue(key: str) -> None:
        told.append(key)
        if key == "late":
            last.set()

    deadlines = Deadlines(overdue)
    for key, seconds in (("late", 0.2), ("soon", 0.01), ("never", 0.02), ("later", 0.1), ("over already", -1.0)):
        deadlines.add(key, seconds)
    deadlines.discard("never")
    deadlines.discard("unknown")
    async with asyncio.timeout(30):
        await last.wait()

    assert told == ["over already", "soon", "later", "late"]


async def test_what_is_added_while_others_are_told_is_told_too() -> None:
    """Else a call that is made anew when another was overdue waits for ever."""
    told: list[int] = []
    last = asyncio.Event()

    def overdue(key: int) -> None:
        told.append(key)
        if key < 3:
            deadlines.add(key + 1, 0.01)
        else:
            last.set()

    deadlines = Deadlines(overdue)
    deadlines.add(1, 0.01)
    async with asyncio.timeout(30):
        await last.wait()

    assert told == [1, 2, 3]


async def test_what_is_forgotten_is_not_told() -> None:
    """Else what has ended is cancelled."""
    told: list[str] = []
    last = asyncio.Event()

    def overdue(key: str) -> None:
        told.append(key)
        last.set()

    deadlines = Deadlines(overdue)
    deadlines.add("gone", 0.01)
    deadlines.clear()
    deadlines.add("there", 0.02)
    async with asyncio.timeout(30):
        await last.wait()

    assert told == ["there"]


def block(seconds: float) -> None:
    """Do what a handler must not."""
    time.sleep(seconds)


@pytest.mark.parametrize("fair", [True, False])
async def test_a_loop_that_was_blocked_takes_nobodys_time(fair: bool) -> None:
    """Else a handler that blocks its process ends its neighbours by their deadlines: they are run again for nothing."""
    told: list[str] = []
    loop_lag.watch()
    deadlines = Deadlines(told.append, fair=fair)
    await asyncio.sleep(0.3)
    deadlines.add("neighbour", 0.4)
    block(1.5)
    # What it waits for takes a while, once all get on again.
    await asyncio.sleep(0.3)
    deadlines.discard("neighbour")

    assert told == ([] if fair else ["neighbour"])


async def test_who_hangs_in_a_loop_that_was_blocked_is_told_all_the_same() -> None:
    """A handler that hangs would have no deadline any more."""
    last = asyncio.Event()
    loop_lag.watch()
    deadlines = Deadlines(lambda _: last.set(), fair=True)
    deadlines.add("hangs", 0.05)
    block(1.5)
    async with asyncio.timeout(30):
        await last.wait()


def test_what_is_due_at_once_is_no_trouble_to_the_next() -> None:
    """On uvloop a timer for now is another thing than one for later: every call from then on would fail."""
    told: list[str] = []

    async def main() -> None:
        deadlines = Deadlines(told.append, fair=True)
        for number in range(3):
            deadlines.add(f"at once {number}", 0.0)
            deadlines.add("later", 60)
            await asyncio.sleep(0.01)
        deadlines.clear()

    uvloop.run(main())

    assert told == ["at once 0", "at once 1", "at once 2"]
