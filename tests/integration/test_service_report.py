"""Outcomes reach the middleware: many at a time, each with its own answer, however long it takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from support.ports import free_port
from support.waiting import until
from support.worker import FakeMom, serving_mom

from poste.rpc.channels import connect
from poste.service.report import LANES, MAX_BATCH, Reporter
from poste.v1 import mom_service_pb2 as pb


@contextlib.asynccontextmanager
async def reporting(target: str) -> AsyncIterator[Reporter]:
    async with connect(target, library=True) as channel:
        reporter = Reporter(channel)
        running = asyncio.create_task(reporter.run())
        try:
            yield reporter
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def completion(key: str, size: int = 1) -> pb.Completion:
    return pb.Completion(service="a.B", key=key, token="t:1", response=b"x" * size)  # noqa: S106 - a claim's, no secret


async def test_it_waits_for_a_middleware_that_is_away() -> None:
    """Without it results would be lost whenever the middleware restarts."""
    port, mom = free_port(), FakeMom()
    async with reporting(f"127.0.0.1:{port}") as reporter:
        answer = reporter.report(completion("early"))
        done, _ = await asyncio.wait([answer], timeout=1.5)
        assert not done
        async with serving_mom(mom, port):
            assert await asyncio.wait_for(answer, 10) == pb.COMPLETE_RESULT_STORED
        late = reporter.report(completion("late"))
        async with serving_mom(mom, port):
            assert await asyncio.wait_for(late, 10) == pb.COMPLETE_RESULT_STORED

    assert [one.key for one in mom.completions] == ["early", "late"]


async def test_what_ends_meanwhile_shares_an_rpc() -> None:
    """Without it each result would cost an RPC, which is ten times what the result itself costs."""
    mom, gate = FakeMom(), asyncio.Event()
    under_way = 0

    async def slowly(completions: list[pb.Completion], _: Any) -> list[int]:
        nonlocal under_way
        under_way += 1
        await gate.wait()
        return [pb.COMPLETE_RESULT_STORED] * len(completions)

    mom.answer = slowly
    async with serving_mom(mom) as target, reporting(target) as reporter:
        answers = []
        for lane in range(LANES):
            answers.append(reporter.report(completion(f"first-{lane}")))
            await until(lambda lane=lane: under_way == lane + 1, what="a lone outcome's RPC")
        answers += [reporter.report(completion(str(number))) for number in range(2 * MAX_BATCH + 1)]
        gate.set()
        await asyncio.wait_for(asyncio.gather(*answers), 20)

    assert sorted(len(batch) for batch in mom.batches) == [*[1] * (LANES + 1), MAX_BATCH, MAX_BATCH]


async def test_each_has_its_own_answer() -> None:
    """Without it a task that another owns by now would count as done here."""
    mom = FakeMom()

    async def by_key(completions: list[pb.Completion], _: Any) -> list[int]:
        return [pb.CompleteResult.Value(f"COMPLETE_RESULT_{one.key}") for one in completions]

    mom.answer = by_key
    async with serving_mom(mom) as target, reporting(target) as reporter:
        keys = ["STORED", "REFUSED", "RETRY_SCHEDULED", "REFUSED"]
        results = await asyncio.wait_for(asyncio.gather(*(reporter.report(completion(key)) for key in keys)), 10)

    assert [pb.CompleteResult.Name(result).removeprefix("COMPLETE_RESULT_") for result in results] == keys


async def test_one_that_the_middleware_chokes_on_does_not_keep_the_others() -> None:
    """Without it one poisonous result would hold every other task of the process for ever."""
    mom = FakeMom()

    async def choking(completions: list[pb.Completion], context: Any) -> list[int]:
        if any(one.key == "poison" for one in completions):
            await context.abort(grpc.StatusCode.INTERNAL, "a defect")
        return [pb.COMPLETE_RESULT_STORED] * len(completions)

    mom.answer = choking
    async with serving_mom(mom) as target, reporting(target) as reporter:
        poison = reporter.report(completion("poison"))
        others = [reporter.report(completion(str(number))) for number in range(20)]
        await asyncio.wait_for(asyncio.gather(*others), 20)
        assert not poison.done()
        poison.cancel()


async def test_what_was_not_answered_is_asked_again() -> None:
    """Without it a result that the store could not take would count as settled."""
    mom = FakeMom()
    tries = 0

    async def first_not(completions: list[pb.Completion], _: Any) -> list[int]:
        nonlocal tries
        tries += 1
        if tries == 1:
            return [pb.COMPLETE_RESULT_UNSPECIFIED] * len(completions)
        if tries == 2:
            return []
        return [pb.COMPLETE_RESULT_STORED] * len(completions)

    mom.answer = first_not
    async with serving_mom(mom) as target, reporting(target) as reporter:
        assert await asyncio.wait_for(reporter.report(completion("key")), 10) == pb.COMPLETE_RESULT_STORED
    assert tries == 3


async def test_a_withdrawn_report_is_not_sent() -> None:
    """Without it a task that was given back would be reported all the same."""
    mom, port = FakeMom(), free_port()
    async with reporting(f"127.0.0.1:{port}") as reporter:
        blockers = [reporter.report(completion(f"blocker-{lane}")) for lane in range(4)]
        for _ in range(4):
            await asyncio.sleep(0)
        withdrawn = reporter.report(completion("withdrawn"))
        withdrawn.cancel()
        async with serving_mom(mom, port):
            await asyncio.wait_for(asyncio.gather(*blockers, reporter.report(completion("last"))), 20)
    assert "withdrawn" not in {one.key for one in mom.completions}


async def test_large_results_go_in_rpcs_of_their_own() -> None:
    """Without it a few large results together would exceed what an RPC may carry, and none would ever be stored."""
    mom = FakeMom()
    async with serving_mom(mom) as target, reporting(target) as reporter:
        large = [reporter.report(completion(str(number), size=3_000_000)) for number in range(8)]
        with pytest.raises(asyncio.InvalidStateError):
            large[0].result()
        await asyncio.wait_for(asyncio.gather(*large), 30)
    assert [len(batch) for batch in mom.batches] == [1] * 8
