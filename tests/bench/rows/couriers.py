"""One courier of many services without the library: what it costs while they rest, and how soon it notices a call."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc.aio
from google.protobuf import descriptor_pb2
from support import described, grpc_server
from support.waiting import until

from bench import procfs, stage
from bench.figures import Round, Row, Sample, Target
from bench.programs import WrongRunError
from bench.sizes import Sizes
from poste.queue.catalogue_store import CatalogueStore
from poste.queue.keys import QueueKeys
from poste.rpc.catalogue import weigh
from poste.rpc.channels import connect
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc

ROWS = (
    Row("courier-threads", "a courier of 1,000 services: threads more than with none", Target(at_most=8), "threads"),
    Row("courier-descriptors", "the same: file descriptors more for each service", Target(at_most=1.2), "fds"),
    Row("courier-memory", "the same: resident memory more for each service", None, "kB"),
    Row("courier-rest", "the same: processor time while there is nothing to do", Target(at_most=0.1), "cores"),
    Row("courier-notices", "the same: a call's way from acceptance to a queue at rest to its service", None, "ms"),
)
_REST_SECONDS: Final = 10.0
_SETTLE_SECONDS: Final = 8.0
_CALLS: Final = 20
_METHOD: Final = "Call"
_TRY_SECONDS: Final = 20.0


class _AnyService(grpc.GenericRpcHandler):
    """Has whatever service is called but one of health, and notes when that is."""

    def __init__(self) -> None:
        self.called: dict[bytes, float] = {}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return None if details.method.startswith("/grpc.") else grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, _: Any) -> bytes:
        self.called[request] = time.monotonic()
        return request


async def couriers(sizes: Sizes) -> AsyncIterator[Round]:
    settings = {"max_catalogue_bytes": 1 << 30, "max_replicas": 5000}
    many = sizes.services
    for _ in range(sizes.rounds):
        async with _served() as (called, port), stage.poste(mom_settings=settings, couriers=1) as one:
            courier = stage.pid(one.couriers[0])
            await asyncio.sleep(_SETTLE_SECONDS)
            none = _taken(courier)
            async with stage.client(one.redis) as client:
                await _ship(client, many, port)
                await until(lambda: _at_all(client, many), seconds=300, what="the courier is at every queue")
            await asyncio.sleep(_SETTLE_SECONDS)
            more = {name: figure - none[name] for name, figure in _taken(courier).items()}
            busy = await _busy(
                {"courier": courier, "Redis": stage.pid(one.redis), "middleware": stage.pid(one.moms[0])}
            )
            noticed = [await _notice(one.moms[0].port, called, at) for at in range(0, many, max(1, many // _CALLS))]
            yield {
                "courier-threads": Sample([more["threads"]], {"services": many}),
                "courier-descriptors": Sample([more["descriptors"] / many]),
                "courier-memory": Sample([more["kB"] / many], {"MB in all": (more["kB"] + none["kB"]) / 1000}),
                "courier-rest": Sample([busy.pop("courier")], busy),
                "courier-notices": Sample(noticed, {"slowest ms": max(noticed)}),
            }


@contextlib.asynccontextmanager
async def _served() -> AsyncIterator[tuple[dict[bytes, float], int]]:
    """Serve all of the services by one server; yields when each request came, and where."""
    server, anything = grpc.aio.server(), _AnyService()
    server.add_generic_rpc_handlers((anything,))
    async with grpc_server.listening(server) as port:
        yield anything.called, port


async def _ship(client: Any, services: int, port: int) -> None:
    store = CatalogueStore(client)
    for number in range(services):
        entry = _entry(number, f"127.0.0.1:{port}")
        entry.weight = weigh(entry.file_descriptor_set)
        await store.ship(entry.name, entry.SerializeToString())


async def _at_all(client: Any, services: int) -> bool:
    leases = client.pipeline(transaction=False)
    for number in range(services):
        leases.zcard(QueueKeys(_name(number)).leases)
    return all(await leases.execute())


def _taken(pid: int) -> dict[str, float]:
    """Return what a process has of the host."""
    return {
        "threads": len([*Path(f"/proc/{pid}/task").iterdir()]),
        "descriptors": len([*Path(f"/proc/{pid}/fd").iterdir()]),
        "kB": procfs.memory_mb(pid)["Rss"] * 1000,
    }


async def _busy(pids: dict[str, int]) -> dict[str, float]:
    """Return what share of a core each process takes."""
    before = {name: procfs.cpu_seconds(pid) for name, pid in pids.items()}
    await asyncio.sleep(_REST_SECONDS)
    return {name: (procfs.cpu_seconds(pid) - before[name]) / _REST_SECONDS for name, pid in pids.items()}


async def _notice(mom: int, called: dict[bytes, float], number: int) -> float:
    """Have one call kept; returns the milliseconds from its acceptance until its service was called."""
    request = secrets.token_bytes(8)
    async with connect(f"127.0.0.1:{mom}", library=True) as channel:
        stub = mom_service_pb2_grpc.MomServiceStub(channel)
        enqueue = mom_service_pb2.EnqueueTasksRequest()
        task = enqueue.tasks.add(
            service=_name(number),
            method=_METHOD,
            key=secrets.token_urlsafe(12),
            request=request,
            task_ttl_seconds=60,
            result_ttl_seconds=60,
        )
        task.create_time.FromMilliseconds(int(time.time() * 1000))
        answer = await stub.EnqueueTasks(enqueue, timeout=_TRY_SECONDS, wait_for_ready=True)
        accepted = time.monotonic()
    if [*answer.results] != [mom_service_pb2.ENQUEUE_RESULT_ACCEPTED]:
        raise WrongRunError(f"a call was not accepted: {answer.results}")
    await until(lambda: request in called, what="its delivery")
    return max(0.0, called[request] - accepted) * 1000


def _name(number: int) -> str:
    return f"c{number}.v1.Things"


def _entry(number: int, target: str) -> Any:
    package = f"c{number}.v1"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    described.field(file.message_type.add(name="Thing"), "id")
    described.service(file, "Things", {_METHOD: (f".{package}.Thing", f".{package}.Thing")})
    return described.entry(described.pool_of(file), _name(number), target, library=False)
