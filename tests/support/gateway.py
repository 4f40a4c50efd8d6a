"""A gateway in this process, with a middleware and services at real ports whose behaviour a test chooses."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import grpc
import grpc.aio
from google.rpc import status_pb2

from poste.domain.task_id import TaskIds
from poste.rpc.channels import NOT_RUN
from poste.rpc.servers import Health, bind, new_server
from poste.runtime import secret_files
from poste.runtime.settings import GatewaySettings
from poste.v1 import catalogue_pb2, mom_service_pb2_grpc, task_pb2
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.__main__ import running
from support import shop
from support.operating import secret_file
from support.ports import free_port
from support.waiting import until

Behaviour = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


class FakeMom(mom_service_pb2_grpc.MomServiceServicer):
    """The middleware, with a dict for a store."""

    def __init__(self, *entries: catalogue_pb2.CatalogueService) -> None:
        self.entries = list(entries)
        self.changed = asyncio.Event()
        self.tasks: dict[str, task_pb2.Task] = {}
        self.requests: dict[str, pb.NewTask] = {}
        #: How many EnqueueTasks have come; what each brought that was let in, and what it is to say: the store is not
        #: touched unless ACCEPTED.
        self.knocks = 0
        self.batches: list[int] = []
        self.results: list[pb.EnqueueResult.ValueType] = []
        #: How long calls wait for their turn, by service.
        self.turns: dict[str, float] = {}
        #: Answers of EnqueueTasks that are lost: True after keeping the tasks, False before.
        self.losses: list[bool] = []
        self.refuses_key = False
        self.away = False
        self.clock_ahead_seconds = 0.0
        self.store_id = "store"
        #: What each GetTask was to wait, and whether those that wait are never answered.
        self.waits: list[float] = []
        self.silent = False
        self.queues: list[pb.Queue] = []
        #: Which queue each ListQueues was for, how many are being answered, and what holds up answers that are made.
        self.looks: list[str] = []
        self.looking = 0
        self.look_gate = asyncio.Event()
        self.look_gate.set()
        self.gate = asyncio.Event()
        self.gate.set()

    def announce(self, *entries: catalogue_pb2.CatalogueService) -> None:
        self.entries = list(entries)
        self._wake()

    def change(self, key: str, **fields: Any) -> None:
        """Change a task's record."""
        self.tasks[key].MergeFrom(task_pb2.Task(**fields))
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def _stamp(self, message: Any) -> None:
        message.read_time.FromNanoseconds(int((time.time() + self.clock_ahead_seconds) * 1e9))

    async def _check(self, context: grpc.aio.ServicerContext) -> None:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "", trailing_metadata=((NOT_RUN, "1"),))

    async def EnqueueTasks(self, request, context):  # noqa: N802
        await self._check(context)
        self.knocks += 1
        await self.gate.wait()
        self.batches.append(len(request.tasks))
        loss = self.losses.pop(0) if self.losses else None
        if loss is False:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
        results, first_ids = [], {}
        for place, task in enumerate(request.tasks):
            result = self.results.pop(0) if self.results else pb.ENQUEUE_RESULT_ACCEPTED
            first = self.requests.get(task.key)
            if task.request_digest and first is not None and first.id_rest != task.id_rest:
                same = first.request_digest == task.request_digest
                result = pb.ENQUEUE_RESULT_KNOWN if same else pb.ENQUEUE_RESULT_KEY_REUSED
                first_ids.update({place: first.id_rest} if same else {})
            results.append(result)
            if result == pb.ENQUEUE_RESULT_ACCEPTED and task.key not in self.tasks:
                expire = task.create_time.ToNanoseconds() + task.task_ttl_seconds * 10**9
                record = task_pb2.Task(
                    service=task.service,
                    method=task.method,
                    key=task.key,
                    state=task_pb2.TASK_STATE_QUEUED,
                    create_time=task.create_time,
                    response_field=task.response_field,
                )
                record.expire_time.FromNanoseconds(expire)
                self.tasks[task.key] = record
                self.requests[task.key] = task
        if loss:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
        self._wake()
        return pb.EnqueueTasksResponse(results=results, first_ids=first_ids, turn_seconds=self.turns)

    async def GetTask(self, request, context):  # noqa: N802
        await self._check(context)
        self.waits.append(request.wait_seconds)
        if self.silent and request.wait_seconds:
            await asyncio.Event().wait()
        end = time.monotonic() + request.wait_seconds
        while True:
            changed = self.changed
            task = self.tasks.get(request.key)
            left = end - time.monotonic()
            if task is None or task.state > task_pb2.TASK_STATE_RUNNING or left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), left)
        answer = pb.GetTaskResponse(task=task)
        self._stamp(answer)
        return answer

    async def ReadClock(self, _request, context):  # noqa: N802
        await self._check(context)
        answer = pb.ReadClockResponse()
        self._stamp(answer)
        return answer

    async def CancelTask(self, request, context):  # noqa: N802
        await self._check(context)
        task = self.tasks.get(request.key)
        if task is not None and task.state == task_pb2.TASK_STATE_QUEUED:
            task.state = task_pb2.TASK_STATE_CANCELLED
        elif task is not None and task.state == task_pb2.TASK_STATE_RUNNING:
            task.cancel_requested = True
        answer = pb.CancelTaskResponse(task=task)
        self._stamp(answer)
        return answer

    async def ListQueues(self, request, context):  # noqa: N802
        self.looks.append(request.queue)
        await self._check(context)
        # As the real one: of a service that nothing was ever queued for, too.
        found = {entry.name: pb.Queue(name=entry.name) for entry in self.entries} | {
            one.name: one for one in self.queues
        }
        answer = pb.ListQueuesResponse(queues=[one for name, one in found.items() if request.queue in ("", name)])
        self.looking += 1
        try:
            await self.look_gate.wait()
        finally:
            self.looking -= 1
        return answer

    async def PauseQueue(self, request, context):  # noqa: N802
        await self._check(context)
        self.queues = [pb.Queue(name=request.queue, paused=True)]
        return pb.PauseQueueResponse()

    async def WatchCatalogue(self, _request, context):  # noqa: N802
        if self.refuses_key:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another key")
        sent = set()
        while True:
            changed = self.changed
            names = {entry.name for entry in self.entries}
            # What did not change is sent again, which does no harm.
            yield pb.WatchCatalogueResponse(services=self.entries, store_id=self.store_id, removed=sent - names)
            sent = names
            await changed.wait()

    async def CompleteTasks(self, request, context):  # noqa: N802
        raise NotImplementedError

    async def RegisterService(self, request, context):  # noqa: N802
        raise NotImplementedError


@dataclass
class Shop:
    """One replica of the shop; counts what ran."""

    port: int
    server: grpc.aio.Server
    health: Health
    ran: list[str] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def serving_mom(mom: FakeMom, port: int = 0) -> AsyncIterator[int]:
    server = new_server()
    mom_service_pb2_grpc.add_MomServiceServicer_to_server(mom, server)
    health = Health(server)
    bound = bind(server, "127.0.0.1", port)
    await server.start()
    await health.serving()
    try:
        yield bound
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def serving_shop(behaviour: Behaviour, port: int = 0) -> AsyncIterator[Shop]:
    """Run a replica of the shop; every method of it behaves so."""
    server = new_server()
    replica = Shop(0, server, Health(server, shop.NAME))

    def handler(name: str) -> Any:
        async def handle(request: Any, context: grpc.aio.ServicerContext) -> Any:
            replica.ran.append(name)
            replica.metadata.append(dict(context.invocation_metadata() or ()))
            return await behaviour(request, context)

        return shop.method_handler(handle)

    shop.add_to_server(server, {name: handler(name) for name in ("Place", "Put", "Quote")})
    replica.port = bind(server, "127.0.0.1", port)
    await server.start()
    await replica.health.serving()
    try:
        yield replica
    finally:
        await server.stop(None)


@dataclass
class Reply:
    status: int
    headers: Any
    body: Any
    text: str


class Gateway:
    """A running gateway, as its client."""

    def __init__(
        self, port: int, session: aiohttp.ClientSession, ids: TaskIds, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.session = session
        self.ids = ids
        #: What each request brings besides.
        self.headers = headers
        #: Where it tells its metrics.
        self.admin_port = 0

    async def metrics(self) -> str:
        """Read its metrics."""
        async with self.session.get(f"http://127.0.0.1:{self.admin_port}/metrics") as response:
            return await response.text()

    async def ask(self, verb: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Send a request; `body` is JSON, or bytes as they are. Header names have `_` for `-`."""
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        data = body if isinstance(body, bytes) or body is None else aiohttp.JsonPayload(body)
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(verb, self.url + path, data=data, headers=sent) as response:
            raw = await response.read()
            is_json = response.content_type.endswith(("/json", "+json"))
            parsed = await response.json(content_type=None) if is_json and raw else None
            return Reply(response.status, response.headers, parsed, raw.decode())

    async def post(self, path: str, body: Any = None, **headers: str) -> Reply:
        return await self.ask("POST", path, {} if body is None else body, **headers)

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.ask("GET", path, **headers)

    @contextlib.asynccontextmanager
    async def other(self, address: str) -> AsyncIterator[Gateway]:
        """Be another client, who comes from that address of the host."""
        connector = aiohttp.TCPConnector(limit=0, local_addr=(address, 0))
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Gateway(self.port, session, self.ids, self.headers)

    async def available(
        self,
        *,
        name: str = shop.NAME,
        availability: str = "up",
        ready: int | None = None,
        queueable: bool | None = None,
    ) -> None:
        """Wait until a service is seen so."""

        async def look() -> bool:
            services = (await self.get("/v1/services")).body["services"]
            for one in services:
                if one["name"] == name:
                    seen = one["availability"], one["replicas"]["ready"], one["queueable"]
                    wanted = availability, ready, queueable
                    return all(want in (None, is_) for want, is_ in zip(wanted, seen, strict=True))
            return False

        await until(look, what=f"{name} {availability}")


@contextlib.asynccontextmanager
async def running_gateway(
    folder: Path,
    mom_port: int,
    *,
    wait: bool = True,
    headers: Mapping[str, str] = MappingProxyType({}),
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """Run a gateway; waits until it is ready unless told otherwise. Its clients' requests bring `headers`."""
    key_file = folder / "id.key"
    settings.setdefault("operator_token_file", secret_file(folder / "operator.token"))
    settings.setdefault("admin_port", free_port())
    chosen = {"port": 0, "mom": f"127.0.0.1:{mom_port}", "grace_seconds": 1.0, **settings}
    loaded = GatewaySettings(id_key_file=key_file, **chosen)
    async with running(loaded) as port, aiohttp.ClientSession() as session:
        gateway = Gateway(port, session, TaskIds(secret_files.id_key(key_file)), headers)
        gateway.admin_port = loaded.admin_port or 0
        if wait:

            async def ready() -> bool:
                return (await gateway.get("/readyz")).status == 200

            await until(ready, what="the gateway")
        yield gateway


@dataclass
class Stage:
    """A gateway, its middleware, and the replicas of the shop."""

    gateway: Gateway
    mom: FakeMom
    shops: list[Shop]


@contextlib.asynccontextmanager
async def staged(
    folder: Path, *behaviours: Behaviour, entry: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Stage]:
    """Run all of it: one replica of the shop for each behaviour, none if there is none."""
    async with contextlib.AsyncExitStack() as stack:
        shops = [await stack.enter_async_context(serving_shop(one)) for one in behaviours]
        mom = FakeMom(shop.entry(*(one.target for one in shops), **(entry or {})))
        mom_port = await stack.enter_async_context(serving_mom(mom))
        gateway = await stack.enter_async_context(running_gateway(folder, mom_port, **settings))
        if shops:
            await gateway.available(ready=len(shops))
        yield Stage(gateway, mom, shops)


async def answer(request: Any, _: grpc.aio.ServicerContext) -> Any:
    """A handler that answers."""
    return shop.Receipt(number=7, total=request.a_double, note=request.a_string)


def fail(code: grpc.StatusCode, text: str = "", *, trailers: Iterable[tuple[str, Any]] = ()) -> Behaviour:
    """A handler that ends with a status."""

    async def behave(_: Any, context: grpc.aio.ServicerContext) -> Any:
        await context.abort(code, text, trailing_metadata=tuple(trailers))

    return behave


def fail_richly(status: status_pb2.Status) -> Behaviour:
    """A handler that ends with a status that has details."""
    code = next(one for one in grpc.StatusCode if one.value[0] == status.code)
    return fail(code, status.message, trailers=[("grpc-status-details-bin", status.SerializeToString())])


async def hang(_: Any, __: grpc.aio.ServicerContext) -> Any:
    """A handler that never answers."""
    await asyncio.Event().wait()
