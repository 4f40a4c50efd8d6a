"""From a server's targets to the addresses of its replicas."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from poste.domain.input_rules import TLS_SCHEME
from poste.runtime import logs
from poste.runtime.addresses import authority

_log: Final = logs.get("resolving")
_DNS: Final = ("dns:///", "dns:", TLS_SCHEME)
#: What names several addresses at once, separated by commas.
_ADDRESSES: Final = ("ipv4:", "ipv6:")

#: Looks up the addresses of a host.
LookUp = Callable[[str], Awaitable[Iterable[str]]]


class Resolver:
    """Resolves the targets of one server, and remembers what each last led to.

    A name that is unknown now leads to what it last led to: a cluster's DNS is empty or stale for long, and says
    nothing on whether the replicas are there.
    """

    def __init__(self, look_up: LookUp | None = None) -> None:
        """Know nothing yet.

        Args:
            look_up: Looks a host's addresses up; the system's resolver if not given. Raises OSError.
        """
        self._look_up = look_up or _system_look_up
        self._last: dict[str, frozenset[str]] = {}

    async def resolve(self, targets: tuple[str, ...]) -> frozenset[str]:
        """Return the addresses that the targets lead to now."""
        return frozenset().union(*(await self.resolve_each(targets)).values())

    async def resolve_each(self, targets: tuple[str, ...]) -> Mapping[str, frozenset[str]]:
        """Return the addresses that each target leads to now."""
        found = await asyncio.gather(*(self._resolve_one(target) for target in targets))
        self._last = dict(zip(targets, found, strict=True))
        return self._last

    async def _resolve_one(self, target: str) -> frozenset[str]:
        for scheme in _ADDRESSES:
            if target.startswith(scheme):
                return frozenset(f"{scheme}{one}" for one in target.removeprefix(scheme).split(","))
        split = _host_and_port(target)
        if split is None:
            return frozenset({target.removeprefix(TLS_SCHEME)})
        host, port = split
        try:
            addresses = await self._look_up(host)
        except (OSError, UnicodeError) as error:
            _log.debug("name not resolved", target=target, error=str(error))
            return self._last.get(target, frozenset())
        return frozenset(authority(address, port) for address in addresses)


def looks_up(targets: Iterable[str]) -> bool:
    """Return whether a name is looked up for any of the targets: the others lead to the same addresses for ever."""
    return any(not target.startswith(_ADDRESSES) and _host_and_port(target) is not None for target in targets)


def tls_host(target: str) -> str | None:
    """Return the host of a target that is called over TLS; None of one that is not."""
    if not target.startswith(TLS_SCHEME):
        return None
    return target.removeprefix(TLS_SCHEME).rpartition(":")[0].strip("[]")


async def _system_look_up(host: str) -> list[str]:
    records = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(record[4][0]) for record in records]


def _host_and_port(target: str) -> tuple[str, int] | None:
    """Take a target apart; None if it is no name that is looked up here."""
    for scheme in _DNS:
        target = target.removeprefix(scheme)
    if target.startswith("//"):
        # A name server of its own is left to gRPC to ask.
        return None
    host, separator, port = target.rpartition(":")
    host = host.strip("[]")
    if not (separator and host and port.isdecimal()):
        return None
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # A scheme of gRPC's own, such as `unix:` or `xds:`, is left to gRPC.
        return None if ":" in host else (host, int(port))
    return None
