"""The middleware, from a request to keep some tasks to its answer, over a connection whose Redis keeps all at once."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, Final

from support.deployment import SUM

from bench import counted
from calculator.v1 import sum_pb2
from poste.queue import node
from poste.queue.durability import Durability
from poste.queue.tasks import Tasks
from poste.v1 import mom_service_pb2 as pb
from poste_mom.methods.enqueue import EnqueueServicer
from poste_mom.queues.budgets import Budgets
from poste_mom.queues.schemas import Schemas
from poste_mom.queues.turns import Turns

#: As many as come together when 32 connections call.
_TOGETHER: Final = 16
_REQUEST: Final = sum_pb2.AddRequest(a=3.5, b=1).SerializeToString()


class _Connection(node._PreciseTcp):
    """A connection to a Redis that accepts whatever comes."""

    async def connect_check_health(self, *_: object, **__: object) -> None:
        """Be connected."""

    async def can_read(self, *_: object) -> bool:
        return False

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Keep nothing of it: it was spelt by then."""

    async def read_response(self, **_: object) -> Any:
        await asyncio.sleep(0)
        return [b"accepted"] * _TOGETHER


async def prepare() -> counted.Calls:
    client = node.open_node({})
    client.connection_pool.connection_class = _Connection
    tasks = Tasks(client)
    tasks._known.add(SUM)
    tasks._scripts._flags = True
    nothing: Any = None

    async def on_disk(_queue: str) -> Durability:
        return Durability.ON_REPLY

    async def free_bytes(_queue: str) -> int:
        return 2**30

    async def give(_queue: str, _count: int) -> None:
        """Note nothing: it never ends here."""

    health: Any = SimpleNamespace(durability=on_disk, free_bytes=free_bytes, give=give)
    catalogue: Any = counted.services()
    schemas, schema = Schemas(nothing, catalogue), catalogue.get(SUM).methods["Add"].schema.fingerprint
    schemas._seen[schema] = time.monotonic()
    servicer = EnqueueServicer(tasks, catalogue, health, Budgets(catalogue, health), schemas, turns=Turns(nothing))
    request = pb.EnqueueTasksRequest()
    for number in range(_TOGETHER):
        request.tasks.add(
            service=SUM, method="Add", key=f"0123456789ab{number:04}", request=_REQUEST, task_ttl_seconds=60,
            result_ttl_seconds=60, id_rest="i" * 58, request_id=f"0123456789-{number}", schema=schema,
        ).create_time.FromMilliseconds(int(time.time() * 1000))  # fmt: skip
    came = request.SerializeToString()

    async def call(calls: int) -> None:
        for _ in range(calls // _TOGETHER):
            answer = await servicer.EnqueueTasks(pb.EnqueueTasksRequest.FromString(came), nothing)
            if list(answer.results) != [pb.ENQUEUE_RESULT_ACCEPTED] * _TOGETHER:
                raise AssertionError(answer)
            answer.SerializeToString()

    return call


if __name__ == "__main__":
    counted.run(prepare)
