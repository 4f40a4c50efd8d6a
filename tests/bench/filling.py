"""Calls put into a queue at the middleware, which is the fastest way; and a queue emptied of whatever is in it."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Final

import redis.asyncio

from bench.programs import WrongRunError
from calculator.v1 import sum_pb2
from poste.rpc.channels import connect
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc

#: Calls in one RPC, and RPCs at once: as the gateway has it.
_BATCH: Final = 256
_FLIGHTS: Final = 4
_UNLINKED: Final = 1000
_TRY_SECONDS: Final = 20.0
#: Longer than any run.
_TTL_SECONDS: Final = 3600


async def fill(port: int, service: str, method: str, count: int) -> list[str]:
    """Have so many calls kept; returns their keys. The n-th adds n and 0.5.

    Args:
        port: The middleware's.
        service: Whose queue.
        method: Which takes two doubles.
        count: How many.

    Raises:
        WrongRunError: Not all were accepted.
    """
    keys: list[str] = []
    results: set[int] = set()
    async with connect(f"127.0.0.1:{port}", library=True) as channel:
        stub = mom_service_pb2_grpc.MomServiceStub(channel)
        await asyncio.wait_for(channel.channel_ready(), _TRY_SECONDS)

        async def fly() -> None:
            while (first := len(keys)) < count:
                size = min(_BATCH, count - first)
                # As long as the random part of an id, which is what Redis knows a task by.
                minted = [secrets.token_urlsafe(12) for _ in range(size)]
                keys.extend(minted)
                request = mom_service_pb2.EnqueueTasksRequest()
                for number, key in enumerate(minted, first):
                    task = request.tasks.add(
                        service=service,
                        method=method,
                        key=key,
                        request=sum_pb2.AddRequest(a=number, b=0.5).SerializeToString(),
                        task_ttl_seconds=_TTL_SECONDS,
                        result_ttl_seconds=_TTL_SECONDS,
                    )
                    task.create_time.FromMilliseconds(int(time.time() * 1000))
                answer = await stub.EnqueueTasks(request, timeout=_TRY_SECONDS)
                results.update(answer.results)

        async with asyncio.TaskGroup() as flights:
            for _ in range(_FLIGHTS):
                flights.create_task(fly())
    if results != {mom_service_pb2.ENQUEUE_RESULT_ACCEPTED}:
        raise WrongRunError(f"not all calls were accepted: {results}")
    return keys


async def mark_once(client: redis.asyncio.Redis, records: list[str]) -> None:
    """Have calls that wait be such as must not run twice, as if their method were not declared."""
    for begin in range(0, len(records), _UNLINKED):
        marks = client.pipeline(transaction=False)
        for record in records[begin : begin + _UNLINKED]:
            marks.hset(record, "n", "1")
        await marks.execute()


async def empty(client: redis.asyncio.Redis, pattern: str) -> None:
    """Remove every key that matches: a round must not find what the one before it left."""
    found: list[bytes] = []
    async for key in client.scan_iter(match=pattern, count=_UNLINKED):
        found.append(key)
        if len(found) == _UNLINKED:
            await client.unlink(*found)
            found.clear()
    if found:
        await client.unlink(*found)
