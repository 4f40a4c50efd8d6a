"""A client of one Redis server, with errors that distinguish "never sent" from "no answer": every guarantee needs it.

redis-py's own retries are off: they wrap sending *and* reading, so one lost reply would run a command twice. What may
be run twice is decided by `poste.queue.scripts`.

What Poste uses of redis-py's insides stands in this file alone: `INSIDES` lists it, and `poste.runtime.insides` checks
it when a client is first made. What it is relied upon for is shown by `tests/integration/test_connection.py` (what
never was sent, what broke, what is left open), `tests/hostile/test_00_store_connections.py` (how many connections there
are), `tests/integration/test_cluster.py` (pipelines and slots), `tests/integration/test_redis_tls.py` (TLS) and
`tests/unit/test_redis_url.py` (URLs).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import hiredis
import redis as blocking_redis
import redis.asyncio as redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry as BlockingRetry

from poste.runtime import insides, metrics

with insides.importing("redis"):
    from redis import crc
    from redis.asyncio.connection import (
        AbstractConnection,
        Connection,
        ConnectionPool,
        RedisSSLContext,
        SSLConnection,
        UnixDomainSocketConnection,
        parse_url,
    )
    from redis.maint_notifications import MaintNotificationsConfig

#: What is used of redis-py's insides: by class, module or function, its names or parameters.
INSIDES: Final = (
    (
        AbstractConnection,
        (
            # Where a connection is made, and where a command is spelt and sent.
            *("connect_check_health", "pack_command", "send_packed_command"),
            # What the hook of a new connection sends, and how a connection ends.
            *("is_connected", "send_command", "read_response", "disconnect"),
        ),
    ),
    (AbstractConnection.disconnect, ("nowait",)),
    (
        AbstractConnection.__init__,
        ("retry", "socket_timeout", "socket_connect_timeout", "maint_notifications_config", "driver_info"),
    ),
    (Connection.__init__, ("host", "port")),
    # What keeps the TLS context that is made of a URL's options; a connection has one as `ssl_context`.
    (RedisSSLContext, ("context",)),
    (blocking_redis.Redis.__init__, ("maint_notifications_config", "driver_info")),
    # Where a connection comes into being, is lent and comes back; the last is what a client was made with.
    (ConnectionPool, ("make_connection", "get_connection", "release", "aclose", "connection_kwargs")),
    # One whose commands are collected and sent by another object.
    (Pipeline, ("execute_command", "execute")),
    (Pipeline.__init__, ("connection_pool", "response_callbacks", "transaction", "shard_hint")),
    (MaintNotificationsConfig.__init__, ("enabled",)),
    (crc, ("key_slot", "REDIS_CLUSTER_HASH_SLOTS")),
    (hiredis, ("pack_command",)),
)

#: How many slots a cluster's keys are dealt out to.
SLOTS: Final[int] = crc.REDIS_CLUSTER_HASH_SLOTS
#: Redis' port where none is given.
DEFAULT_PORT: Final = 6379
#: How long a connection may take to be made, in seconds.
CONNECT_TIMEOUT_SECONDS: Final = 1.0
#: How long Redis may take to answer, in seconds; an fsync on a busy disk takes up to 0.1 s.
ANSWER_TIMEOUT_SECONDS: Final = 2.0
#: How many connections a client makes, at most. What is asked beyond that waits its turn: Redis does one thing at a
#: time, and clients that wait for their tasks, or ask for nothing but figures, may be thousands.
MAX_CONNECTIONS: Final = 64

#: What redis-py's connections (sync or async) need to reach a server.
Options: TypeAlias = Mapping[str, Any]
#: Called with each connection once it is made, before anything is sent over it.
Connected = Callable[[AbstractConnection], Awaitable[None]]
#: A command as it is given to a client: its words, and redis-py's keyword arguments.
Command: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


class NotConnected(RedisConnectionError):  # noqa: N818 - redis-py's base is untyped; it states a fact
    """No connection could be made: the command was never sent."""


class _Precise(AbstractConnection):
    """A connection whose failure to connect is an error of its own, and whose failures are all RedisErrors.

    Attributes:
        retired: Its client is closed: it is not made again.
    """

    def __init__(self, *args: Any, connected: Connected | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connected = connected
        self.retired = False

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        if self.is_connected:
            return
        try:
            self._refuse_if_retired()
            await super().connect_check_health(check_health, retry_socket_connect)
            if self._connected is not None:
                await self._connected(self)
            # Its client may have been closed meanwhile.
            self._refuse_if_retired()
        except (RedisError, OSError) as error:
            metrics.store_errors_total.labels("unreached").inc()
            await self.disconnect(nowait=True)
            raise NotConnected(str(error)) from error
        except BaseException:
            # Cancelled on the way: the next user of the connection would take it for one that is ready.
            await self.disconnect(nowait=True)
            raise

    def _refuse_if_retired(self) -> None:
        if self.retired:
            raise NotConnected("this client of Redis is closed")

    def pack_command(self, *args: Any) -> list[bytes]:
        """Spell a command in C: redis-py's asyncio connections do it in Python, at a microsecond for each argument."""
        # A command's name may have two words (`CLIENT ID`).
        name = args[0] if isinstance(args[0], bytes) else args[0].encode()
        return [hiredis.pack_command((*name.split(), *args[1:]))]

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        metrics.store_round_trips_total.inc()
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            # uvloop's word for a transport that has broken and was not read from since; redis-py lets it through.
            raise RedisConnectionError(str(error)) from error

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Read an answer; what is raised of it is not held by where it was raised, nor what the command brought by it.

        redis-py raises the very object that it has read, so that and its traceback hold each other: until the garbage
        collector runs, the command's arguments would stay, 16 MB of each that was refused.
        """
        try:
            return await super().read_response(*args, **kwargs)
        except RedisError as error:
            error.__traceback__ = None
            raise


class _PreciseTcp(_Precise, Connection):
    pass


class _PreciseSsl(_Precise, SSLConnection):
    pass


class _PreciseUnix(_Precise, UnixDomainSocketConnection):
    pass


_CLASSES: Final[dict[type[AbstractConnection], type[AbstractConnection]]] = {
    Connection: _PreciseTcp,
    SSLConnection: _PreciseSsl,
    UnixDomainSocketConnection: _PreciseUnix,
}


class _Pool(ConnectionPool):
    """Connections that are waited for in turn once there are as many as there may be; redis-py's own pool fails then.

    What waits as long as Redis may take to answer and gets none was never sent. Once the pool is closed no connection
    is made any more, nor again: redis-py's own would connect for a late caller, and nothing would close that.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)
        self._made: list[_Precise] = []
        self._tls: RedisSSLContext | None = None
        self._given: set[AbstractConnection] = set()
        self._closed = False

    def make_connection(self) -> AbstractConnection:
        connection: _Precise = super().make_connection()  # type: ignore[no-untyped-call]
        connection.retired = self._closed
        if isinstance(connection, _PreciseSsl):
            # Each would make its own, and read all of the host's authorities for it: tens of milliseconds of the loop.
            self._tls = connection.ssl_context = self._tls or connection.ssl_context
        self._made.append(connection)
        return connection

    async def get_connection(self, *_: Any, **__: Any) -> AbstractConnection:
        await self._take_place()
        try:
            connection: AbstractConnection = await super().get_connection()  # type: ignore[no-untyped-call]
        except BaseException:
            self._room.release()
            raise
        self._given.add(connection)
        return connection

    async def _take_place(self) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await self._room.acquire()
        except TimeoutError as error:
            metrics.store_errors_total.labels("unreached").inc()
            raise NotConnected(f"none of {MAX_CONNECTIONS} connections to Redis was free in time") from error

    async def release(self, connection: AbstractConnection) -> None:
        try:
            await super().release(connection)
        finally:
            if connection in self._given:
                self._given.discard(connection)
                self._room.release()

    async def aclose(self) -> None:
        """Close every connection, lent or not. Nothing is waited for, so a cancellation leaves none of them open."""
        self._closed = True
        for connection in self._made:
            connection.retired = True
            await connection.disconnect(nowait=True)


class Batch(Pipeline):
    """A pipeline whose commands are not sent by itself: `send` does it, and returns what each of them answers."""

    def __init__(self, client: redis.Redis, send: Callable[[list[Command]], Awaitable[list[Any]]]) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction=False, shard_hint=None)
        self._commands: list[Command] = []
        self._send = send

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Keep a command until `execute`; returns this pipeline."""
        self._commands.append((args, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send what is kept; of the answers an error is raised, or is among them."""
        commands, self._commands = self._commands, []
        results = await self._send(commands)
        if raise_on_error and (errors := [one for one in results if isinstance(one, Exception)]):
            raise errors[0]
        return results


@functools.cache
def _check_insides() -> None:
    insides.check("redis", INSIDES)


def open_node(options: Options, *, block_seconds: float = 0.0, connected: Connected | None = None) -> redis.Redis:
    """Make a client of one server; connects when it is first used. Close it with `aclose()`.

    Args:
        options: What redis-py's connections need to reach it.
        block_seconds: How long its commands may block on purpose; its answers are waited for that much longer.
        connected: Called with each new connection.

    Raises:
        StartError: The redis-py that is installed is not one that Poste fits.
    """
    _check_insides()
    rest = dict(options)
    kind = rest.pop("connection_class", Connection)
    # What ends a handshake of TLS is an answer: on a busy host it takes as long as any.
    handshake_seconds = ANSWER_TIMEOUT_SECONDS if kind is SSLConnection else 0.0
    pool = _Pool(
        connection_class=_CLASSES[kind],
        connected=connected,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS + handshake_seconds,
        socket_timeout=ANSWER_TIMEOUT_SECONDS + block_seconds,
        retry=Retry(NoBackoff(), 0),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        # Its name need not be told (CLIENT SETINFO): no user of ours may, and each refusal would stand in ACL LOG.
        driver_info=None,
        **rest,
    )
    return redis.Redis.from_pool(pool)


def open_blocking_node(options: Options, *, timeout_seconds: float) -> blocking_redis.Redis:
    """Make a client of one server for a thread of its own: its calls block. Close it with `close()`.

    Args:
        options: What redis-py's connections need to reach it.
        timeout_seconds: How long an answer may take.

    Raises:
        StartError: The redis-py that is installed is not one that Poste fits.
    """
    _check_insides()
    rest = dict(options)
    tls = rest.pop("connection_class", None) is SSLConnection
    if "path" in rest:
        rest["unix_socket_path"] = rest.pop("path")
    return blocking_redis.Redis(
        ssl=tls,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=timeout_seconds,
        retry=BlockingRetry(NoBackoff(), 0),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        # Its name need not be told (CLIENT SETINFO): no user of ours may, and each refusal would stand in ACL LOG.
        driver_info=None,
        **rest,
    )


def options_of_url(url: str) -> dict[str, Any]:
    """Return what reaches the server that a `redis://`, `rediss://` or `unix://` URL names.

    Raises:
        ValueError: It is none.
    """
    return dict(parse_url(url))


def names_of_options(*, tls: bool) -> frozenset[str]:
    """Return the connection options of redis-py that may stand behind a URL's `?`."""
    kind = SSLConnection if tls else Connection
    return frozenset({*inspect.signature(AbstractConnection).parameters, *inspect.signature(kind).parameters})


def options_of(client: redis.Redis) -> Options:
    """Return what reaches the server of a client that `open_node` made."""
    options: Options = client.connection_pool.connection_kwargs
    return options


def slot_of(key: str | bytes) -> int:
    """Return the slot of a cluster that a key is in."""
    return int(crc.key_slot(key.encode() if isinstance(key, str) else key))
