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


async def test_one_call_claims_one_at_most_that_must_not_run_twice(post: Post) -> None:
    """Claimed together, all but the first would be DEAD if that killed its process: nobody could tell what ran."""
    await post.join("me")
    once = [await post.enqueue(repeatable=False) for _ in range(3)]
    often = [await post.enqueue() for _ in range(2)]
    keys = [once[0], often[0], once[1], often[1], once[2]]
    await post.take("me", len(keys))

    fixed = [post.keys.leases, post.keys.taken("me"), post.keys.counts, post.keys.dead, post.keys.ready]
    arguments = [part for seq, key in enumerate(keys, 1) for part in (key, seq)]
    for _ in range(2):
        # Also if it is asked again, for its answer was lost.
        _, *results = await post.scripts.run(
            "claim", [*fixed, *map(post.keys.record, keys)], ["me", 0, 0, 0, 1, *arguments]
        )
        assert [result[0] for result in results] == [b"run", b"run", b"later", b"run", b"later"]
    assert {await post.state(key) for key in (once[1], once[2])} == {TaskState.QUEUED}

    report = await post.reap("me")

    assert report.reaped == {"dead": 1, "crashed": 2, "requeued": 2}


async def test_each_has_begun_before_the_next_is_claimed(office: Office) -> None:
    """What is claimed and has not begun is what a crash makes DEAD for nothing."""
    claimed_when_begun: list[int] = []

    async def handle(task: ClaimedTask) -> None:
        # At its first line nothing behind it is claimed yet.
        claimed_when_begun.append(running())
        task.begin()
        await office.release.wait()
        await office.report(task, "ok")

    def running() -> int:
        with redis.Redis.from_url(office.settings.redis_url) as store:
            return int(store.hget(office.keys.counts, "running") or 0)

    keys = await office.enqueue(4, repeatable=False)
    office.consume(handle)
    await until(lambda: len(claimed_when_begun) == len(keys))
    office.release.set()
    await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))

    assert claimed_when_begun == [1, 2, 3, 4]


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
    assert [await office.state(key) for key in slow] == [TaskState.RUNNING, TaskState.QUEUED]

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
    # Nothing ran twice. What is unknown had started, but for one that may just have been claimed.
    assert max(runs.values()) == 1
    assert "20" in dead
    assert len([line for line in dead if not runs[line]]) <= 1
