"""One timer for many deadlines."""

from __future__ import annotations

import asyncio

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
