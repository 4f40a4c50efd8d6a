"""16: a handler that kills its process takes no call along that had not started, whatever may be run twice or not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import redis
from support.deployment import LEDGER, deployed
from support.office import Office
from support.queue_post import Post
from support.waiting import until
from support.worker import FakeMom, claimed, line, running_worker, serving_mom
from testing.v1 import ledger_pb2, ledger_pb2_grpc

from poste.domain.task import TaskState
from poste.queue.consumer import ClaimedTask, Handle
from poste.queue.operators import Operators


@pytest.mark.parametrize("on_disk", [True, False], ids=["on disk", "not on disk"])
async def test_what_was_claimed_and_has_not_begun_is_proved_not_to_have_run(post: Post, *, on_disk: bool) -> None:
    """Claimed together, all but the first would be DEAD if that killed its process: which ran would be unknown."""
    await post.join("me")
    once = [await post.enqueue(repeatable=False) for _ in range(3)]
    often = [await post.enqueue() for _ in range(2)]
    keys = [once[0], often[0], once[1], often[1], once[2]]
    await post.take("me", len(keys))

    assert [await post.claim("me", key, on_disk=on_disk) for key in keys] == ["run"] * 5
    # Also if it is asked again, for its answer was lost.
    assert [await post.begin("me", once[0]) for _ in range(2)] == ["begun"] * 2
    assert [await post.state(key) for key in once] == [TaskState.RUNNING, TaskState.QUEUED, TaskState.QUEUED]
    assert (await post.record(once[1])).attempt == 0

    report = await post.reap("me")

    assert report.reaped == {"dead": 1, "crashed": 2, "requeued": 2}
    assert {await post.state(key) for key in once[1:]} == {TaskState.QUEUED}


async def test_what_has_not_begun_is_cancelled_at_once(post: Post) -> None:
    """It waits behind others that its process has claimed, and its client had to wait until its turn came."""
    await post.join("me")
    key = await post.enqueue(repeatable=False)
    await post.take("me")
    await post.claim("me", key)

    reading = await post.tasks.cancel(post.queue, key)

    assert reading.record is not None
    assert reading.record.state is TaskState.CANCELLED
    assert await post.begin("me", key) == "drop"
    assert await post.figures() == (0, 0, 0, 0)


async def test_each_has_begun_before_the_next_may(office: Office) -> None:
    """What may have begun and has not is what a crash makes DEAD for nothing."""
    may_have_begun: list[int] = []

    async def handle(task: ClaimedTask) -> None:
        # At its first line nothing behind it may have begun.
        may_have_begun.append(started())
        task.begin()
        await office.release.wait()
        await office.report(task, "ok")

    def started() -> int:
        with redis.Redis.from_url(office.settings.redis_url) as store:
            return int(store.hget(office.keys.counts, "+started") or 0)

    keys = await office.enqueue(4, repeatable=False)
    office.consume(handle)
    await until(lambda: len(may_have_begun) == len(keys))
    office.release.set()
    await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))

    assert may_have_begun == [1, 2, 3, 4]


async def test_what_may_run_twice_does_not_wait_for_one_that_does_not_begin(office: Office) -> None:
    """A handler may wait for a process of its own before it begins, for as long as it takes."""

    async def handle(task: ClaimedTask) -> None:
        if task.method == "Slow":
            await office.release.wait()
        await office.at_once(task)

    slow = await office.enqueue(2, method="Slow", repeatable=False)
    others = await office.enqueue(8)
    office.consume(handle)
    await until(lambda: office.all_in(others, TaskState.SUCCEEDED))
    await until(lambda: office.all_in(slow[:1], TaskState.RUNNING))
    assert await office.state(slow[1]) is TaskState.QUEUED

    office.release.set()
    await until(lambda: office.all_in(slow, TaskState.SUCCEEDED))


async def test_a_stop_gives_back_what_was_to_begin_later(office: Office) -> None:
    """What stands in a process' list and never began would be lost to the others until its lease is over, or DEAD."""
    keys = await office.enqueue(3, repeatable=False)
    consumer = office.consume(_not_beginning(office), grace_seconds=0.1)
    await until(lambda: office.ran == keys[:1])
    await office.stop(consumer)

    assert [await office.state(key) for key in keys] == [TaskState.DEAD, TaskState.QUEUED, TaskState.QUEUED]


async def test_a_pause_puts_back_what_was_to_begin_later(office: Office) -> None:
    """A paused queue's calls would be started all the same, one after the other."""
    keys = await office.enqueue(3, repeatable=False)
    office.consume(_not_beginning(office))
    await until(lambda: office.ran == keys[:1])
    operators = Operators(office.client)
    await operators.pause(office.queue, paused=True)
    office.release.set()
    await until(lambda: office.all_in(keys[:1], TaskState.SUCCEEDED))
    (incarnation,) = await office.incarnations()
    await until(lambda: _is_empty(office, incarnation), what="its list is empty")
    assert await office.all_in(keys[1:], TaskState.QUEUED)

    await operators.pause(office.queue, paused=False)
    await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))
    assert sorted(office.ran) == sorted(keys)


class Watching(ledger_pb2_grpc.LedgerServiceServicer):
    """Handlers of both kinds that note what was said before them."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def Record(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's
        self.said.append(f"called {request.line}")
        return ledger_pb2.RecordResponse()

    def Legacy(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - the proto's
        self.said.append(f"called {request.line}")
        time.sleep(0.05)
        return ledger_pb2.RecordResponse()


@pytest.mark.parametrize("method", ["Record", "Legacy"], ids=["async", "def"])
async def test_a_handler_begins_right_after_it_is_said(method: str) -> None:
    """Said too soon, it is claimed with others that never began; said too late or never, nothing else is claimed."""
    servicer, mom = Watching(), FakeMom()
    async with serving_mom(mom) as target, running_worker(servicer, mom=target) as worker:
        (consumer,) = worker.consumers
        task = claimed(method, line("a"), began=lambda: servicer.said.append("begins a"))
        consumer.hand(task)
        await until(lambda: mom.completions)

    assert servicer.said == ["begins a", "called a"]


def _not_beginning(office: Office) -> Handle:
    """A handle that waits before its handler begins, until the office releases it."""

    async def handle(task: ClaimedTask) -> None:
        office.ran.append(task.key)
        await office.release.wait()
        await office.report(task, "ok")

    return handle


async def _is_empty(office: Office, incarnation: str) -> bool:
    return await office.client.llen(office.keys.taken(incarnation)) == 0


async def test_what_had_not_started_is_run_by_the_next_process(tmp_path: Path) -> None:
    """One call that kills its process made those DEAD that were claimed together with it, though none had started."""
    async with deployed(tmp_path, LEDGER) as one:
        await one.up(LEDGER)
        worker = one.parts[-1]
        worker.kill()
        path = f"/{LEDGER}/Record"
        lines = [str(number) for number in range(40)]
        calls = [{"line": line, "crash": line == "20"} for line in lines]
        answers = [await one.ask("POST", path, call, Prefer="respond-async") for call in calls]
        assert {answer.status for answer in answers} == {202}
        worker.start()
        await until(lambda: not worker.alive)
        worker.start()
        ended = await one.ended([answer.headers["Location"] for answer in answers])

    runs = dict(zip(lines, one.runs(lines, "Record"), strict=True))
    dead = [line for line, task in zip(lines, ended, strict=True) if task["state"] != "SUCCEEDED"]
    assert {ended[int(line)]["reason"] for line in dead} == {"outcome-unknown"}
    # Nothing ran twice. What is unknown had started, but for one that was just about to.
    assert max(runs.values()) == 1
    assert "20" in dead
    assert len([line for line in dead if not runs[line]]) <= 1
