"""Who is an operator: whoever has the token; without one in the settings, whoever sits at the gateway's own host.

What died can be listed with its ids, and by them everybody's results be read; so it is not for every client.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from poste_gateway.kinds import OPERATORS_ONLY, TOKEN_NEEDED
from poste_gateway.problems import Problem

_SCHEME: Final = "bearer"
#: Headers that a proxy adds: behind one, everybody seems to sit at its host.
_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
#: What a browser says of where a request comes from (Fetch Metadata) if it is no other site's page.
_OWN_SITE: Final = ("same-origin", "none")


class Guard:
    """Lets operators through."""

    def __init__(self, token: bytes | None) -> None:
        """Take the operators' token; None lets this host's own clients through."""
        self._token = token

    def check(self, request: web.BaseRequest) -> None:
        """Refuse whoever is no operator.

        Raises:
            Problem: The token is missing or wrong, or the request does not come from this host.
        """
        if self._token is None:
            if not _is_local(request):
                detail = "Without a token (POSTE_OPERATOR_TOKEN_FILE) this is for the gateway's own host only."
                raise Problem(OPERATORS_ONLY, detail)
            return
        given = _token_of(request)
        if given is None or not hmac.compare_digest(given, self._token):
            detail = "The header Authorization must be Bearer and the operators' token."
            raise Problem(TOKEN_NEEDED, detail, headers={"WWW-Authenticate": "Bearer"})


def names_token(request: web.BaseRequest) -> bool:
    """Tell whether a request brings a token, right or wrong."""
    return _token_of(request) is not None


def _token_of(request: web.BaseRequest) -> bytes | None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # Bytes that are no UTF-8 are in the header's text as lone surrogates.
    return given.strip().encode(errors="surrogateescape") if scheme.lower() == _SCHEME else None


def _is_local(request: web.BaseRequest) -> bool:
    """Tell whether a request comes from this host, and not from a web page that a browser on it shows."""
    if any(name in request.headers for name in _FORWARDED) or not _is_loopback(request.remote or ""):
        return False
    if request.headers.get("Sec-Fetch-Site", "none") not in _OWN_SITE:
        return False
    # A page from elsewhere names itself in Origin; one whose name was made to lead here shows it in Host.
    origin = request.headers.get("Origin")
    return _is_loopback(_host(f"//{request.host}")) and (origin is None or _is_loopback(_host(origin)))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
