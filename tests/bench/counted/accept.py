"""The gateway, from a request to its answer, while the service is away and the middleware keeps all at once."""

from __future__ import annotations

import asyncio
from typing import Any

from support.deployment import SUM

from bench import counted
from bench.counted.connections import Connections
from bench.counted.gateway import server
from poste.upstream.replica_pool import ReplicaPool
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.calls.enqueuer import Enqueuer


class _Mom:
    def __init__(self) -> None:
        self.stub = self

    async def connected(self, _seconds: float) -> bool:
        return True

    async def EnqueueTasks(self, request: pb.EnqueueTasksRequest, **_: object) -> pb.EnqueueTasksResponse:  # noqa: N802 - gRPC's name
        request.SerializeToString()
        await asyncio.sleep(0)
        return pb.EnqueueTasksResponse(results=[pb.ENQUEUE_RESULT_ACCEPTED] * len(request.tasks))


async def prepare() -> counted.Calls:
    mom: Any = _Mom()
    pool = ReplicaPool(SUM, asyncio.get_running_loop().create_task)
    # Nowhere to look for replicas, and no look at the names.
    pool._task.cancel()
    return Connections(server(pool, Enqueuer(mom)), status=202, ending=b'"attempt":0}').call


if __name__ == "__main__":
    counted.run(prepare)
