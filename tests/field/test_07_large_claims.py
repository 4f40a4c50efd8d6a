"""7: what one claim has Redis answer is bounded in bytes, and so is what a process holds of what it has claimed."""

from __future__ import annotations

from support.office import Office
from support.queue_post import Post
from support.waiting import until

from poste.domain.task import TaskState
from poste.queue.consumer import ClaimedTask

MEBIBYTE = 1024 * 1024


async def test_one_claim_tells_so_many_bytes(post: Post) -> None:
    """A thousand large ones were one answer, which took the memory of both sides, and so long that it was lost."""
    await post.join("me")
    keys = [await post.enqueue(request=bytes(size)) for size in (600, 600, 600, 1)]
    await post.take("me", len(keys))

    assert await post.claim_all("me", keys, most_bytes=1000) == ["run", "run", "later", "later"]
    # Nothing was done to the rest.
    assert await post.figures() == (2, 2, 0, 0)


async def test_a_process_holds_so_many_bytes_of_requests(office: Office) -> None:
    """All that may run at once was claimed, however large: 64 calls of 16 MB are a gigabyte."""
    held: list[int] = []
    running = 0

    async def handle(task: ClaimedTask) -> None:
        nonlocal running
        running += len(task.request)
        held.append(running)
        await office.at_once(task)
        running -= len(task.request)

    keys = await office.enqueue(8, request=bytes(MEBIBYTE))
    small = await office.enqueue(4)
    office.consume(handle, concurrency=8, max_claimed_bytes=2 * MEBIBYTE)
    await until(lambda: office.all_in(keys + small, TaskState.SUCCEEDED))

    assert max(held) < 3 * MEBIBYTE
    assert sorted(office.ran) == sorted(keys + small)


async def test_a_task_that_is_larger_than_all_that_may_be_held_runs(office: Office) -> None:
    """It would wait for ever, and all that came after it."""
    keys = await office.enqueue(3, request=bytes(1000), repeatable=False)
    office.consume(office.at_once, max_claimed_bytes=1)
    await until(lambda: office.all_in(keys, TaskState.SUCCEEDED))
