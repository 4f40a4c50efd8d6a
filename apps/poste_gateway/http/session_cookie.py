"""The cookie that has the page's session (RFC 6265bis), and when what it says is believed.

A browser sends it with whatever goes to this origin, so a page of another one could have its reader's browser act. What
keeps it from that: `SameSite=Strict`, and that the browser must say that the request is of this gateway's own page, by
`Sec-Fetch-Site` (W3C Fetch Metadata), or where it does not send that (plain HTTP, but to loopback), by `Origin`.
"""

from __future__ import annotations

import re
from typing import Final

from aiohttp import hdrs, web

from poste_gateway.access.sessions import SESSION_SECONDS
from poste_gateway.http.problem_types import CROSS_ORIGIN
from poste_gateway.http.problems import Problem

_NAME: Final = "poste-session"
#: Before the name of a cookie that came by TLS, for this host alone, and for all of it: browsers hold it to that.
_HOST_ONLY: Final = "__Host-"
#: Cookies know no ports: gateways on several of one host would end each other's sessions.
_PORT: Final = re.compile(r":(\d{1,5})$", re.ASCII)
_SITE: Final = "Sec-Fetch-Site"
_BELIEVED: Final = web.RequestKey("session_believed", bool)
_SAFE: Final = (hdrs.METH_GET, hdrs.METH_HEAD)


def read(request: web.BaseRequest) -> str | None:
    """Return the session that a request shows; None if it shows none."""
    header = request.headers.get(hdrs.COOKIE)
    if header is None or _NAME not in header:
        return None
    found = {name.strip(): value.strip() for name, _, value in (pair.partition("=") for pair in header.split(";"))}
    name = _name(request)
    # By TLS no other is: a host beside this one could set it.
    return found.get(_HOST_ONLY + name) or (None if request.secure else found.get(name))


def setting(request: web.BaseRequest, session: str) -> dict[str, str]:
    """Return the header that has a browser keep a session; or, if that is empty, forget the one that it has."""
    seconds = SESSION_SECONDS if session else 0
    # Where a proxy ends TLS the gateway learns from the page alone that there is any.
    secure = request.secure or request.headers.get(hdrs.ORIGIN, "").startswith("https:")
    name = _HOST_ONLY + _name(request) if secure else _name(request)
    cookie = f"{name}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"
    return {"Set-Cookie": f"{cookie}; Secure" if secure else cookie}


def check_own(request: web.BaseRequest) -> None:
    """Check that it is a page of this origin that makes a request, or, if it changes nothing, its reader.

    From here on `believed` says so.

    Raises:
        Problem: It is another's, or the browser does not say whose.
    """
    safe, origin = request.method in _SAFE, request.headers.get(hdrs.ORIGIN)
    if (site := request.headers.get(_SITE)) is not None:
        own = site == "same-origin" or (safe and site == "none")
    elif origin is not None:
        own = origin.partition("://")[2].lower() == request.headers.get(hdrs.HOST, "").lower() != ""
    else:
        own = safe
    if not own:
        detail = "A session is for the gateway's own pages: the browser does not say that one of them asks."
        raise Problem(CROSS_ORIGIN, detail)
    request[_BELIEVED] = True


def believed(request: web.BaseRequest) -> bool:
    """Return whether a session counted for a request: no cache may give another client the answer.

    Caches know that of `Authorization` (RFC 9111, section 3.5), and not of a cookie.
    """
    return _BELIEVED in request


def without(cookies: str) -> str:
    """Return what a request's cookies are but for sessions, which reach no service."""
    pairs = [pair for pair in cookies.split(";") if not pair.strip().removeprefix(_HOST_ONLY).startswith(_NAME)]
    return ";".join(pairs).strip()


def _name(request: web.BaseRequest) -> str:
    port = _PORT.search(request.headers.get(hdrs.HOST, ""))
    return f"{_NAME}-{port[1]}" if port else _NAME
