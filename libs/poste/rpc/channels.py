"""How Poste's processes call each other: channels that notice at once when a peer goes or comes back.

Every option is here for a measured reason: with gRPC's defaults a service that came back stayed invisible for 15 s, a
hung one for ever, and a black-holed connect took 20 s.
"""

from __future__ import annotations

import json
from typing import Any, Final

import grpc
import grpc.aio

from poste.domain import sizes
from poste.domain.codes import Code
from poste.rpc.credentials import Secured
from poste.rpc.peer_names import is_named

#: Metadata with the id of the HTTP request that a call is made for.
REQUEST_ID: Final = "x-request-id"
#: Trailing metadata by which a server proves that it did not run a call, and changed nothing.
NOT_RUN: Final = "poste-not-run"
#: Trailing metadata by which the middleware says that it is its store that does not answer.
STORE_AWAY: Final = "poste-store-away"
#: How often a channel to one of our own servers asks whether its host is there, in milliseconds. Whether the server
#: itself lives is what its health probe shows (`poste.rpc.pulse`).
KEEPALIVE_MS: Final = 10_000
#: How long the answer may take before the connection counts as dead, in milliseconds. gRPC's clock knows nothing of a
#: process, or a host, that was late itself: with 300 ms good connections ended for want of processor time.
PING_TIMEOUT_MS: Final = 10_000
#: How much comes of an answer before it is read, in bytes.
UNREAD_BYTES: Final = 64 * 1024

# Health checking works with round_robin only; with it NOT_SERVING is seen in milliseconds.
_SERVICE_CONFIG: Final = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
)
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.service_config_disable_resolution", 1),
    # Whether a call that may have run is sent again is decided by its method's idempotency_level, never by gRPC: the
    # service config names no retry policy. On, it sends again only what the server says that it never saw, such as
    # what meets the end of a connection by its age; off, those calls would fail like ones that may have run.
    ("grpc.enable_retries", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long a connection may take to be made. Less, and none to a host that is short of processor time ever is.
    ("grpc.min_reconnect_backoff_ms", 3000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A replica that was moved has another address, which is looked for when the old one is gone; 30 s would pass first.
    ("grpc.dns_min_time_between_resolutions_ms", 500),
    ("grpc.max_send_message_length", sizes.MAX_MESSAGE),
    # No more than this is received of an answer that is not read yet. gRPC would guess how much a connection bears, and
    # receive megabytes of each beforehand.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", UNREAD_BYTES),
    # Channels with equal options would share connections, and one channel's fate would be the other's.
    ("grpc.use_local_subchannel_pool", 1),
    # An HTTP proxy of the environment is not meant for calls within the deployment.
    ("grpc.enable_http_proxy", 0),
)
_KEEPALIVE: Final[tuple[tuple[str, Any], ...]] = (
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


def connect(
    target: str, *, library: bool, max_message_bytes: int = sizes.MAX_MESSAGE, secured: Secured | None = None
) -> grpc.aio.Channel:
    """Open a channel.

    Args:
        target: A gRPC target, e.g. `dns:///mom:50051` or `127.0.0.1:50052`.
        library: The server is one of ours (`poste.rpc.servers`), so it bears keepalive pings; any other would close the
            connection with "too many pings".
        max_message_bytes: How large a message from there may be: a larger one is refused at its header.
        secured: How it is secured, and who must be there; not at all unless given.
    """
    options = [
        *_OPTIONS,
        ("grpc.max_receive_message_length", max_message_bytes),
        *_metadata(sizes.MAX_METADATA if library else sizes.MAX_FOREIGN_METADATA),
    ]
    if library:
        options += _KEEPALIVE
    if secured is None:
        return grpc.aio.insecure_channel(target, options=options)
    options.append(is_named(secured.peer))
    return grpc.aio.secure_channel(target, secured.credentials, options=options)


def _metadata(limit: int) -> list[tuple[str, int]]:
    # Beyond the first, the softer one, gRPC refuses some, and none before.
    return [("grpc.max_metadata_size", limit), ("grpc.absolute_max_metadata_size", limit)]


def code(error: grpc.aio.AioRpcError) -> Code:
    """Return the status code that a call failed with."""
    return Code(error.code().value[0])


def proves_not_run(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the server proves that it did not run the call. UNAVAILABLE alone proves nothing."""
    return _has(error, NOT_RUN)


def says_store_away(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the middleware is there, and its store does not answer."""
    return _has(error, STORE_AWAY)


def _has(error: grpc.aio.AioRpcError, trailer: str) -> bool:
    return any(key == trailer for key, _ in error.trailing_metadata() or ())


def is_ready(channel: grpc.aio.Channel) -> bool:
    """Return whether a call would be sent now; otherwise start connecting. Never blocks."""
    return channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY
