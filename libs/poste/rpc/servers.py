"""How Poste's processes serve gRPC: the options, and the health service whose word gateways go by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2

from poste.domain import sizes
from poste.domain.errors import StartError
from poste.rpc.channels import KEEPALIVE_MS
from poste.rpc.credentials import Credentials
from poste.rpc.intake import REFUSALS, Intake, NotTaken
from poste.rpc.turns import peer_of
from poste.runtime import logs
from poste.runtime.addresses import UNIX, authority

#: Clients find new replicas when their connection ends, so it must end now and then; in milliseconds.
_MAX_CONNECTION_AGE_MS: Final = 90_000
#: How long calls may go on over a connection that has reached its age, in seconds.
_CALL_SECONDS: Final = 600
_HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_log: Final = logs.get("server")
_Context = grpc.aio.ServicerContext[Any, Any]


def new_server(
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (), *, call_seconds: int = _CALL_SECONDS
) -> grpc.aio.Server:
    """Make a server with the options that all of ours have.

    Args:
        interceptors: What its calls go through.
        call_seconds: How long a call may go on over a connection that others do not use any more, for its age.
    """
    options: list[tuple[str, Any]] = [
        # A taken port is an error, not a coin toss between two processes.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", sizes.MAX_MESSAGE),
        ("grpc.max_send_message_length", sizes.MAX_MESSAGE),
        ("grpc.max_connection_age_ms", _MAX_CONNECTION_AGE_MS),
        ("grpc.max_connection_age_grace_ms", 1000 * call_seconds),
        # Must lie strictly below the clients' interval, or their pings end the connection.
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 0),
        # A window that grows with what the network bears would receive megabytes of messages that are not read yet.
        ("grpc.http2.bdp_probe", 0),
    ]
    return grpc.aio.server(options=options, interceptors=tuple(interceptors))


def bind(server: grpc.aio.Server, host: str, port: int, credentials: Credentials | None = None) -> int:
    """Bind a server to an address; returns the port. With credentials it takes connections of its peers alone.

    Raises:
        StartError: The port is taken, or the address is not this host's.
    """
    return _bind(server, authority(host, port), credentials, "the port is in use or the address is not ours")


def bind_socket(server: grpc.aio.Server, path: Path, credentials: Credentials | None = None) -> str:
    """Bind a server to a socket in the file system, in place of what is left of an earlier one; returns its address.

    With credentials it takes connections of its peers alone.

    Raises:
        StartError: It can't be made there.
    """
    address = f"{UNIX}{path}"
    _bind(server, address, credentials, "no socket can be made there")
    # gRPC asks for everybody's access; the folder's mode may be changed later, and this one holds.
    path.chmod(0o600)
    return address


def _bind(server: grpc.aio.Server, address: str, credentials: Credentials | None, trouble: str) -> int:
    try:
        if credentials is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials.server_credentials())
    except RuntimeError as error:
        raise StartError(f"can't listen on {address}: {trouble}") from error
    if bound == 0:
        raise StartError(f"can't listen on {address}: {trouble}")
    return bound


class Health:
    """The standard health service (grpc.health.v1) of one server.

    Its requests are read in turns, as all that may be large: any peer that reaches the port may send it 16 MB, and a
    dozen of these, read by gRPC itself, take most of a gigabyte.
    """

    def __init__(self, server: grpc.aio.Server, *services: str, intake: Intake | None = None) -> None:
        """Add it to a server.

        Args:
            server: The server.
            services: Which services it knows besides the server as a whole.
            intake: What reads the server's other messages in turns, if anything does.
        """
        self._servicer = health.aio.HealthServicer()
        self._services = ("", *services)
        self._intake = intake or Intake()
        serialize = health_pb2.HealthCheckResponse.SerializeToString
        # On the wire the same as methods that take one message; but gRPC reads that only when it is asked for it.
        handlers: dict[str, Any] = {
            "Check": grpc.stream_unary_rpc_method_handler(self._check, response_serializer=serialize),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch, response_serializer=serialize),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_HEALTH, handlers),))

    async def serving(self) -> None:
        """Report SERVING: clients are to send calls."""
        for service in self._services:
            await self._servicer.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def not_serving(self) -> None:
        """Report NOT_SERVING: clients are to send no more calls."""
        for service in self._services:
            await self._servicer.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def _check(self, messages: AsyncIterator[bytes], context: _Context) -> Any:
        return await self._servicer.Check(await self._read(messages, context), context)

    async def _watch(self, messages: AsyncIterator[bytes], context: _Context) -> None:
        await self._servicer.Watch(await self._read(messages, context), context)

    async def _read(self, messages: AsyncIterator[bytes], context: _Context) -> health_pb2.HealthCheckRequest:
        try:
            async with self._intake.taking(messages, peer_of(context), sizes.LARGE) as message:
                return health_pb2.HealthCheckRequest.FromString(message.pop())
        except NotTaken as error:
            await _refuse(context, REFUSALS[error.why], str(error))
        except DecodeError:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "the message can't be decoded")


async def _refuse(context: _Context, code: grpc.StatusCode, words: str) -> NoReturn:
    _log.warning("health check refused", reason=words, peer=context.peer())
    await context.abort(code, words)
