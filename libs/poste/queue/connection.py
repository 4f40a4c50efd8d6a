"""Connections to Redis that tell "never sent" from "no answer", on which every guarantee hangs.

redis-py's own retries are off: they wrap sending *and* reading, so one lost reply would run a command twice. What may
be run twice is decided by `poste.queue.scripts`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import redis.asyncio as redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from poste.domain.errors import StartError

if TYPE_CHECKING:
    from poste.runtime.settings import StoreSettings

#: How long a connection may take to be made, in seconds.
CONNECT_TIMEOUT_SECONDS: Final = 1.0
#: How long Redis may take to answer, in seconds; an fsync on a busy disk takes up to 0.1 s.
ANSWER_TIMEOUT_SECONDS: Final = 2.0


def text(value: object) -> str:
    """Return what Redis answered as text: redis-py's types leave open which of the two it is."""
    return value.decode() if isinstance(value, bytes) else str(value)


def texts(values: Iterable[object]) -> list[str]:
    """Return each of what Redis answered as text."""
    return [text(value) for value in values]


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
            await self.disconnect(nowait=True)
            raise NotConnected(str(error)) from error

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
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


def connection_options(settings: StoreSettings) -> dict[str, Any]:
    """Return what redis-py's connections (sync or async) need to reach the server of `settings`.

    Raises:
        StartError: The URL or the password's file is wrong.
    """
    try:
        options: dict[str, Any] = dict(parse_url(settings.redis_url))
    except ValueError as error:
        raise StartError(f"POSTE_REDIS_URL: {error}") from error
    if settings.redis_password_file is not None:
        try:
            options["password"] = settings.redis_password_file.read_text().strip()
        except OSError as error:
            raise StartError(f"POSTE_REDIS_PASSWORD_FILE {settings.redis_password_file}: {error.strerror}") from error
    return options


def open_client(
    settings: StoreSettings, *, block_seconds: float = 0.0, connected: Connected | None = None
) -> redis.Redis:
    """Make a client; connects when it is first used. Close it with `aclose()`.

    Args:
        settings: Which server.
        block_seconds: How long its commands may block on purpose; its answers are waited for that much longer.
        connected: Called with each new connection.

    Raises:
        StartError: The URL or the password's file is wrong.
    """
    options = connection_options(settings)
    pool = ConnectionPool(
        connection_class=_CLASSES[options.pop("connection_class", Connection)],
        connected=connected,
        max_connections=1000,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=ANSWER_TIMEOUT_SECONDS + block_seconds,
        retry=Retry(NoBackoff(), 0),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        **options,
    )
    return redis.Redis.from_pool(pool)
