"""Faults I, 13: a gateway's clock that is a little off changes no status; one that is far off is reported."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support.deployment import SUM, deployed
from support.gateway import staged
from support.queue_post import Post
from support.waiting import until

from poste.domain.task import TaskEventType, TaskState
from poste.queue.history import Histories

_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
_DAY = 86400
#: How far a gateway's clock is ahead of the store's, in seconds.
OFF = pytest.mark.parametrize("ahead", [-25, -5, 5, 25])


async def _store_time(post: Post) -> float:
    return (await post.tasks.read(post.queue, "none")).now


@OFF
async def test_a_call_waits_as_long_as_it_may(post: Post, ahead: int) -> None:
    """By the gateway's clock a call with a short time to live expired though its service was up."""
    before = await _store_time(post)
    key = await post.enqueue(create_time=time.time() + ahead, task_ttl_seconds=30)
    after = await _store_time(post)
    await post.pass_()
    record = await post.record(key)

    assert record.state is TaskState.QUEUED
    assert record.expire_time is not None
    # However slow the machine is: by the store's clock, from the acceptance on.
    assert before + 30 <= record.expire_time <= after + 30


@OFF
@pytest.mark.parametrize("result_ttl", [2, 10, 62])
@pytest.mark.parametrize("end", ["succeeded", "cancelled", "expired"])
async def test_a_result_is_kept_until_its_id_says_that_it_is_not(
    post: Post, ahead: int, result_ttl: int, end: str
) -> None:
    """An id is judged by its time to live from its creation on: a record that went sooner was reported as lost."""
    await post.join("me")
    create = time.time() + ahead
    how = {"create_time": create, "result_ttl_seconds": result_ttl}
    if end == "succeeded":
        key = await post.running("me", **how)
        await post.complete("me", key)
    else:
        key = await post.enqueue(**how)
        if end == "expired":
            await post.client.hset(post.keys.record(key), "x", 1)
        else:
            await post.tasks.cancel(post.queue, key)
    record = await post.record(key)
    assert record.state.name == end.upper()

    now = await _store_time(post)
    assert record.expire_time is not None
    # Never before a missing record is judged as gone, nor for less than it was asked for.
    assert record.expire_time >= round(create, 3) + result_ttl
    assert record.expire_time == pytest.approx(max(now, create) + result_ttl, abs=3)
    assert now + await post.client.pttl(post.keys.record(key)) / 1000 >= record.expire_time - 0.05


@OFF
async def test_a_replayed_call_waits_as_long_as_at_first_under_its_own_id(post: Post, ahead: int) -> None:
    """What clocks differ by got into its time to live, and so into the id that a list makes of it: another task's."""
    await post.join("me")
    key = await post.running("me", create_time=time.time() + ahead, task_ttl_seconds=_DAY, repeatable=False)
    await post.complete("me", key, "silent")
    page = await post.operators.dead(post.queue, count=10)
    assert [task.task_ttl_seconds for task in page.tasks] == [_DAY]

    await post.operators.replay(post.queue, [key])
    assert (await post.record(key)).expire_time == pytest.approx(await _store_time(post) + _DAY, abs=3)


async def test_nothing_happened_to_a_call_before_it_was_accepted(post: Post) -> None:
    """A history that begins in the future is no history."""
    await post.join("me")
    key = await post.running("me", create_time=time.time() + 25)
    events = (await Histories(post.client, post.tasks).read(post.queue, key)).events
    assert [event.type for event in events] == [TaskEventType.ACCEPTED, TaskEventType.STARTED]
    assert events[0].time <= events[1].time <= await _store_time(post)


@pytest.mark.parametrize("ahead", [-60, 60])
async def test_a_gateway_whose_clock_is_far_off_says_so_until_it_is_right(tmp_path: Path, ahead: int) -> None:
    """It refused every call that had to be kept, and called itself ready."""
    async with staged(tmp_path) as stage:

        async def told() -> str:
            reply = await stage.gateway.get("/readyz")
            return "" if reply.status == 200 else reply.text

        async def offset() -> float:
            lines = (await stage.gateway.metrics()).splitlines()
            return float(next(line.split()[1] for line in lines if line.startswith("poste_clock_ahead_seconds ")))

        assert abs(await offset()) < 5
        # The store's clock is behind: the gateway's is ahead.
        stage.mom.clock_ahead_seconds = -ahead
        where = "ahead of" if ahead > 0 else "behind"
        assert f"clock is 60 s {where} the store's" in await until(told)
        assert await offset() == pytest.approx(ahead, abs=1)
        # Who is up is called all the same.
        assert (await stage.gateway.get("/v1/services")).status == 200

        stage.mom.clock_ahead_seconds = 25
        await until(lambda: _not(told))


async def _not(told):
    return not await told()


@pytest.mark.skipif(not _FAKETIME.exists(), reason="no clock can be moved here: apt-get install libfaketime")
@pytest.mark.parametrize("ahead", [-5, 5])
async def test_a_gateway_with_a_clock_of_its_own_tells_no_wrong_status(tmp_path: Path, ahead: int) -> None:
    """Whole: ahead, a result of a minute was `record-lost` before it was gone; behind, the call EXPIRED at once."""
    async with deployed(tmp_path, SUM) as one:
        one.gateway.kill()
        one.gateway.shift_clock(_FAKETIME, ahead)
        one.gateway.start()
        await one.ready()

        async def state(place: str) -> str:
            reply = await one.ask("GET", place)
            return str(reply.body["state"] if reply.status == 200 else reply.body["type"])

        async def until_not(place: str, *states: str) -> str:
            async def other() -> str | None:
                found = await state(place)
                return None if found in states else found

            return await until(other)

        for ttl in ({"Poste_Task_TTL": "4"}, {"Poste_Result_TTL": "1"}):
            reply = await one.ask("POST", f"/{SUM}/Add", {"a": 2, "b": 3}, Prefer="respond-async", **ttl)
            place = reply.headers["Location"]
            assert await until_not(place, "QUEUED", "RUNNING") == "SUCCEEDED"
        assert await until_not(place, "SUCCEEDED") == "/problems/gone"
