"""Which client `POSTE_REDIS_URL` asks for: one of a single server, or one that finds its way in a Redis Cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

import redis.asyncio as redis

from poste.domain.errors import StartError
from poste.queue.cluster.client import ClusterClient
from poste.queue.cluster.masters import Masters
from poste.queue.errors import reading
from poste.queue.node import DEFAULT_PORT, Connected, Options, names_of_options, open_node, options_of, options_of_url
from poste.runtime import secret_files

if TYPE_CHECKING:
    from pathlib import Path

    from redis.asyncio.connection import AbstractConnection

    from poste.runtime.settings import StoreSettings

#: Speaks to one server, or to a whole cluster.
Client: TypeAlias = redis.Redis

#: The schemes of a URL that names servers of a cluster, and the scheme of each of those.
_CLUSTERS: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_SCHEMES: Final = ("redis", "rediss", "unix", *_CLUSTERS)
#: What every connection is given, whatever a URL says behind its `?`.
_FIXED: Final = frozenset({"retry", "socket_connect_timeout", "socket_timeout"})


def text(value: object) -> str:
    """Return what Redis answered as text, and what can't be one as something that is found nowhere there.

    (redis-py's types leave open which of the two it is.)
    """
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def texts(values: Iterable[object]) -> list[str]:
    """Return each of what Redis answered as text."""
    return [text(value) for value in values]


def is_cluster(settings: StoreSettings) -> bool:
    """Return whether the URL names servers of a cluster."""
    return settings.redis_url.partition("://")[0] in _CLUSTERS


def server_options(settings: StoreSettings) -> list[Options]:
    """Return what reaches each server that the URL names; only a cluster's URL names more than one.

    Raises:
        StartError: The URL or the password's file is wrong.
    """
    try:
        _check(settings.redis_url)
        servers = [options_of_url(url) for url in _urls(settings.redis_url)]
        if is_cluster(settings) and any(int(server.pop("db", 0)) for server in servers):
            raise StartError("POSTE_REDIS_URL: a cluster has database 0 only")
    except ValueError as error:
        raise StartError(f"POSTE_REDIS_URL: {error}") from error
    if settings.redis_password_file is not None:
        password = _password(settings.redis_password_file)
        for server in servers:
            server["password"] = password
    return [*servers]


def open_client(settings: StoreSettings, *, block_seconds: float = 0.0, connected: Connected | None = None) -> Client:
    """Make a client; connects when it is first used. Close it with `aclose()`.

    Args:
        settings: Which server, or which cluster.
        block_seconds: How long its commands may block on purpose; its answers are waited for that much longer.
        connected: Called with each new connection.

    Raises:
        StartError: The URL or the password's file is wrong.
    """
    servers = server_options(settings)
    if not is_cluster(settings):
        return open_node(servers[0], block_seconds=block_seconds, connected=connected)
    opened = functools.partial(open_node, block_seconds=block_seconds, connected=connected)
    return ClusterClient(Masters(servers, opened))


async def servers_of(client: Client) -> list[Client]:
    """Return a client of each server that a client speaks to: itself, or one for each master of its cluster.

    Raises:
        StoreUnreached: No server of the cluster says which masters it has.
    """
    if not isinstance(client, ClusterClient):
        return [client]
    with reading():
        return await client.servers()


async def server_of(client: Client, key: str) -> Client:
    """Return a client of the one server that holds a key.

    Raises:
        StoreUnreached: No server of the cluster is known to hold it.
    """
    if not isinstance(client, ClusterClient):
        return client
    with reading():
        return await client.server_of(key)


async def ping(client: Client) -> None:
    """See whether a server answers.

    Raises:
        StoreUnreached, StoreNotRead: It does not.
    """
    with reading():
        await client.ping()


async def info_of(server: Client) -> dict[str, Any]:
    """Return a server's `INFO`.

    Raises:
        StoreUnreached, StoreNotRead: It does not answer.
    """
    with reading():
        return dict(await server.info())


async def time_of(server: Client) -> float:
    """Return a server's time, in seconds since the epoch; of a cluster, that of one of its servers.

    Raises:
        StoreUnreached, StoreNotRead: It does not answer.
    """
    with reading():
        seconds, microseconds = await server.time()
    return float(seconds + microseconds / 1e6)


def is_cluster_client(client: Client) -> bool:
    """Return whether a client speaks to a cluster."""
    return isinstance(client, ClusterClient)


async def by_server(client: Client, keys: Iterable[str]) -> list[tuple[Client, list[str]]]:
    """Return which keys each server of a cluster holds, with a client of it.

    Raises:
        StoreUnreached: Of a key no server of the cluster is known to hold it.
    """
    held: dict[Client, list[str]] = {}
    for key in keys:
        held.setdefault(await server_of(client, key), []).append(key)
    return [*held.items()]


def name_of(server: Client) -> str:
    """Return where the server of a plain client is, for people."""
    where = options_of(server)
    return str(where.get("path") or f"{where.get('host', 'localhost')}:{where.get('port', DEFAULT_PORT)}")


def name_of_connection(connection: AbstractConnection) -> str:
    """Return where the server of a connection is: the same as `name_of` its client."""
    path = getattr(connection, "path", None)
    return str(path or f"{connection.host}:{connection.port}")  # type: ignore[attr-defined]  # of TCP ones


def known_servers(client: Client, settings: StoreSettings) -> Callable[[], list[Options]]:
    """Return a function that lists the servers that a client knows when it is called, which any thread may do.

    Raises:
        StartError: The URL or the password's file is wrong.
    """
    if isinstance(client, ClusterClient):
        return client.known_servers
    servers = server_options(settings)
    return lambda: servers


def _password(path: Path) -> str:
    what = "Redis' password (POSTE_REDIS_PASSWORD_FILE)"
    content = secret_files.read(path, what).strip()
    try:
        password = content.decode()
    except UnicodeDecodeError:
        raise StartError(f"{what}, {path}: it is not UTF-8") from None
    if not password:
        raise StartError(f"{what}, {path}: it is empty")
    return password


def _check(url: str) -> None:
    """Refuse what redis-py would pass over in silence, or fail on when it first connects.

    Raises:
        ValueError: What is wrong with it.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    database = parts.path.removeprefix("/")
    if parts.scheme != "unix" and database and not (database.isascii() and database.isdecimal()):
        raise ValueError(f"its path names the database, by a number: {database!r} is none")
    known = names_of_options(tls=parts.scheme.startswith("rediss")) - _FIXED
    if unknown := parse_qs(parts.query, keep_blank_values=True).keys() - known:
        raise ValueError(f"it has no option {', '.join(sorted(unknown))}")


def _urls(url: str) -> list[str]:
    """Return the URL of each server: `redis+cluster://user:password@a:1,b:2` names two."""
    parts = urlsplit(url)
    if parts.scheme not in _CLUSTERS:
        return [url]
    user, at, places = parts.netloc.rpartition("@")
    one = parts._replace(scheme=_CLUSTERS[parts.scheme])
    return [one._replace(netloc=f"{user}{at}{place}").geturl() for place in places.split(",")]
