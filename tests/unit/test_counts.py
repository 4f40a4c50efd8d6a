"""How many each has, and waiting for so long at most: what limits are made of."""

from __future__ import annotations

import asyncio
import time

from poste.runtime.counts import Counts
from poste.runtime.waits import done_within


def test_who_has_none_is_not_remembered() -> None:
    """Peers come and go for months: each would stay in every limit's memory for good."""
    counts = Counts()
    counts.add("one", 2)
    counts.add("two")
    counts.add("nothing", 0)
    counts.remove("one")
    counts.remove("two")
    counts.remove("nothing", 0)

    assert counts == {"one": 1}
    assert counts["two"] == 0


async def test_what_is_late_is_told_and_ended() -> None:
    """Who waits for its turn would go on waiting unseen, and take the turn of another."""
    event = asyncio.Event()
    begin = time.monotonic()

    assert not await done_within(0.01, event.wait())
    assert time.monotonic() - begin < 5
    event.set()
    assert await done_within(0.01, event.wait())
    assert await done_within(None, event.wait())
