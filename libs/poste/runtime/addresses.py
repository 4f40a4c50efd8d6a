"""Addresses to listen on, and how they are spelt."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from pathlib import Path
from typing import Final

from poste.domain.errors import StartError

#: How gRPC spells a socket in the file system as an address: this, and its absolute path.
UNIX: Final = "unix:"
#: The longest path of a socket that Linux takes, in bytes (unix(7)).
MAX_SOCKET_PATH: Final = 107
#: What needs no escape in any address that names the path.
_PLAIN: Final = re.compile(r"/[\w./+=@-]*", re.ASCII)


def authority(host: str, port: int) -> str:
    """Spell host and port as a URL does (IPv6 in brackets, RFC 3986)."""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).version == 6:  # noqa: PLR2004 - the protocol's own number
            return f"[{host}]:{port}"
    return f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether who listens on a host can be reached from this machine alone."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def unusable(host: str, port: int, error: OSError) -> StartError:
    """Return the error for an address that can't be listened on: it is taken, or not this host's."""
    return StartError(f"can't listen on {authority(host, port)}: {os.strerror(error.errno) if error.errno else error}")


def names_a_socket(path: Path) -> bool:
    """Return whether a path may be a socket's: absolute, short enough, and spelt the same in every address."""
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH and _PLAIN.fullmatch(str(path)) is not None


def path_of(address: str) -> Path | None:
    """Return the path of an address that names a socket in the file system; None if it names a host and port."""
    return Path(address.removeprefix(UNIX)) if address.startswith(UNIX) else None
