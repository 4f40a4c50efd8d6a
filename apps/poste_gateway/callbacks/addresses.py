"""Which addresses a callback may go to: those of the public Internet, and the networks that the operator names.

A client names the URL, so it could have this gateway call what only this gateway reaches. A name is resolved once for
each try, and the connection goes to the very addresses that were judged: a name that meant another a moment ago gains
nothing (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from aiohttp import AddrInfoType, BaseConnector, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from poste.runtime import leaving
from poste.runtime.setting_values import Network

_Address = IPv4Address | IPv6Address
#: What carries an IPv4 address within one of IPv6 that is reached by it: NAT64 (RFC 6052) and 6to4 (RFC 3056).
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_SIX_TO_FOUR: Final = ipaddress.ip_network("2002::/16")
#: What is special besides what every version of Python knows as such: IETF's own (a cloud has its metadata there),
#: relays, and what a cloud's machines reach their host by at an address that looks public (Azure).
_SPECIAL: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            *("192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4", "168.63.129.16/32"),
            *("64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fec0::/10"),
        ),
    )
)


class ForbiddenAddressError(OSError):
    """A name means an address that no callback may go to."""

    def __init__(self, host: str, address: _Address | str) -> None:
        super().__init__(f"{host} is at {address}, which is not public")


def check(host: str, address: str, allowed: tuple[Network, ...]) -> None:
    """Check an address, which a host's name means.

    Raises:
        ForbiddenAddressError: No callback may go there.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        raise ForbiddenAddressError(host, address) from None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if not any(found in network for network in allowed if network.version == found.version) and not _is_public(found):
        raise ForbiddenAddressError(host, found)


def _is_public(address: _Address) -> bool:
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return _is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address in _SIX_TO_FOUR:
            return _is_public(IPv4Address(int(address) >> 80 & 0xFFFF_FFFF))
    special = any(address in network for network in _SPECIAL if network.version == address.version)
    return address.is_global and not address.is_multicast and not special


@contextlib.asynccontextmanager
async def connecting(
    allowed: tuple[Network, ...], *, limit: int, trust: ssl.SSLContext
) -> AsyncIterator[BaseConnector]:
    """Have what connects to public addresses and to those of some networks alone.

    Args:
        allowed: These networks.
        limit: How many connections there are at once.
        trust: By which certificates are verified.
    """

    def judged(info: AddrInfoType) -> socket.socket:
        # A host that is an address itself is not resolved.
        family, kind, protocol, _, place = info
        check(str(place[0]), str(place[0]), allowed)
        return socket.socket(family, kind, protocol)

    resolver = CheckedResolver(allowed, limit=limit)
    try:
        async with TCPConnector(
            resolver=resolver, use_dns_cache=False, force_close=True, limit=limit, socket_factory=judged, ssl=trust
        ) as connector:
            yield connector
    finally:
        await resolver.close()


class CheckedResolver(AbstractResolver):
    """Resolves names to addresses that a callback may go to, each time anew."""

    def __init__(self, allowed: tuple[Network, ...], *, limit: int) -> None:
        """Resolve `limit` names at once."""
        self._allowed = allowed
        # Not the loop's threads: a client's name whose server is silent keeps one for half a minute.
        self._threads = ThreadPoolExecutor(limit, thread_name_prefix="callback names")
        self._looked_up: list[str] = []
        leaving.watch(lambda: [f"the look-up of {host}" for host in self._looked_up])

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises:
            OSError: There are none.
            ForbiddenAddressError: One of them is one that no callback may go to: the others are not tried either.
        """

        def look_up() -> list[tuple[Any, ...]]:
            self._looked_up.append(host)
            try:
                return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
            finally:
                self._looked_up.remove(host)

        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        except UnicodeError as error:
            # It can't be spelt for DNS.
            raise OSError(f"{host} is no name: {error}") from error
        results = []
        for family_found, _, protocol, _, place in found:
            address = str(place[0])
            check(host, address, self._allowed)
            results.append(
                ResolveResult(
                    hostname=host, host=address, port=port, family=family_found, proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )  # fmt: skip
        return results

    async def close(self) -> None:
        """Begin no look-up any more; those that are under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
