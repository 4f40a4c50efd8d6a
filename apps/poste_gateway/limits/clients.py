"""What counts as one client: the address of the connection, for IPv6 its /64 network."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from aiohttp import web

#: The IPv6 prefix length that one host or home usually gets: within it a client can use any number of addresses.
_IPV6_PREFIX: Final = 64


def peer_of(address: str | None) -> str:
    """Return the client at an address: its /64 network for IPv6, an empty text for a Unix socket.

    Behind a proxy that is the proxy: any client could write another's address into a header.
    """
    if not address or ":" not in address:
        return address or ""
    try:
        found = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> _IPV6_PREFIX << _IPV6_PREFIX, _IPV6_PREFIX)))


def client_of(request: web.BaseRequest) -> str:
    """Return the client of a request; empty if it has no share of its own."""
    protocol: Any = request.protocol
    peer: str = protocol.peer
    return peer
