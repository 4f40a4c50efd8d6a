"""Whether Redis keeps on disk what it has answered. Checked on every new connection, and again on every pass.

With `appendfsync always` a reply goes out after the fsync: nothing more is to be asked. With `everysec` a write is on
disk only when WAITAOF (Redis ≥ 7.2) says so. Anything weaker is refused, unless a setting named for what it risks
allows it.

Whatever others act upon waits for the disk, not only an acceptance: that a result is stored (its service forgets it
then), a cancellation, what an operator did, and a task's end when it is read.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from redis.exceptions import ResponseError

from poste.domain.errors import StartError, StoreError, StoreUnreached
from poste.queue.connection import is_cluster, open_client, server_of, servers_of, text
from poste.queue.errors import reading
from poste.queue.keys import Keys

if TYPE_CHECKING:
    import redis.asyncio as redis
    from redis.asyncio.connection import AbstractConnection

    from poste.runtime.setting_values import Keeps
    from poste.runtime.settings import StoreSettings

_WAITAOF_SINCE: Final = (7, 2)
#: How often a consumer checks its server's persistence settings, in seconds.
_CHECK_SECONDS: Final = 1.0
#: The settings of a server that say what it keeps on disk.
_PERSISTENCE_KEYS: Final = frozenset({"appendonly", "appendfsync", "no-appendfsync-on-rewrite"})


class Durability(enum.Enum):
    """What a reply of this Redis proves."""

    #: The write is on disk.
    ON_REPLY = enum.auto()
    #: Nothing until WAITAOF says so.
    ON_WAITAOF = enum.auto()
    #: By the settings alone (`redis_keeps`, `accept_losing_…`): nothing is asked of the server.
    AS_DECLARED = enum.auto()


class KeepsTooLittle(StoreUnreached):
    """The server answers, and must not be given calls: it may lose them."""


#: Returns what a reply proves of the Redis that holds a queue.
Proof: TypeAlias = Callable[[str], Awaitable[Durability]]


async def on_reply(_queue: str) -> Durability:
    """Take every reply for a proof."""
    return Durability.ON_REPLY


async def check(
    client: redis.Redis,
    *,
    in_cluster: bool = False,
    keeps: Keeps | None = None,
    accept_losing_last_second: bool = False,
    accept_losing_everything: bool = False,
) -> Durability:
    """Find out what one server keeps.

    Args:
        client: Of that server.
        in_cluster: It was found by the URL of a cluster.
        keeps: What its operator says that it keeps; counts only if it does not show that itself.
        accept_losing_last_second: Go on although it may lose what it was given in the last second.
        accept_losing_everything: Go on although it loses everything when it stops.

    Raises:
        KeepsTooLittle: The text says which setting is wrong.
        StoreUnreached, StoreNotRead: It can't be asked.
    """
    with reading("Redis can't be asked how it keeps data: "):
        info = {**await client.info("server"), **await client.info("memory")}
        config, silence = await _config(client)
    settings = {text(name): text(value) for name, value in config.items()}
    _check_mode(info, in_cluster=in_cluster)
    _check_eviction(settings.get("maxmemory-policy", info.get("maxmemory_policy")))
    if not settings.keys() >= _PERSISTENCE_KEYS:
        _check_declared(
            keeps,
            silence,
            accept_losing_last_second=accept_losing_last_second,
            accept_losing_everything=accept_losing_everything,
        )
        return Durability.AS_DECLARED
    # Valkey has its own name for it.
    version = tuple(int(part) for part in str(info.get("valkey_version", info["redis_version"])).split(".")[:2])
    return _shown(
        settings,
        knows_waitaof=version >= _WAITAOF_SINCE,
        accept_losing_last_second=accept_losing_last_second,
        accept_losing_everything=accept_losing_everything,
    )


async def _config(client: redis.Redis) -> tuple[dict[Any, Any], str]:
    """Return its configuration; of a managed server, which refuses CONFIG, nothing, and its words for that.

    The refusal is what is to be found out here, so it is no error of the store's.
    """
    try:
        return await client.config_get("*"), "it does not show all of its configuration"
    except ResponseError as error:
        return {}, str(error)


def _check_mode(info: Mapping[str, Any], *, in_cluster: bool) -> None:
    """Refuse a server of a cluster that is reached by the URL of a single one: most keys would not be its own."""
    # Valkey has its own name for it.
    if info.get("server_mode", info.get("redis_mode")) == "cluster" and not in_cluster:
        raise StoreUnreached(
            "Redis is one of a cluster: its URL must begin with redis+cluster:// (or rediss+cluster://)"
        )


def _check_eviction(policy: str | None) -> None:
    """Refuse a server that drops keys when its memory is full."""
    if policy != "noeviction":
        raise KeepsTooLittle(f"Redis would throw accepted calls away: maxmemory-policy is {policy}, must be noeviction")


def _shown(
    settings: Mapping[str, str],
    *,
    knows_waitaof: bool,
    accept_losing_last_second: bool,
    accept_losing_everything: bool,
) -> Durability:
    """Return what a server keeps that shows its persistence settings.

    Raises:
        KeepsTooLittle: It is less than is accepted; the text names the setting.
    """
    if settings.get("appendonly") != "yes":
        if accept_losing_everything:
            return Durability.AS_DECLARED
        raise KeepsTooLittle("Redis would lose accepted calls when it stops: appendonly is no, must be yes")
    if settings.get("appendfsync") == "always" and settings.get("no-appendfsync-on-rewrite") == "no":
        return Durability.ON_REPLY
    if accept_losing_everything or (accept_losing_last_second and settings.get("appendfsync") != "no"):
        # The operator decided that no call is to wait for it, which takes 0.1 s for each batch.
        return Durability.AS_DECLARED if accept_losing_everything else Durability.ON_REPLY
    if knows_waitaof and settings.get("appendfsync") != "no":
        return Durability.ON_WAITAOF
    raise KeepsTooLittle(
        f"Redis could lose accepted calls when its host stops: appendfsync is {settings.get('appendfsync')}, "
        f"no-appendfsync-on-rewrite is {settings.get('no-appendfsync-on-rewrite')}; must be always and no "
        "(or Redis at least 7.2)"
    )


def _check_declared(
    keeps: Keeps | None, silence: str, *, accept_losing_last_second: bool, accept_losing_everything: bool
) -> None:
    """Judge a server that does not show its persistence settings, by POSTE_REDIS_KEEPS.

    Raises:
        KeepsTooLittle: It is not set, or allows more loss than is accepted; the text names the setting that is needed.
    """
    match keeps:
        case None:
            raise KeepsTooLittle(
                f"Redis does not say what it keeps ({silence}): POSTE_REDIS_KEEPS must say what its provider promises: "
                "always (what it has answered), second (all but the last second) or nothing"
            )
        case "second" if not (accept_losing_last_second or accept_losing_everything):
            raise KeepsTooLittle(
                "Redis may lose the last second of accepted calls, says POSTE_REDIS_KEEPS: it is trusted with none "
                "unless POSTE_ACCEPT_LOSING_LAST_SECOND says so too"
            )
        case "nothing" if not accept_losing_everything:
            raise KeepsTooLittle(
                "Redis would lose accepted calls when it stops, says POSTE_REDIS_KEEPS: it is trusted with none "
                "unless POSTE_ACCEPT_LOSING_EVERYTHING says so too"
            )


class ConsumerCheck:
    """Checks the persistence of queues' servers for their consumers, which go on whatever the result is."""

    def __init__(self, settings: StoreSettings) -> None:
        """Know nothing yet."""
        self._settings = settings
        self._keys = Keys(settings.key_prefix)
        #: By server.
        self._found: dict[redis.Redis, Durability] = {}
        self._forgotten_at = 0.0

    async def connected(self, _: AbstractConnection) -> None:
        """Forget what was found: this may be another server, or the same with other settings."""
        self._found.clear()

    async def find(self, client: redis.Redis, queue: str) -> Durability:
        """Return what a reply proves; checked at each new connection, and once a second.

        Raises:
            StoreUnreached, StoreNotRead: It can't be asked.
        """
        now = time.monotonic()
        if now > self._forgotten_at + _CHECK_SECONDS:
            self._found.clear()
            self._forgotten_at = now
        server = await server_of(client, self._keys.of(queue).ready)
        found = self._found.get(server)
        if found is None:
            # Set after the check, which may itself make the connection that clears it.
            found = self._found[server] = await self._check(server)
        return found

    async def _check(self, server: redis.Redis) -> Durability:
        try:
            found = await check(server, in_cluster=is_cluster(self._settings), keeps=self._settings.redis_keeps)
        except KeepsTooLittle:
            return Durability.AS_DECLARED
        # The operator decided that no call is to wait for the disk.
        accepted = self._settings.accept_losing_last_second or self._settings.accept_losing_everything
        return Durability.AS_DECLARED if accepted else found


async def require(settings: StoreSettings) -> None:
    """Check a server, or each master of a cluster, once, before anything is started on it.

    Raises:
        StartError: It can't be reached, or keeps too little; the text says what is wrong in one line.
    """
    client = open_client(settings)
    try:
        for server in await servers_of(client):
            await check(
                server,
                in_cluster=is_cluster(settings),
                keeps=settings.redis_keeps,
                accept_losing_last_second=settings.accept_losing_last_second,
                accept_losing_everything=settings.accept_losing_everything,
            )
    except StoreError as error:
        raise StartError(str(error)) from error
    finally:
        await client.aclose()
