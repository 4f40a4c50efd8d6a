"""The page's snapshot: one for all who watch, none while there are none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from poste_gateway.ui.broadcaster import Broadcaster
from poste_gateway.ui.timeseries import TimeSeries


class Eyes:
    """Counts the snapshots."""

    def __init__(self) -> None:
        self.looks: list[bool] = []
        self.blind = 0

    async def look(self, tasks: bool):
        self.looks.append(tasks)
        await asyncio.sleep(0)
        if len(self.looks) <= self.blind:
            raise RuntimeError("a defect")
        return {"services": [], "number": len(self.looks)} | ({"tasks": ["a"]} if tasks else {})


@pytest.fixture
def eyes() -> Eyes:
    return Eyes()


@pytest.fixture
async def broadcaster(eyes: Eyes) -> Iterator[Broadcaster]:
    one = Broadcaster(eyes.look, period_seconds=0.01)
    running = asyncio.create_task(one.run())
    yield one
    running.cancel()
    await asyncio.wait([running])


async def follow(broadcaster: Broadcaster, looks: int, *, operator: bool = False) -> list[bytes]:
    found = []
    with broadcaster.watching(operator=operator):
        last = broadcaster.begin()
        while len(found) < looks:
            snapshot = await broadcaster.next(last)
            assert snapshot is not None
            last = snapshot.number
            found.append(snapshot.full if operator and snapshot.full else snapshot.public)
    return found


async def test_many_watchers_share_one_look(broadcaster, eyes):
    """Each open page would ask the middleware by itself, and many pages would be a load."""
    seen = await asyncio.gather(*(follow(broadcaster, 5) for _ in range(50)))

    assert len(eyes.looks) <= 7
    assert all(one == seen[0] for one in seen)


async def test_nobody_looks_while_nobody_watches(broadcaster, eyes):
    """A gateway would for ever ask for figures that are not read."""
    await follow(broadcaster, 2)
    before = len(eyes.looks)
    await asyncio.sleep(0.1)

    assert len(eyes.looks) <= before + 1


async def test_tasks_are_looked_up_for_operators_only(broadcaster):
    """A guest would be sent the ids of tasks, by which all results are read."""
    public, full = await asyncio.gather(follow(broadcaster, 4), follow(broadcaster, 4, operator=True))

    assert all("tasks" not in json.loads(one) for one in public)
    assert json.loads(full[-1])["tasks"] == ["a"]


async def test_a_look_that_fails_ends_nothing(broadcaster, eyes):
    """A defect in what the page shows would take the gateway down, and every call with it."""
    eyes.blind = 2

    assert await follow(broadcaster, 1)
    assert len(eyes.looks) == 3


async def test_the_end_wakes_everybody(broadcaster):
    """A stream would hold the gateway's stop up."""
    with broadcaster.watching(operator=False):
        await broadcaster.next(0)
        waiting = asyncio.create_task(broadcaster.next(10_000))
        await asyncio.sleep(0)
        broadcaster.close()

        assert await waiting is None


def test_the_bound_keeps_room_for_operators():
    """A client that opens enough streams would shut the operators out of their own page."""
    broadcaster = Broadcaster(Eyes().look)
    joined = []
    while not broadcaster.full(operator=False):
        joined.append(broadcaster.watching(operator=False))
        joined[-1].__enter__()

    assert not broadcaster.full(operator=True)


def figures(**more):
    return {
        "queued": 0,
        "delayed": 0,
        "scheduled": 0,
        "running": 0,
        "oldestAgeSeconds": None,
        "enqueued": 0,
        "replayed": 0,
        "ended": 0,
    } | more


def test_how_fast_a_queue_fills_and_drains():
    """An operator would read a wrong time, or one for a queue that grows."""
    series = TimeSeries()
    found = []
    steps = [(100, 0, 500, 0, 400), (90, 2, 502, 0, 410), (80, 4, 505, 3, 424), (180, 4, 605, 15, 436)]
    for second, (waiting, running, enqueued, replayed, ended) in enumerate(steps):
        service = {
            "name": "s",
            "figures": figures(queued=waiting, running=running, enqueued=enqueued, replayed=replayed, ended=ended),
        }
        series.add(1000.0 + second, [service])
        found.append(tuple(service["figures"][name] for name in ("inRate", "outRate", "etaSeconds")))

    # 8 less in a second, though 2 came in; 16 less in two, though 8 did; then more came in than went.
    assert found == [(None, None, None), (2.0, 10.0, 11.5), (4.0, 12.0, 10.5), (40.0, 12.0, None)]


def test_a_queue_whose_count_began_anew_has_no_rate():
    """After Redis lost its data, an operator would read of calls that came in backwards."""
    series = TimeSeries()
    series.add(1.0, [{"name": "s", "figures": figures(enqueued=1000)}])
    service = {"name": "s", "figures": figures(enqueued=3)}
    series.add(2.0, [service])

    assert service["figures"]["outRate"] is None


def test_what_was_not_known_leaves_a_gap():
    """A chart would join what was before an outage and after it, as if it had been seen."""
    series = TimeSeries()
    series.add(1.0, [{"name": "s", "figures": figures(queued=3, oldestAgeSeconds=2.0)}])
    series.add(2.0, [{"name": "s", "figures": None}])
    series.add(3.0, [{"name": "s", "figures": figures()}])

    assert series.series() == {
        "times": [1.0, 2.0, 3.0],
        "services": {"s": {"waiting": [3, None, 0], "age": [2.0, None, None]}},
    }


async def test_who_comes_after_the_end_is_sent_away(broadcaster):
    """A page would read that all is well, then that it is over, three times a second while the gateway stops."""
    broadcaster.close()

    assert broadcaster.full(operator=True)
