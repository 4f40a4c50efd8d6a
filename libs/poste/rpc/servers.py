"""How Poste's processes serve gRPC: the options, and the health service whose word gateways go by."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from poste.domain import sizes
from poste.domain.errors import StartError
from poste.rpc.channels import KEEPALIVE_MS
from poste.runtime.addresses import UNIX, authority

#: Clients find new replicas when their connection ends, so it must end now and then; in milliseconds.
_MAX_CONNECTION_AGE_MS: Final = 90_000
#: How long calls may go on over a connection that has reached its age, in milliseconds.
_MAX_CONNECTION_AGE_GRACE_MS: Final = 600_000


def new_server() -> grpc.aio.Server:
    """Make a server with the options that all of ours have."""
    options: list[tuple[str, Any]] = [
        # A taken port is an error, not a coin toss between two processes.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", sizes.MAX_MESSAGE),
        ("grpc.max_send_message_length", sizes.MAX_MESSAGE),
        ("grpc.max_connection_age_ms", _MAX_CONNECTION_AGE_MS),
        ("grpc.max_connection_age_grace_ms", _MAX_CONNECTION_AGE_GRACE_MS),
        # Must lie strictly below the clients' interval, or their pings end the connection.
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 0),
        # A window that grows with what the network bears would take megabytes of what nobody has asked for yet.
        ("grpc.http2.bdp_probe", 0),
    ]
    return grpc.aio.server(options=options)


def bind(server: grpc.aio.Server, host: str, port: int) -> int:
    """Bind a server to an address; returns the port.

    Raises:
        StartError: The port is taken, or the address is not this host's.
    """
    return _bind(server, authority(host, port), "the port is in use or the address is not ours")


def bind_socket(server: grpc.aio.Server, path: Path) -> str:
    """Bind a server to a socket in the file system, in place of what is left of an earlier one; returns its address.

    Raises:
        StartError: It can't be made there.
    """
    address = f"{UNIX}{path}"
    _bind(server, address, "no socket can be made there")
    # gRPC asks for everybody's access; the folder's mode may be changed later, and this one holds.
    path.chmod(0o600)
    return address


def _bind(server: grpc.aio.Server, address: str, trouble: str) -> int:
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(f"can't listen on {address}: {trouble}") from error
    if bound == 0:
        raise StartError(f"can't listen on {address}: {trouble}")
    return bound


class Health:
    """The standard health service (grpc.health.v1) of one server."""

    def __init__(self, server: grpc.aio.Server, *services: str) -> None:
        self._servicer = health.aio.HealthServicer()
        self._services = ("", *services)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def serving(self) -> None:
        """Tell clients to send calls."""
        for service in self._services:
            await self._servicer.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def not_serving(self) -> None:
        """Tell clients to send no more calls."""
        for service in self._services:
            await self._servicer.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
