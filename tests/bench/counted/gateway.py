"""The gateway, from a request's bytes to its answer's, with a link whose other end answers at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, Final

from support.deployment import SUM

from bench import counted
from bench.counted.connections import Connections
from calculator.v1 import sum_pb2
from poste.domain import id_keys
from poste.domain.task_id import TaskIds
from poste.upstream.link import Link
from poste.upstream.replica import Replica
from poste.upstream.replica_pool import ReplicaPool
from poste.v1 import link_service_pb2 as pb
from poste_gateway.access.audit import AuditLog
from poste_gateway.access.client_keys import ClientKeys
from poste_gateway.access.sessions import Sessions
from poste_gateway.access.tokens import Tokens
from poste_gateway.calls.call import CallServices
from poste_gateway.calls.offload import Offload
from poste_gateway.catalogue.route_table import RouteTable
from poste_gateway.dispatcher import Dispatcher
from poste_gateway.http import server as http_server
from poste_gateway.http.callback_urls import CallbackUrls
from poste_gateway.http.door import Door
from poste_gateway.http.hosts import Hosts

_RESPONSE: Final = sum_pb2.AddResponse(result=4.5).SerializeToString()


class _Stream:
    """A link's other end: what is written is read, with its answers, as soon as may be."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._frames.put_nowait(b"")

    async def write(self, frame: pb.ConnectRequest) -> None:
        answers = [pb.LinkAnswer(number=call.number, response=_RESPONSE) for call in frame.calls]
        frame.SerializeToString()
        self._frames.put_nowait(pb.ConnectResponse(answers=answers).SerializeToString())

    async def read(self) -> pb.ConnectResponse:
        return pb.ConnectResponse.FromString(await self._frames.get())

    def cancel(self) -> None:
        """Do nothing: it never ends."""


async def prepare() -> counted.Calls:
    return Connections(server(await linked())).call


async def linked() -> ReplicaPool:
    """Return a pool with one replica, which answers at once."""
    loop = asyncio.get_running_loop()
    pool = ReplicaPool(SUM, loop.create_task)
    replica = Replica("127.0.0.1:1", library=True, changed=lambda: None)
    link = Link(replica._channel)
    link._stub = SimpleNamespace(Connect=_Stream)
    running = loop.create_task(link.run())
    await link.settled.wait()
    # As `watch` finds it, which would look for a connection.
    replica._serving, replica._link = True, link
    pool.update((), library=True, max_in_flight=1000)
    pool._replicas[replica.address, True] = replica, running
    return pool


def server(
    pool: ReplicaPool, enqueuer: Any = None, keys: ClientKeys | None = None, tokens: Tokens | None = None
) -> http_server.Server:
    """Make the gateway's HTTP server, with a pool for the one service that is called."""
    services = counted.services()
    catalogue: Any = SimpleNamespace(
        services=services, pools={SUM: pool}, routes=RouteTable(services.values()), key_agreed=True
    )
    nothing: Any = None
    own_routes: Any = SimpleNamespace(check_ready=lambda: None)
    call_services = CallServices(
        catalogue,
        enqueuer,
        nothing,
        Offload(0),
        TaskIds(bytes(32)),
        max_wait_seconds=30,
        body_seconds=30,
        open_streams=nothing,
        callback_urls=CallbackUrls([]),
        guarded=keys is not None or tokens is not None,
    )
    dispatcher = Dispatcher(
        call_services,
        own_routes,
        door=Door(keys, None, Sessions(id_keys.read(b"k" * 32)), anonymous=False, tokens=tokens),
        hosts=Hosts((), ()),
        audit=AuditLog(None),
        cors_origins=(),
        draining=asyncio.Event(),
    )
    return http_server.Server(dispatcher.handle, 1024 * 1024)


if __name__ == "__main__":
    counted.run(prepare)
