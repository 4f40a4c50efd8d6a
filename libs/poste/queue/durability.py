"""Is what Redis says it keeps really kept? Checked on every new connection, and again on every pass.

With `appendfsync always` a reply goes out after the fsync: nothing more is to be asked. With `everysec` a write is on
disk only when WAITAOF (Redis ≥ 7.2) says so. Anything weaker is refused, unless a setting named for what it risks
allows it.

Whatever is told as a fact that others act upon waits for the disk, not only an acceptance: a result (its service
forgets it then), a cancellation, what an operator did, and a task's end when it is read.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from redis.exceptions import RedisError

from poste.domain.errors import StartError, StoreUnreached
from poste.queue.connection import is_cluster, open_client, servers_of, text
from poste.queue.node import NotConnected

if TYPE_CHECKING:
    import redis.asyncio as redis

    from poste.runtime.settings import StoreSettings

_WAITAOF_SINCE: Final = (7, 2)


class Durability(enum.Enum):
    """What a reply of this Redis proves."""

    #: The write is on disk.
    ON_REPLY = enum.auto()
    #: Nothing until WAITAOF says so.
    ON_WAITAOF = enum.auto()
    #: Nothing, and somebody decided that it need not.
    NONE = enum.auto()


class KeepsTooLittle(StoreUnreached):
    """It answers, and must not be given calls: it would lose them."""


#: Tells what a reply proves of the Redis that holds a queue.
Proof: TypeAlias = Callable[[str], Awaitable[Durability]]


async def on_reply(_queue: str) -> Durability:
    """Take every reply for a proof."""
    return Durability.ON_REPLY


async def check(
    client: redis.Redis,
    *,
    in_cluster: bool = False,
    accept_losing_last_second: bool = False,
    accept_losing_everything: bool = False,
) -> Durability:
    """Find out what one server keeps.

    Args:
        client: Of that server.
        in_cluster: It was found by the URL of a cluster.
        accept_losing_last_second: Go on although it may lose what it was given in the last second.
        accept_losing_everything: Go on although it loses everything when it stops.

    Raises:
        KeepsTooLittle: The text says which setting is wrong.
        StoreUnreached: It can't be asked.
    """
    try:
        config = await client.config_get("*")
        info = await client.info("server")
    except RedisError as error:
        raise StoreUnreached(f"Redis can't be asked how it keeps data: {error}") from error
    # Valkey has its own name for it.
    if info.get("server_mode", info.get("redis_mode")) == "cluster" and not in_cluster:
        raise StoreUnreached(
            "Redis is one of a cluster: its URL must begin with redis+cluster:// (or rediss+cluster://)"
        )
    settings = {text(name): text(value) for name, value in config.items()}
    if settings.get("maxmemory-policy") != "noeviction":
        raise KeepsTooLittle(
            f"Redis would throw accepted calls away: maxmemory-policy is {settings.get('maxmemory-policy')}, "
            "must be noeviction"
        )
    if settings.get("appendonly") != "yes":
        if accept_losing_everything:
            return Durability.NONE
        raise KeepsTooLittle("Redis would lose accepted calls when it stops: appendonly is no, must be yes")
    if settings.get("appendfsync") == "always" and settings.get("no-appendfsync-on-rewrite") == "no":
        return Durability.ON_REPLY
    if accept_losing_everything or (accept_losing_last_second and settings.get("appendfsync") != "no"):
        # Somebody decided that nobody is to wait for it, which takes 0.1 s for each batch.
        return Durability.NONE if accept_losing_everything else Durability.ON_REPLY
    version = tuple(int(part) for part in str(info.get("valkey_version", info["redis_version"])).split(".")[:2])
    if version >= _WAITAOF_SINCE and settings.get("appendfsync") != "no":
        return Durability.ON_WAITAOF
    raise KeepsTooLittle(
        f"Redis could lose accepted calls when its host stops: appendfsync is {settings.get('appendfsync')}, "
        f"no-appendfsync-on-rewrite is {settings.get('no-appendfsync-on-rewrite')}; must be always and no "
        "(or Redis at least 7.2)"
    )


async def require(settings: StoreSettings) -> None:
    """Check a server, or each master of a cluster, once, before anything is started on it.

    Raises:
        StartError: It can't be reached, or keeps too little; the text says what is wrong in one line.
    """
    client = open_client(settings)
    try:
        for server in await servers_of(client):
            await check(server, in_cluster=is_cluster(settings))
    except (StoreUnreached, NotConnected) as error:
        raise StartError(str(error)) from error
    finally:
        await client.aclose()
