"""One Redis server, and connections to it that tell "never sent" from "no answer", on which every guarantee hangs.

redis-py's own retries are off: they wrap sending *and* reading, so one lost reply would run a command twice. What may
be run twice is decided by `poste.queue.scripts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import hiredis
import redis.asyncio as redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from poste.runtime import metrics

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


class NotConnected(RedisConnectionError):  # noqa: N818 - redis-py's base is untyped; it states a fact
    """No connection could be made: the command was never sent."""


class _Telling(AbstractConnection):
    """A connection whose failure to connect is an error of its own, and whose failures are all RedisErrors."""

    def __init__(self, *args: Any, connected: Connected | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connected = connected

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        if self.is_connected:
            return
        try:
            await super().connect_check_health(check_health, retry_socket_connect)
            if self._connected is not None:
                await self._connected(self)
        except (RedisError, OSError) as error:
            metrics.store_errors_total.labels("unreached").inc()
            await self.disconnect(nowait=True)
            raise NotConnected(str(error)) from error

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


class _TellingTcp(_Telling, Connection):
    pass


class _TellingSsl(_Telling, SSLConnection):
    pass


class _TellingUnix(_Telling, UnixDomainSocketConnection):
    pass


_CLASSES: Final[dict[type[AbstractConnection], type[AbstractConnection]]] = {
    Connection: _TellingTcp,
    SSLConnection: _TellingSsl,
    UnixDomainSocketConnection: _TellingUnix,
}


class _Pool(ConnectionPool):
    """Connections that are waited for in turn once there are as many as there may be; redis-py's own pool fails then.

    What waits as long as Redis may take to answer and gets none was never sent.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)
        self._given: set[AbstractConnection] = set()

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


def open_node(options: Options, *, block_seconds: float = 0.0, connected: Connected | None = None) -> redis.Redis:
    """Make a client of one server; connects when it is first used. Close it with `aclose()`.

    Args:
        options: What redis-py's connections need to reach it.
        block_seconds: How long its commands may block on purpose; its answers are waited for that much longer.
        connected: Called with each new connection.
    """
    rest = dict(options)
    pool = _Pool(
        connection_class=_CLASSES[rest.pop("connection_class", Connection)],
        connected=connected,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=ANSWER_TIMEOUT_SECONDS + block_seconds,
        retry=Retry(NoBackoff(), 0),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        **rest,
    )
    return redis.Redis.from_pool(pool)
