"""Settings of each part. Read once, in `main` (`poste.runtime.environment`); frozen from then on.

The comment above a setting is what the documents say of it (docs/settings.md). Secrets come from files, which others
must not be able to read or write (`poste.runtime.secret_files`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from poste.domain import sizes
from poste.domain.errors import StartError
from poste.domain.policy import MAX_TTL_SECONDS
from poste.runtime.addresses import is_loopback
from poste.runtime.setting_values import (
    MAX_PORT,
    Algorithms,
    Amount,
    Bytes,
    CallbackOrigins,
    ClientRoles,
    Host,
    HostNames,
    JwksUrl,
    Keeps,
    Networks,
    Origins,
    Port,
    ReplicaAddress,
    Seconds,
    Socket,
    SomeSeconds,
    Target,
    Ttl,
)

#: How far above the port for calls the one for probes and metrics is.
_ADMIN_OFFSET: Final = 1000
#: How many heartbeats a lease lasts at least: one may fail, be waited for and be sent again before it is over.
_HEARTBEATS: Final = 3
#: A password that stands in a URL.
_PASSWORD_IN_URL: Final = re.compile(r"://[^/@]*:[^/@]+@|[?&]password=")


class Settings(BaseSettings):
    """The settings of every process."""

    # A part builds what checks its own settings, not the other parts' too.
    model_config = SettingsConfigDict(env_prefix="POSTE_", frozen=True, extra="ignore", defer_build=True)

    #: The address to listen on. Loopback unless the deployment says otherwise.
    host: Host = "127.0.0.1"
    #: The address for `/metrics` and the probes, `host` unless given. These are not for the public: they show what is
    #: called, how often and by how many.
    admin_host: Host | None = None
    #: Lines below this level are not written.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    #: `auto` writes for people on a terminal, and JSON otherwise.
    log_format: Literal["auto", "json", "console"] = "auto"
    #: How long a stop may take before what still runs is given back, in seconds.
    grace_seconds: Seconds = 20.0
    #: Where `/metrics` and the probes are served; `port` plus 1000 unless given. Clients have no business there.
    admin_port: Port | None = None
    #: PEM: the CA by which the parts know each other over gRPC. With it and the next two, which may all be replaced
    #: while it runs, connections between the parts are mutual TLS, and each may do what its certificate's names say.
    mtls_ca_file: Path | None = None
    #: PEM: this process' own certificate (`poste certificates` makes them).
    mtls_certificate_file: Path | None = None
    #: PEM: the certificate's key, unencrypted.
    mtls_key_file: Path | None = None

    def probes_port(self) -> int:
        """Return the port for probes and metrics: any free one, 0, if that for calls is left to chance too.

        Raises:
            StartError: There is none beside the port for calls.
        """
        if self.admin_port is not None:
            return self.admin_port
        # Each part has one, with a default of its own.
        port: int | None = getattr(self, "port", None)
        if not port:
            return 0
        if port + _ADMIN_OFFSET > MAX_PORT:
            raise StartError(
                f"POSTE_PORT={port} leaves no port for probes and metrics, {_ADMIN_OFFSET} above it: set "
                f"POSTE_ADMIN_PORT, or a port of {MAX_PORT - _ADMIN_OFFSET} at most"
            )
        return port + _ADMIN_OFFSET

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if wrong := "; ".join(self._contradictions()):
            raise StartError(wrong)
        return self

    def _contradictions(self) -> Iterator[str]:
        """Yield an error for each combination of settings that makes no sense though each is valid by itself."""
        of_mtls = {
            "POSTE_MTLS_CA_FILE": self.mtls_ca_file,
            "POSTE_MTLS_CERTIFICATE_FILE": self.mtls_certificate_file,
            "POSTE_MTLS_KEY_FILE": self.mtls_key_file,
        }
        missing = [name for name, value in of_mtls.items() if value is None]
        if 0 < len(missing) < len(of_mtls):
            yield f"mutual TLS between the parts needs {' and '.join(missing)} too"
        try:
            self.probes_port()
        except StartError as error:
            yield str(error)


class StoreSettings(Settings):
    """The settings of a process that talks to Redis."""

    #: One server: `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, `unix:///path`. Or a Redis
    #: Cluster, by some of its servers, which list the others: `redis+cluster://[user:password@]host:port[,host:port…]`,
    #: `rediss+cluster://` for TLS.
    redis_url: str = "redis://127.0.0.1:6379/0"
    #: A file that holds Redis' password, instead of one in the URL.
    redis_password_file: Path | None = None
    #: What the names of all keys begin with: each Poste on a Redis needs one of its own, and all its parts the same.
    key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] = "poste"
    #: What this Redis keeps on disk, for one that does not show it (managed ones refuse CONFIG): `always`, each write
    #: that it has answered; `second`, all but the last second; `nothing`, if it stops. The last two are not enough by
    #: themselves: see `accept_losing_…`. Ignored if the server shows its configuration.
    redis_keeps: Keeps | None = None
    #: Accept calls although Redis may lose the last second of them (`appendfsync everysec`): none waits for the disk.
    accept_losing_last_second: bool = False
    #: Accept calls although Redis loses all of them when it stops (no AOF).
    accept_losing_everything: bool = False

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if self.redis_password_file is not None and _PASSWORD_IN_URL.search(self.redis_url):
            yield "POSTE_REDIS_PASSWORD_FILE is set, and POSTE_REDIS_URL has a password too: keep one of them"


class TargetSettings(Settings):
    """The settings of a process that reaches services without the library."""

    #: PEM: the authorities that vouch for services without the library over TLS (`grpcs://HOST:PORT`), where the
    #: catalogue file names none of their own; may be replaced while it runs. Those that gRPC comes with, the Web's,
    #: unless given.
    targets_ca_file: Path | None = None


class GatewaySettings(TargetSettings):
    """The gateway's settings."""

    #: Serves HTTP; with a `tls_port`, it only leads there, and answers `/livez` and `/readyz`.
    port: Port = 8080
    #: Serves HTTPS (TLS 1.2 and newer) with the certificate and key of the two files; both may be replaced while it
    #: runs.
    tls_port: Port | None = None
    #: Where clients find HTTPS, if that is not `tls_port`: e.g. 443, which a container's 8443 is published as.
    tls_public_port: Port | None = None
    #: PEM: the certificate, followed by those between it and one that clients know.
    tls_certificate_file: Path | None = None
    #: PEM: the certificate's key, unencrypted.
    tls_key_file: Path | None = None
    #: gRPC target of the middleware.
    mom: Target = "dns:///127.0.0.1:50051"
    #: The file with the secret that signs task ids, the same for all gateways. Made if it is not there.
    id_key_file: Path = Path(".poste/id.key")
    #: The file with the token that operators send, the same for all gateways. Made if it is not there. Without one
    #: no client is an operator, wherever it comes from.
    operator_token_file: Path | None = None
    #: The file in which a line says of each thing that operators did who did it (`poste audit`): each gateway's own.
    audit_file: Path | None = None
    #: The file with the clients' keys (`poste keys`), the same for all gateways; read again when it changes. With it a
    #: request needs a key, and a task is for its own client and operators alone.
    client_keys_file: Path | None = None
    #: Let clients without a key call, and read their tasks and what there is to call. A gateway without keys listens
    #: beyond loopback only with this.
    anonymous_calls: bool = False
    #: The issuer whose tokens (JWT) let clients in, as their claim `iss` has it: with or without keys of clients. Needs
    #: `pip install 'poste[jwt]'`, which the image has.
    jwt_issuer: str | None = None
    #: Whom its tokens must be for: this Poste, as the issuer knows it.
    jwt_audience: str | None = None
    #: The file with the public keys that it signs with (JWK Set); read again when it changes.
    jwt_jwks_file: Path | None = None
    #: Where they are fetched instead, and fetched again: https, or http on loopback.
    jwt_jwks_url: JwksUrl | None = None
    #: The file with the certificates (PEM) of authorities that vouch for that URL's server, besides those that the host
    #: trusts.
    jwt_ca_file: Path | None = None
    #: By what its tokens may be signed, separated by commas: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384,
    #: ES512 or EdDSA.
    jwt_algorithms: Algorithms = ("RS256", "ES256", "EdDSA")
    #: How far the issuer's clock and this one may be apart, in seconds: tokens are good so much earlier and later.
    jwt_skew_seconds: Annotated[int, Field(ge=0, le=300)] = 30
    #: The claim that says who the client is.
    jwt_client_claim: str = "sub"
    #: The claim that says whom a token is for.
    jwt_audience_claim: str = "aud"
    #: The claim that says what the client may do: words with blanks between them, or a list; `a.b` is b within a.
    jwt_roles_claim: str = "scope"
    #: What a word of it begins with that names a role: `poste:call` is `call`. Others are passed over.
    jwt_role_prefix: Annotated[str, Field(min_length=1)] = "poste:"
    #: What the client of every token may do, besides: `call`, `read` or both, separated by commas; nothing unless
    #: given.
    jwt_roles: ClientRoles = ()
    #: How many requests in how many seconds each client of tokens may make at each gateway, such as 100/60; any number
    #: unless given.
    jwt_rate: str | None = None
    #: What longer times to live of their calls are cut to, in seconds.
    jwt_max_task_ttl_seconds: Ttl = MAX_TTL_SECONDS
    #: What longer times to live of these calls' results are cut to, in seconds.
    jwt_max_result_ttl_seconds: Ttl = MAX_TTL_SECONDS
    #: How many calls of each client of tokens may wait in each queue; 0: any number.
    jwt_max_waiting_calls: Amount = 0
    #: How many bytes all that a queue holds for such a client may take; 0: any number.
    jwt_max_kept_bytes: Amount = 0
    #: Where the last catalogue is kept, so that the gateway can start while the middleware is away; `catalogue.copy`
    #: beside the key unless given. Gateways may share it.
    catalogue_copy: Path | None = None
    #: How large a call's JSON may be, in bytes; the message made of it may be larger or smaller, and has a limit of its
    #: own: what gRPC carries (`poste.domain.sizes`), which this can't go past.
    max_body_bytes: Bytes = 1024 * 1024
    #: How much JSON may wait its turn to be read or written, in bytes: so much of messages over 128 KiB, and so much of
    #: smaller ones. One client may have half of it waiting, less if others wait. Beyond it: 503 `gateway-busy`.
    max_waiting_bytes: Annotated[int, Field(ge=0)] = 32 * 1024 * 1024
    #: Bytes that clients may have sent that are not answered yet, in all; one client half of it. Beyond it requests are
    #: refused: 503 `gateway-busy`.
    max_received_bytes: Bytes = 40 * 1024 * 1024
    #: Bytes of answers that clients may leave unread, in all; one client half of it. A large one counts as the message
    #: and its JSON, for both are there while it is written. Beyond it large answers wait with their services, three
    #: times as much of them, of one client half of that; what would be more is not given: 503 `gateway-busy`, or the
    #: task's place.
    max_unsent_bytes: Bytes = 40 * 1024 * 1024
    #: Connections in all. Where there are so many those that are idle longest are closed, and if none is idle no more
    #: come in. It is no more than the process may have descriptors for.
    max_connections: Annotated[int, Field(gt=0)] = 2500
    #: Connections of one client: an IPv4 address, or the 64 bits of an IPv6 address that stand for one home.
    max_peer_connections: Bytes = 1000
    #: Requests that may wait for the end of a task (`Prefer: wait`), in all; one client half of it. Beyond it a request
    #: for a task is refused, 503 `gateway-busy`, and a call that is queued is answered 202 at once.
    max_waits: Annotated[int, Field(gt=0)] = 1000
    #: Streams that may be open, in all; one client half of it. Beyond it a call of a streaming method is refused: 503
    #: `gateway-busy`.
    max_streams: Annotated[int, Field(gt=0)] = 256
    #: How large one message of a stream may be, in bytes as protobuf. Each stream may have one on its way, so this and
    #: `max_streams` together say how much memory streams take at worst.
    max_stream_message_bytes: Bytes = sizes.STREAM_MESSAGE
    #: Networks of proxies that bring everybody's requests, separated by commas: what one client may have at most does
    #: not count for them. This host's own unless given.
    trusted_proxies: Networks = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
    #: How long a connection may be idle between two requests, in seconds.
    idle_seconds: Seconds = 75.0
    #: How long a client may take to bring a request's head, and the TLS handshake before it, in seconds.
    head_seconds: Seconds = 30.0
    #: How long it may then take to bring the whole body, in seconds.
    body_seconds: Seconds = 30.0
    #: How long a client may take none of an answer, in seconds: then its connection ends.
    write_seconds: Seconds = 30.0
    #: The longest `Prefer: wait=N` that is honoured, in seconds; more is cut to it.
    max_wait_seconds: Seconds = 60.0
    #: How long a gateway that is to stop, and says so at `/readyz`, still takes new connections, in seconds: as long as
    #: what balances the gateways needs to see it.
    linger_seconds: SomeSeconds = 0.0
    #: Origins that browsers may call from (CORS), separated by commas; none unless named.
    cors_origins: Origins = ()
    #: Names that it answers under besides those of loopback, separated by commas: `api.example`, `*.example` for all
    #: below one, `*` for any. A gateway on loopback without keys, TLS or `anonymous_calls` answers under no others
    #: (421), so that no web page's own name leads to it; any other does so if some are given.
    hosts: HostNames = ()
    #: Origins of the URLs that clients may have called at their tasks' ends (`Poste-Callback`), separated by commas:
    #: `https://hooks.example`, `https://*.example` for all names below one, `https://*` for any; none unless named.
    callback_origins: CallbackOrigins = ()
    #: The file with the secret that signs these calls, the same for all gateways: `whsec_…`, and the one before it on
    #: a second line while receivers learn the new one.
    callback_secret_file: Path | None = None
    #: Networks that these calls may go to besides the public Internet, separated by commas, such as 10.0.0.0/8.
    callback_networks: Networks = ()
    #: The file with the certificates (PEM) of authorities that vouch for receivers of these calls, besides those that
    #: the host trusts.
    callback_ca_file: Path | None = None

    @field_validator("max_body_bytes", "max_stream_message_bytes")
    @classmethod
    def _carried(cls, value: int) -> int:
        if value > sizes.MAX_PAYLOAD:
            raise ValueError(f"a gRPC message carries {sizes.MAX_PAYLOAD} bytes at most")
        return value

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        of_tls: dict[str, object] = {
            "POSTE_TLS_CERTIFICATE_FILE": self.tls_certificate_file,
            "POSTE_TLS_KEY_FILE": self.tls_key_file,
        }
        if self.tls_port is not None and None in of_tls.values():
            yield f"POSTE_TLS_PORT needs {' and '.join(of_tls)}"
        of_tls["POSTE_TLS_PUBLIC_PORT"] = self.tls_public_port
        if self.tls_port is None and (idle := [name for name, value in of_tls.items() if value is not None]):
            yield f"{' and '.join(idle)} without POSTE_TLS_PORT would serve no TLS: set that too, such as 8443"
        if self.tls_port and self.tls_port == self.port:
            yield f"POSTE_TLS_PORT={self.tls_port} is POSTE_PORT too: HTTP and HTTPS need a port each"
        if not (is_loopback(self.host) or self.client_keys_file or self.jwt_issuer or self.anonymous_calls):
            yield (
                f"POSTE_HOST={self.host} would let in whoever reaches it: set POSTE_CLIENT_KEYS_FILE (`poste keys`), "
                "POSTE_JWT_ISSUER or POSTE_ANONYMOUS_CALLS=true"
            )
        yield from self._contradictions_of_jwt()
        if self.callback_origins and self.callback_secret_file is None:
            yield "POSTE_CALLBACK_ORIGINS needs POSTE_CALLBACK_SECRET_FILE: what is sent there is signed"
        if self.max_received_bytes < self.max_body_bytes:
            yield (
                f"POSTE_MAX_RECEIVED_BYTES={self.max_received_bytes} is less than one body may have: "
                f"POSTE_MAX_BODY_BYTES={self.max_body_bytes} or more would do"
            )
        chosen = {"max_connections", "max_peer_connections"} <= self.model_fields_set
        if chosen and self.max_peer_connections > self.max_connections:
            yield (
                f"POSTE_MAX_PEER_CONNECTIONS={self.max_peer_connections} is more than all may have together: "
                f"POSTE_MAX_CONNECTIONS={self.max_connections} or less would do"
            )

    def _contradictions_of_jwt(self) -> Iterator[str]:
        if self.jwt_issuer is None:
            if idle := sorted(name for name in self.model_fields_set if name.startswith("jwt_")):
                yield f"POSTE_{idle[0].upper()} without POSTE_JWT_ISSUER would let nobody in: set that too"
            return
        if self.jwt_audience is None:
            yield "POSTE_JWT_ISSUER needs POSTE_JWT_AUDIENCE: the issuer's tokens for others are not for this Poste"
        if (self.jwt_jwks_file is None) == (self.jwt_jwks_url is None):
            yield "POSTE_JWT_ISSUER needs POSTE_JWT_JWKS_URL or POSTE_JWT_JWKS_FILE, one of the two"
        if self.jwt_ca_file is not None and self.jwt_jwks_url is None:
            yield "POSTE_JWT_CA_FILE without POSTE_JWT_JWKS_URL verifies no server"


#: What the middleware's catalogue may hold, see there.
MAX_CATALOGUE_BYTES: Final = 64 * 1024 * 1024
MAX_REPLICAS: Final = 500


class MomSettings(StoreSettings, TargetSettings):
    """The middleware's settings."""

    #: Serves gRPC.
    port: Port = 50051
    #: Listens for gRPC on this socket in the file system instead of host and port: who can't enter its folder can't
    #: call it. Targets are spelt `unix:/its/path`.
    socket: Socket | None = None
    #: The catalogue file that the deployment ships.
    catalogue: Path | None = None
    #: What knowing all services may take of a gateway's memory, as it is estimated: 40 kB a version, 2 kB a method and
    #: 450 bytes a field, with twice the bytes of the descriptors. A single version may take a quarter of it.
    max_catalogue_bytes: Annotated[int, Field(ge=1024 * 1024)] = MAX_CATALOGUE_BYTES
    #: At how many addresses replicas may be registered, of all services: every gateway connects to each.
    max_replicas: Annotated[int, Field(ge=1)] = MAX_REPLICAS
    #: How often the reaper and the other maintenance run (overdue leases, retries, expiries), in seconds.
    pass_seconds: Seconds = 1.0


class ConsumerSettings(StoreSettings):
    """The settings of a process that takes from queues."""

    #: gRPC target of the middleware.
    mom: Target = "dns:///127.0.0.1:50051"
    #: How many queued tasks run at once in this process; in a courier, of each service.
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 64
    #: How many bytes the requests of the queued tasks that run at once in this process may have together, give or take
    #: one of them for each of four queues; in a courier the answers too that are not reported yet. What would be more
    #: waits. Of several queues one has half of it at most.
    max_claimed_bytes: Bytes = 64 * 1024 * 1024
    #: How long a lease lasts that is not renewed, in seconds: then the process has lost its tasks to others. At least
    #: three heartbeats.
    lease_seconds: Seconds = 6.0
    #: How often the lease is renewed, in seconds.
    heartbeat_seconds: Seconds = 2.0
    #: How long a handler may block the event loop before the process loses its lease, in seconds; at least a
    #: second, for the loop shows twice a second that it turns.
    blocked_loop_seconds: Annotated[Seconds, Field(ge=1)] = 60.0

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        needed = _HEARTBEATS * self.heartbeat_seconds
        if self.lease_seconds < needed:
            yield (
                f"POSTE_LEASE_SECONDS={self.lease_seconds:g} is over before a heartbeat that failed is sent again, at "
                f"POSTE_HEARTBEAT_SECONDS={self.heartbeat_seconds:g}: a lease of {needed:g} or more would do, or a "
                f"heartbeat of {self.lease_seconds / _HEARTBEATS:.3g} or less"
            )


class WorkerSettings(ConsumerSettings):
    """The settings of a service's process."""

    #: Serves gRPC; the servicer's own `default_port`, or 50052, unless given.
    port: Port | None = None
    #: Listens for gRPC on this socket in the file system instead of host and port: who can't enter its folder can't
    #: call it. If the middleware is reached by a socket, and neither this nor a port is given: one beside that.
    socket: Socket | None = None
    #: The `host:port`, or `unix:/path`, that gateways call this replica at; found out if not given.
    advertise: ReplicaAddress | None = None
    #: How many direct calls run at once in this process; more are proved not run, and queued by the gateway.
    max_direct_calls: Annotated[int, Field(ge=1)] = 1000
    #: How long all threads of a service's `def` handlers may be lost to calls that no caller waits for any more before
    #: the process ends itself in order, to be started anew, in seconds; 0 is for ever.
    threads_lost_seconds: SomeSeconds = 10.0
    #: After how many queued tasks the process ends itself in order, to be started anew; up to a tenth more, at random.
    max_tasks: Annotated[int, Field(ge=1)] | None = None
    #: How much memory the process may have, resident, in bytes: beyond it it ends itself in order, to be started anew.
    max_memory_bytes: Bytes | None = None


class CourierSettings(ConsumerSettings, TargetSettings):
    """The courier's settings."""

    #: Where `/metrics` and the probes are served.
    admin_port: Port | None = 51059
