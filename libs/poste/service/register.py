"""Makes a replica known to the middleware: at start, and again and again, for as long as it serves."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import grpc.aio

from poste.domain.codes import Code
from poste.domain.errors import CatalogueError
from poste.rpc.channels import code
from poste.runtime import logs
from poste.runtime.addresses import UNIX, authority
from poste.runtime.backoff import Backoff
from poste.runtime.settings import WorkerSettings
from poste.service.loaded import file_descriptor_set
from poste.service.servicer import ServedService
from poste.service.terms import Terms
from poste.v1 import mom_service_pb2, mom_service_pb2_grpc

_log = logs.get("register")
#: How often a replica says that it is there, in seconds.
_PERIOD_SECONDS: Final = 10.0
#: How long one RPC may take, in seconds: one that is late is under way, and another would come on top of it.
DEADLINE_SECONDS: Final = 10.0
#: How long a stop waits for the middleware to hear of it, in seconds.
WITHDRAW_SECONDS: Final = 1.0
#: Waits after a failure, in seconds.
_FIRST_BACKOFF_SECONDS: Final = 0.1
_MAX_BACKOFF_SECONDS: Final = 5.0


async def keep_registered(register: Callable[[], Awaitable[bool]]) -> None:
    """Register, and renew it, until cancelled; `register` returns whether the middleware has answered."""
    backoff = Backoff(_FIRST_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS)
    while True:
        if await register():
            backoff.reset()
            await asyncio.sleep(_PERIOD_SECONDS)
        else:
            await asyncio.sleep(backoff.pause_seconds())


class Registration:
    """Keeps one service of this process registered.

    Attributes:
        known: The middleware has answered, and was not found away since.
    """

    def __init__(
        self, channel: grpc.aio.Channel, service: ServedService, settings: WorkerSettings, port: int, terms: Terms
    ) -> None:
        """Prepare; `run` begins.

        Args:
            channel: To the middleware.
            service: What is registered.
            settings: Say where this replica is called.
            port: Where it listens.
            terms: Learn what the catalogue says.
        """
        self._stub = mom_service_pb2_grpc.MomServiceStub(channel)
        self._settings = settings
        self._port = port
        self._terms = terms
        self._request = mom_service_pb2.RegisterServiceRequest(
            service=service.name,
            file_descriptor_set=file_descriptor_set(service.descriptor.file),
            author_settings=service.settings,
            replica=secrets.token_hex(8),
            methods=sorted([*service.methods, *service.streaming]),
        )
        self._without_handler = [
            method.name
            for method in service.descriptor.methods
            if method.name not in service.methods and method.name not in service.streaming
        ]
        self._taking_streams = [
            method.name
            for method in service.descriptor.methods
            if method.client_streaming and method.name in service.streaming
        ]
        self.known = False
        #: The methods and the routes that are not served were logged.
        self._warned = False

    async def run(self) -> None:
        """Register, and renew it, until cancelled."""
        await keep_registered(self._register)

    async def withdraw(self) -> None:
        """Say that this replica stops, if the middleware is there: otherwise it is forgotten a while later."""
        request = mom_service_pb2.WithdrawReplicaRequest(service=self._request.service, replica=self._request.replica)
        try:
            await self._stub.WithdrawReplica(request, timeout=WITHDRAW_SECONDS)
        except grpc.aio.AioRpcError as error:
            _log.info("not withdrawn", service=request.service, code=code(error).name)

    async def _register(self) -> bool:
        service = self._request.service
        self._request.address = await advertised(self._settings, self._port)
        try:
            response = await self._stub.RegisterService(self._request, timeout=DEADLINE_SECONDS, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            # Away is what happens, once a line; refused is what an operator must mend.
            say = _log.warning if code(error) in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED) else _log.error
            say("not registered", service=service, code=code(error).name, details=error.details())
            self.known = False
            return False
        try:
            self._terms.learn(response.settings)
        except CatalogueError as error:
            # Of a middleware that is not of this version: what was known holds on.
            _log.error("settings not taken", service=service, error=str(error))
        if not self.known:
            self.known = True
            _log.info("registered", service=service, address=self._request.address)
        if not self._warned:
            self._warned = True
            for method in self._without_handler:
                _log.warning("method not served: it has no handler", service=service, method=method)
            for method in self._taking_streams:
                _log.warning("method not callable by REST: it takes a stream", service=service, method=method)
            for one in response.passed_over:
                route = f"{one.verb} {one.path}"
                _log.warning("route not served", service=service, method=one.method, route=route, reason=one.reason)
        return True


async def advertised(settings: WorkerSettings, port: int) -> str:
    """Return the `host:port`, or `unix:/path`, at which others reach this process.

    It is what the settings say; else the address listened on, a socket's or a port's; else, if that is every address,
    the one from which the middleware is reached, for a host in several networks has several and the others are its
    neighbours there.
    """
    if settings.advertise is not None:
        return settings.advertise
    if settings.socket is not None:
        return f"{UNIX}{settings.socket}"
    if not _wildcard(settings.host):
        return authority(settings.host, port)
    return authority(await _address_towards(settings.mom), port)


def _wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host in ("", "*")


async def _address_towards(target: str) -> str:
    """Return this host's address on the way to a gRPC target, or its name if that is not known now."""
    host, _, port = target.rpartition("/")[2].rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        # Connecting a datagram socket sends nothing: it only picks the route.
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return socket.gethostname()
