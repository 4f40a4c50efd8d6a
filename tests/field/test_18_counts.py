"""What is counted adds up, and an error says as much by one road as by the other."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from support.linked import linked
from support.queue_post import Post
from support.worker import FakeMom, claimed, line, running_worker, serving_mom
from testing.v1 import ledger_pb2_grpc

from poste.rpc.statuses import status_of
from poste.upstream.failure import Failure
from poste.upstream.outgoing_call import OutgoingCall
from poste_mom.messages import listings


async def test_what_ended_is_no_more_than_what_came_and_was_replayed(post: Post) -> None:
    """`ended` beyond `enqueued` reads as if tasks had ended twice: a replay would look like a defect."""
    await post.join("me")
    key = await post.enqueue()
    for run in range(1, 4):
        assert await post.take("me") == [key]
        assert await post.claim("me", key, run) == "run"
        post.retry = type(post.retry)(max_attempts=1)
        assert await post.complete("me", key, "retry", seq=run) == "dead"
        if run < 3:
            # Asked for again, as after a lost answer, it is one replay.
            for _ in range(2):
                assert await post.operators.replay(post.queue, [key]) == ["done"]

    queue = listings.queue(await post.queues.figures(post.queue), max_held_bytes=0)
    assert (queue.enqueued, queue.replayed, queue.ended) == (1, 2, 3)


class Wordy(ledger_pb2_grpc.LedgerServiceServicer):
    """Says what went wrong at length."""

    async def Look(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.line * 200_000)


@pytest.mark.parametrize("letter", ["x", "\N{POSTBOX}"])
async def test_a_long_error_text_is_as_long_by_either_road(letter: str) -> None:
    """A client would see another error while the service is away than while it is up."""
    mom = FakeMom()
    async with (
        serving_mom(mom) as target,
        running_worker(Wordy(), mom=target) as worker,
        linked(worker.target) as replica,
    ):
        path, request = "/testing.v1.LedgerService/Look", line(letter)
        by_link = await replica.call(OutgoingCall(path, request.SerializeToString(), "id"), 10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await worker.call(path, request)
        await worker.consumers[0].hand(claimed("Look", request))

    assert isinstance(by_link, Failure)
    said = [by_link.status, status_of(caught.value), mom.completions[0].error]
    assert [one.code for one in said] == [grpc.StatusCode.FAILED_PRECONDITION.value[0]] * 3
    assert said[0].message == said[1].message == said[2].message
    assert 100 < len(said[0].message) < 10_000
    # Who reads it sees that it was cut.
    assert said[0].message.endswith("…")
