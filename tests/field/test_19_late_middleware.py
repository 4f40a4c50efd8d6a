"""A middleware that is late: what it has under way is not put upon it again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from support.worker import FakeMom, serving_mom

from poste.rpc.channels import connect
from poste.runtime.backoff import Backoff
from poste.service.report import Reporter
from poste.v1 import mom_service_pb2 as pb

#: How long the middleware takes for a result, and may take for a report at first, in seconds.
EACH_SECONDS, DEADLINE_SECONDS = 0.01, 0.2
RESULTS = 128


@contextlib.asynccontextmanager
async def reporting(target: str) -> AsyncIterator[Reporter]:
    async with connect(target, library=True) as channel:
        reporter = Reporter(channel, deadline_seconds=DEADLINE_SECONDS)
        running = asyncio.create_task(reporter.run())
        try:
            yield reporter
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_results_that_take_too_long_are_reported_fewer_at_a_time():
    """The same 128 would be sent again and again, each time cut off by the same deadline, for ever."""
    mom, busy = FakeMom(), asyncio.Lock()

    async def slowly(completions: list[pb.Completion], _: Any) -> list[int]:
        # One after the other, whoever asks: who is cut off has nothing of it.
        async with busy:
            await asyncio.sleep(EACH_SECONDS * len(completions))
        return [pb.COMPLETE_RESULT_STORED] * len(completions)

    mom.answer = slowly
    async with serving_mom(mom) as target, reporting(target) as reporter:
        completions = [pb.Completion(service="a.B", key=str(number), token="t:1") for number in range(RESULTS)]  # noqa: S106 - a claim's
        results = await asyncio.wait_for(asyncio.gather(*map(reporter.report, completions)), 20)

    assert set(results) == {pb.COMPLETE_RESULT_STORED}


def test_pauses_grow_and_are_nobody_elses():
    """All that a starved middleware lost would come back to it at the same moment, and as often as ever."""
    one, other = Backoff(1, 8), Backoff(1, 8)
    pauses = [one.pause_seconds() for _ in range(6)]
    others = [other.pause_seconds() for _ in range(6)]
    one.reset()

    assert all(longest / 2 <= pause <= longest for pause, longest in zip(pauses, (1, 2, 4, 8, 8, 8), strict=True))
    assert pauses != others
    assert one.pause_seconds() <= 1
