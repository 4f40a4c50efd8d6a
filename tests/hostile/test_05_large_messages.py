"""Many careless peers that each send a middleware messages as large as there may be: it keeps within its memory."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import grpc.aio
from grpc_health.v1 import health_pb2
from support.deployment import SUM, Deployment, deployed
from support.standing import standing

from poste.v1 import mom_service_pb2 as pb

_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
_PEERS: Final = 16
_LARGE: Final = 16_000_000
#: A field that no question has.
_PADDING: Final = b"\xfa\x7f\x80\xc8\xd0\x07" + bytes(_LARGE)
_HEALTH: Final = "/grpc.health.v1.Health/"
_MOM: Final = "/poste.v1.MomService/"


def _task() -> bytes:
    task = pb.NewTask(service=SUM, method="Add", key="a" * 16, request=bytes(_LARGE))
    task.task_ttl_seconds = task.result_ttl_seconds = 60
    return pb.EnqueueTasksRequest(tasks=[task]).SerializeToString()


def _report() -> bytes:
    one = pb.Completion(service=SUM, key="a" * 16, token="b" * 16 + ":1", response=bytes(_LARGE))
    return pb.CompleteTasksRequest(completions=[one]).SerializeToString()


def _question() -> bytes:
    return pb.GetTaskRequest(service=SUM, key="a" * 16, wait_seconds=100).SerializeToString() + _PADDING


def _watch() -> bytes:
    return health_pb2.HealthCheckRequest().SerializeToString() + _PADDING


#: What is sent, and what becomes of it.
MESSAGES: Final[Mapping[str, tuple[str, Any, str]]] = {
    "tasks": (_MOM + "EnqueueTasks", _task, "OK"),
    "reports": (_MOM + "CompleteTasks", _report, "OK"),
    "questions": (_MOM + "GetTask", _question, "INVALID_ARGUMENT"),
    "streams": (_MOM + "WatchCatalogue", _watch, "INVALID_ARGUMENT"),
    "health": (_HEALTH + "Check", _watch, "INVALID_ARGUMENT"),
    "health-streams": (_HEALTH + "Watch", _watch, "INVALID_ARGUMENT"),
    # Services report again and again then.
    "reports-while-the-store-is-away": (_MOM + "CompleteTasks", _report, "UNAVAILABLE"),
}


@contextlib.asynccontextmanager
async def _peers(one: Deployment) -> AsyncIterator[list[grpc.aio.Channel]]:
    async with contextlib.AsyncExitStack() as stack:
        open_one = functools.partial(grpc.aio.insecure_channel, f"127.0.0.1:{one.moms[0].port}", options=_OPTIONS)
        yield [await stack.enter_async_context(open_one()) for _ in range(_PEERS)]


async def _code(channel: grpc.aio.Channel, path: str, message: bytes) -> str:
    """Send a message; returns the status, of a stream that stays the one of its first answer."""
    call = channel.unary_stream(path)(message, timeout=60)
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    call.cancel()
    return "OK"


async def test_a_middleware_stands_many_careless_peers(tmp_path: Path) -> None:
    """What gRPC reads by itself it reads from all at once; and each message that was refused stayed: a gigabyte."""
    async with deployed(tmp_path, SUM) as one, _peers(one) as channels:
        for name, (path, make, expected) in MESSAGES.items():
            if name == "reports-while-the-store-is-away":
                await asyncio.to_thread(one.redis.kill)
            message = make()
            async with standing(one) as stood:
                codes = await asyncio.gather(*(_code(channel, path, message) for channel in channels))
                assert Counter(codes) == {expected: _PEERS}, name
                await stood.others.calls(5)
