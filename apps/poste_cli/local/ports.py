"""Loopback ports: free ones for the parts, and whether the one that the user asked for is free."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

from poste.domain.errors import StartError

HOST: Final = "127.0.0.1"
#: Parts live on ports from here up to where the system's own choices begin: a part that is stopped must find its port
#: again, and a port of the system's range may meanwhile have become some connection's near end.
_LOWEST: Final = 12000
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DEFAULT_RANGE_START: Final = 32768
_TRIES: Final = 2000


def check(port: int) -> None:
    """See that a port can be listened on.

    Raises:
        StartError: It can't; the text says why.
    """
    if why := _refusal(port):
        raise StartError(f"can't listen on {HOST}:{port}: {why}; choose another with --port")


def free(count: int, *, owner: str | None = None) -> list[int]:
    """Return so many different free ports.

    Args:
        count: How many.
        owner: Who asks again gets the same ones, but for those that are taken meanwhile.

    Raises:
        StartError: There are not so many.
    """
    found: list[int] = []
    highest = max(_range_start(), _LOWEST + 1000)
    for place in range(count):
        # One sequence for each place: a port that is taken moves no other.
        chance = random.Random(None if owner is None else f"{owner} {place}")  # noqa: S311 - no secret
        tried = (chance.randrange(_LOWEST, highest) for _ in range(_TRIES))
        port = next((port for port in tried if port not in found and not _refusal(port)), None)
        if port is None:
            raise StartError(f"found no {count} free ports on {HOST}")
        found.append(port)
    return found


def _refusal(port: int) -> str | None:
    """Return why a port can't be listened on; None if it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections that linger from an earlier life are no obstacle, one that listens is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return str(error.strerror)
    return None


def _range_start() -> int:
    try:
        return int(_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return _DEFAULT_RANGE_START
