"""What a client is to the limits: an address (of IPv6 a network), as far as the connection shows it."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from aiohttp import web

#: What one host, or one home, is given of IPv6: whoever has it can come from as many addresses as it likes.
_IPV6_PREFIX: Final = 64


def peer_of(address: str | None) -> str:
    """Return the client at an address: an IPv6 one with all its neighbours, empty if it comes by no network.

    Behind a proxy that is the proxy, for whatever a header says anybody may say.
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
    """Return whose a request is, as its share is counted; empty if it has no share of its own."""
    protocol: Any = request.protocol
    peer: str = protocol.peer
    return peer
