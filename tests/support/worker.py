"""A service's process in the test's own: a real gRPC server; its middleware and its queue as the test wants them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc.aio
from google.protobuf.message import Message
from testing.v1 import ledger_pb2

from poste.domain.policy import MethodPolicy
from poste.queue.consumer import ClaimedTask, SharedStore
from poste.queue.keys import Keys
from poste.rpc.channels import connect
from poste.rpc.credentials import Secured
from poste.runtime.settings import WorkerSettings
from poste.service.process import Ports, run
from poste.service.roads import MakeConsumer
from poste.service.servicer import ServedService, services_of
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc
from support import grpc_server
from support.redis_users import as_user, of_services

#: Nothing listens there (the discard port): a middleware that is away.
NOWHERE = "127.0.0.1:9"


class HandedConsumer:
    """Stands at the consumer's port: the test itself hands tasks over and plays the consumer's part."""

    def __init__(
        self,
        *,
        queue: str,
        settings: WorkerSettings,
        handle: Callable[[ClaimedTask], Awaitable[None]],
        live: Callable[[], bool],  # noqa: ARG002 - the test itself says what is handed over when
        concurrency: Callable[[], int | None],
        limits: Callable[[], Mapping[str, MethodPolicy]],
        store: SharedStore,  # noqa: ARG002 - what is handed over comes from no queue
    ) -> None:
        self.queue = queue
        self.limits = limits
        self.settings = settings
        self.concurrency = concurrency
        self.stopped = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self._handle = handle

    def ready(self) -> str | None:
        return None

    def stop(self) -> None:
        self.stopped.set()

    async def run(self) -> None:
        await self.stopped.wait()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def hand(self, task: ClaimedTask) -> asyncio.Task[None]:
        running = asyncio.create_task(self._run(task))
        task.go_on = lambda rest: self.tasks.append(asyncio.create_task(rest()))
        self.tasks.append(running)
        return running

    async def _run(self, task: ClaimedTask) -> None:
        await self._handle(task)


class FakeMom(mom_service_pb2_grpc.MomServiceServicer):
    """A middleware that keeps what it gets. `answer` decides what becomes of a batch of results."""

    def __init__(self) -> None:
        self.batches: list[list[mom_service_pb2.Completion]] = []
        self.registered: list[mom_service_pb2.RegisterServiceRequest] = []
        self.withdrawn: list[mom_service_pb2.WithdrawReplicaRequest] = []
        self.settings = mom_service_pb2.RegisterServiceResponse()
        self.answer: Callable[[list[mom_service_pb2.Completion], Any], Awaitable[list[int]]] = self._store

    @property
    def completions(self) -> list[mom_service_pb2.Completion]:
        return [completion for batch in self.batches for completion in batch]

    async def CompleteTasks(self, request: Any, context: Any) -> Any:  # noqa: N802 - the proto's name
        results = await self.answer(list(request.completions), context)
        self.batches.append(list(request.completions))
        return mom_service_pb2.CompleteTasksResponse(results=results)

    async def RegisterService(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - the proto's name
        self.registered.append(request)
        return self.settings

    async def WithdrawReplica(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - the proto's name
        self.withdrawn.append(request)
        return mom_service_pb2.WithdrawReplicaResponse()

    async def _store(self, completions: list[mom_service_pb2.Completion], _: Any) -> list[int]:
        return [mom_service_pb2.COMPLETE_RESULT_STORED] * len(completions)


@contextlib.asynccontextmanager
async def serving_mom(mom: FakeMom, port: int = 0) -> AsyncIterator[str]:
    """Serve it while the body runs; yields its target."""
    server = grpc.aio.server()
    mom_service_pb2_grpc.add_MomServiceServicer_to_server(mom, server)
    async with grpc_server.listening(server, port) as bound:
        yield f"127.0.0.1:{bound}"


class RunningWorker:
    """What a test needs to know of it."""

    def __init__(self, ports: Ports, channel: grpc.aio.Channel, stop: asyncio.Event, task: asyncio.Task[None]) -> None:
        self.target = f"127.0.0.1:{ports.grpc}"
        self.port = ports.grpc
        self.admin_url = f"http://127.0.0.1:{ports.admin}"
        self.channel = channel
        self.stop = stop
        self.task = task
        self.consumers: list[HandedConsumer] = []

    async def call(self, path: str, request: Message | bytes, *, timeout: float = 10, **more: Any) -> bytes:  # noqa: ASYNC109 - gRPC's own
        """Call a method; returns the bytes of its response."""
        raw = request if isinstance(request, bytes) else request.SerializeToString()
        answer: bytes = await self.channel.unary_unary(path)(raw, timeout=timeout, **more)
        return answer


def running_worker(*servicers: object, **more: Any) -> contextlib.AbstractAsyncContextManager[RunningWorker]:
    """Run a service's process while the body runs, and stop it in order; `more` as `running_services` takes it."""
    return running_services(services_of(servicers), **more)


@contextlib.asynccontextmanager
async def running_services(
    services: Sequence[ServedService],
    *,
    consumer: MakeConsumer | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    secured: Secured | None = None,
    **settings: Any,
) -> AsyncIterator[RunningWorker]:
    """The same, of services that no servicer describes."""
    made: list[HandedConsumer] = []

    def handed(**more: Any) -> HandedConsumer:
        made.append(HandedConsumer(**more))
        return made[-1]

    stop = asyncio.Event()
    listening: asyncio.Future[Ports] = asyncio.get_running_loop().create_future()
    fields = {"port": 0, "mom": NOWHERE, "grace_seconds": 2, **settings}
    if "redis_url" in fields:
        user = of_services([service.name for service in services], Keys(fields.get("key_prefix", "poste")))
        fields["redis_url"] = as_user(user, fields["redis_url"])
    task = asyncio.create_task(
        run(
            services,
            WorkerSettings(**fields),
            stop,
            listening=listening.set_result,
            consumer=consumer or handed,
            interceptors=interceptors,
        )
    )
    await asyncio.wait([listening, task], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    ports = listening.result()
    async with connect(f"127.0.0.1:{ports.grpc}", library=True, secured=secured) as channel:
        worker = RunningWorker(ports, channel, stop, task)
        worker.consumers = made
        try:
            yield worker
        finally:
            stop.set()
            await task


def claimed(method: str, request: Message | bytes, **changes: Any) -> ClaimedTask:
    """Return a task of the ledger service as a consumer would pass it on."""
    fields: dict[str, Any] = {
        "queue": "testing.v1.LedgerService",
        "key": "key",
        "token": "incarnation:1",
        "attempt": 1,
        "create_time": 0.0,
        "handled": lambda: None,
        "go_on": lambda _: None,
        **changes,
    }
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    return ClaimedTask(method=method, request=raw, **fields)


def line(text: str = "line", **more: Any) -> ledger_pb2.RecordRequest:
    """Return a request of the ledger service."""
    return ledger_pb2.RecordRequest(line=text, **more)
