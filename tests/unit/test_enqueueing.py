"""How calls are sent to the middleware: many at a time, and past one that hangs."""

from __future__ import annotations

import asyncio

from support.waiting import until

from calculator.v1 import sum_pb2
from poste.rpc.schemas.schema import MethodSchema, fingerprint_of
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


class Keeping(Middleware):
    """One that accepts a call only once it keeps the schema that the call names; it keeps so many."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.hangs.set()
        self.room = room
        self.schemas: dict[str, bytes] = {}
        self.accepted: list[tuple[str, str]] = []

    async def EnqueueTasks(self, request, timeout):  # noqa: ASYNC109, N802 - as gRPC has it
        await super().EnqueueTasks(request, timeout)
        known = [not task.schema or task.schema in self.schemas for task in request.tasks]
        self.accepted += [
            (task.key, task.schema) for task, is_known in zip(request.tasks, known, strict=True) if is_known
        ]
        return pb.EnqueueTasksResponse(
            results=[pb.ENQUEUE_RESULT_ACCEPTED if one else pb.ENQUEUE_RESULT_SCHEMA_UNKNOWN for one in known]
        )

    async def KeepSchema(self, request, timeout):  # noqa: ARG002, ASYNC109, N802 - as gRPC has it
        kept = len(self.schemas) < self.room
        if kept:
            self.schemas[fingerprint_of(request.text)] = request.text
        return pb.KeepSchemaResponse(kept=kept)


SCHEMA = MethodSchema(sum_pb2.AddRequest.DESCRIPTOR, sum_pb2.AddResponse.DESCRIPTOR)


async def enqueued(middleware: Middleware, *keys: str) -> list[Acceptance]:
    enqueuer = Enqueuer(middleware)
    tasks = [pb.NewTask(key=key, schema=SCHEMA.fingerprint) for key in keys]
    said = await asyncio.gather(*(enqueuer.enqueue(task, SCHEMA) for task in tasks))
    await enqueuer.close()
    return said


async def test_a_schema_that_is_not_kept_yet_is_sent_once():
    """Else the first call under a new schema is refused, or each call brings the schema along."""
    middleware = Keeping(room=1)

    assert await enqueued(middleware, "a", "b") == [Acceptance.ACCEPTED] * 2
    assert middleware.schemas == {SCHEMA.fingerprint: SCHEMA.text}
    before = len(middleware.batches)
    assert await enqueued(middleware, "c") == [Acceptance.ACCEPTED]
    assert len(middleware.batches) == before + 1
    assert middleware.accepted == [(key, SCHEMA.fingerprint) for key in "abc"]


async def test_a_call_whose_schema_can_not_be_kept_is_kept_without():
    """Else a middleware that has no room for another schema refuses every call of it."""
    middleware = Keeping(room=0)

    assert await enqueued(middleware, "a") == [Acceptance.ACCEPTED]
    assert middleware.accepted == [("a", "")]
