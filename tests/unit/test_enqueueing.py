"""How calls are sent to the middleware: many at a time, and past one that hangs."""

from __future__ import annotations

import asyncio

from support.waiting import until

from poste.v1 import mom_service_pb2 as pb
from poste_gateway.calls.enqueuer import Acceptance, Enqueuer


class Middleware:
    """Two replicas behind one channel, in turn: the first never answers, the second at once."""

    def __init__(self) -> None:
        self.stub = self
        self.batches: list[int] = []
        self.hangs = asyncio.Event()

    async def connected(self, _seconds: float) -> bool:
        return True

    async def EnqueueTasks(self, request, timeout):  # noqa: ASYNC109, N802 - as gRPC has it
        self.batches.append(len(request.tasks))
        if len(self.batches) == 1:
            await asyncio.wait_for(self.hangs.wait(), 10 * timeout)
        return pb.EnqueueTasksResponse(results=[pb.ENQUEUE_RESULT_ACCEPTED] * len(request.tasks))


async def test_calls_go_past_a_middleware_that_hangs():
    """One middleware of two that hangs would hold up the calls that come later, which the other could take."""
    middleware = Middleware()
    enqueuer = Enqueuer(middleware)
    first = [asyncio.create_task(enqueuer.enqueue(pb.NewTask(key=str(number)))) for number in range(10)]
    await until(lambda: middleware.batches == [10])
    later = await enqueuer.enqueue(pb.NewTask(key="later"))

    assert later is Acceptance.ACCEPTED
    assert not any(task.done() for task in first)
    middleware.hangs.set()
    assert set(await asyncio.gather(*first)) == {Acceptance.ACCEPTED}
    await enqueuer.close()


async def test_calls_that_come_together_go_together():
    """An RPC costs more than all that it carries."""
    middleware = Middleware()
    middleware.hangs.set()
    enqueuer = Enqueuer(middleware)
    await asyncio.gather(*(enqueuer.enqueue(pb.NewTask(key=str(number))) for number in range(100)))
    await enqueuer.close()

    assert len(middleware.batches) <= 3
