"""The names that a gateway answers under, and whose pages may ask it, where it asks nobody for a key.

A web page can have its own name lead to 127.0.0.1 (DNS rebinding): to the browser of its reader a gateway on loopback
is of the page's own origin then. What gives the page away is that name, in `Host`. A page that does not do so may still
send what needs no leave of CORS, a call without a body, say: it is given away by `Origin`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Self

from aiohttp import hdrs, web

from poste.protojson.errors import quotable
from poste.runtime.addresses import is_loopback
from poste.runtime.settings import GatewaySettings
from poste_gateway.http.probes import PROBES
from poste_gateway.http.problem_types import CROSS_ORIGIN, MISDIRECTED
from poste_gateway.http.problems import Problem

#: Stands for any name, or in front of a dot for all names below another.
ANY: Final = "*"
#: The host of a Host header (RFC 9110, section 7.2), without its port.
HOST: Final = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{0,5})?", re.ASCII)
#: Names of this machine, whatever a resolver says (RFC 6761, section 6.3).
_LOCAL: Final = ("localhost", "*.localhost")
#: So many hosts are remembered, as clients spelt them.
_MOST_KNOWN: Final = 1000


class Hosts:
    """Judges by whom requests are asked, and under which name."""

    def __init__(self, names: Iterable[str], origins: Iterable[str]) -> None:
        """Answer under these names and those of loopback, to pages of them and of these origins."""
        self._names, self._origins = (*_LOCAL, *names), frozenset(origins)
        self._known: set[str] = set()

    @classmethod
    def of(cls, settings: GatewaySettings, *, closed: bool) -> Self | None:
        """Return what judges by the settings; None if every name will do. `closed`: a key is asked for."""
        # By TLS a name that is not the certificate's leads nowhere.
        open_to_pages = not (closed or settings.anonymous_calls or settings.tls_port is not None)
        if ANY in settings.hosts or not (settings.hosts or (open_to_pages and is_loopback(settings.host))):
            return None
        return cls(settings.hosts, settings.cors_origins)

    def check(self, request: web.BaseRequest) -> None:
        """Check a request.

        Raises:
            Problem: It is for another name, or a page of another origin asks.
        """
        # Without one it is of HTTP/1.0, which browsers don't speak.
        host, origin = request.headers.get(hdrs.HOST), request.headers.get(hdrs.ORIGIN)
        if host is not None and host not in self._known:
            if not self._is_ours(host):
                # What asks whether it is alive may know but its address.
                if request.path in PROBES:
                    return
                detail = f"It answers under names of loopback and those of POSTE_HOSTS, not under {quotable(host)}."
                raise Problem(MISDIRECTED, detail)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known.add(host)
        if origin is not None and not (self._lets_in(origin) or self._is_ours(origin.partition("://")[2])):
            detail = f"Pages of {quotable(origin)} may not ask: POSTE_CORS_ORIGINS names those that may."
            raise Problem(CROSS_ORIGIN, detail)

    def _lets_in(self, origin: str) -> bool:
        return origin in self._origins or ANY in self._origins

    def _is_ours(self, authority: str) -> bool:
        found = HOST.fullmatch(authority)
        if found is None:
            return False
        host = found[1].strip("[]").rstrip(".").lower()
        return is_loopback(host) or any(is_named(host, name) for name in self._names)


def is_named(host: str, name: str) -> bool:
    """Return whether a host is the one of a name, which may be `ANY`, or begin with that and a dot."""
    return name in (host, ANY) or (name.startswith(f"{ANY}.") and host.endswith(name[1:]))
