"""Forwards request headers to handlers as metadata, and handlers' metadata to clients as headers.

Which ones is set in the catalogue. Most clients send the same headers with each request, so what is forwarded of a
header is cached.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Final

from aiohttp import web

from poste.domain import carried
from poste_gateway.http import session_cookie
from poste_gateway.http.problem_types import INVALID_REQUEST
from poste_gateway.http.problems import Problem, invalid

#: The prefix of headers that carry gRPC metadata, both ways.
PREFIX: Final = "Grpc-Metadata-"
_SENT: Final = PREFIX.lower()
#: It names the addresses on the whole way of a request: each hop adds one.
_WAY: Final = "x-forwarded-for"
#: It may have a session of the gateway's page.
_COOKIES: Final = "cookie"
#: Where a gateway asks for keys or tokens it has these, which reach no service.
_KEY: Final = "authorization"
#: Stands in a line for the client's address, which no header has.
_CLIENT: Final = "\0"
#: So many headers are cached for each set, and none with more bytes than that.
_MOST_KNOWN: Final = 1000
_LONGEST_KNOWN: Final = 200
#: Headers of the response that a service can't set.
_OWN: Final = frozenset(
    {
        *("content-type", "content-length", "content-encoding", "transfer-encoding", "connection", "date", "server"),
        *("x-request-id", "preference-applied", "allow", "www-authenticate", "vary"),
        *("keep-alive", "upgrade", "trailer", "idempotent-replayed"),
    }
)
#: Headers of the response by which browsers, caches and proxies do something: where metadata has its own name, a
#: service can't set these either. What it answers is no page of the gateway's own.
_POWERFUL: Final = frozenset(
    {
        *("accept-ch", "accept-ranges", "age", "alt-svc", "clear-site-data", "expires", "link", "nel", "pragma"),
        *("refresh", "report-to", "reporting-endpoints", "retry-after", "service-worker-allowed", "set-cookie"),
        *("sourcemap", "strict-transport-security", "timing-allow-origin", "via", "warning", "referrer-policy"),
        *("permissions-policy", "document-policy", "origin-agent-cluster", "speculation-rules", "authentication-info"),
        *("set-login", "activate-storage-access", "critical-ch", "no-vary-search", "integrity-policy"),
        *("integrity-policy-report-only", "surrogate-control", "location"),
    }
)
_POWERFUL_BEGIN: Final = (
    *("access-control-", "content-", "cross-origin-", "sec-", "proxy-", "x-accel-", "x-sendfile", "x-frame-"),
    *("x-content-", "x-xss-", "x-sourcemap", "x-dns-", "x-permitted-", "connect-", "trailer-"),
)
#: Headers of requests that speak to HTTP, to proxies or to the gateway: by protocols whose metadata has its own name
#: they are no metadata, unless the catalogue names them.
_SPOKEN_TO_HTTP: Final = frozenset(
    {
        *("accept", "authorization", "cache-control", "cookie", "date", "dnt", "forwarded", "from"),
        *("idempotency-key", "max-forwards", "origin", "pragma", "prefer", "priority", "range", "referer", "save-data"),
        *("user-agent", "via", "x-grpc-web", "x-real-ip", "x-user-agent"),
    }
)
_SPOKEN_TO_HTTP_BEGIN: Final = ("accept-", "access-control-", "connect-", "if-", "sec-", "upgrade-", "x-forwarded-")


class ForwardedHeaders:
    """The headers that reach the handlers of one service."""

    def __init__(self, names: tuple[str, ...], *, own_names: bool = False, guarded: bool = False) -> None:
        """Forward those of these names; one that ends in `*` stands for all that begin so.

        By a protocol whose metadata has its own name (`own_names`), `PREFIX` may be missing. A `guarded` gateway's
        clients show it their keys, which reach no service.
        """
        self._own_names, self._guarded = own_names, guarded
        self._exact = frozenset(name for name in names if not name.endswith("*"))
        self._begin = tuple(name.removesuffix("*") for name in names if name.endswith("*"))
        self._line_of = _Lines(self._line).__getitem__
        #: Names that are not forwarded, as clients spelt them: most headers have one of these, and cost a look-up.
        self._idle: set[bytes] = set()

    def read(self, request: web.BaseRequest) -> str:
        """Return a request's forwarded headers as text (`poste.domain.carried`).

        What can't is left out, for most clients don't know what they send; but not what is sent as metadata.

        Raises:
            Problem: What was sent as metadata can't be that, or is too much.
        """
        text, idle = "", self._idle
        for header in request.raw_headers:
            if header[0] not in idle:
                text += self._line_of(header)
        if not text:
            return text
        if _CLIENT in text:
            text = _with_client(text, request)
        return text if len(text) <= carried.LONGEST else self._cut(request)

    def _line(self, name: bytes, value: bytes) -> str:
        """Return what goes on of a header: a line, or nothing.

        Raises:
            Problem: It was sent as metadata, and can't be that.
        """
        spelt = name.decode("latin-1").lower()
        key = self._key(spelt)
        if key is None:
            if len(name) <= _LONGEST_KNOWN:
                if len(self._idle) >= _MOST_KNOWN:
                    self._idle.clear()
                self._idle.add(name)
            return ""
        shown = value.decode("latin-1")
        if spelt == _COOKIES and not (shown := session_cookie.without(shown)):
            return ""
        if carried.is_value(key, shown):
            return f"{key}: {shown}{_CLIENT if key == _WAY else ''}\n"
        if not (spelt.startswith(_SENT) or (self._own_names and key.endswith("-bin"))):
            return ""
        reason = "must be base64" if key.endswith("-bin") else "must be printable ASCII, for it reaches the service"
        field = name.decode("ascii", "replace")
        raise invalid(field, reason)

    def _key(self, name: str) -> str | None:
        if not (name in self._exact or name.startswith(self._begin)):
            if not self._own_names or name.startswith((_SENT, *_SPOKEN_TO_HTTP_BEGIN)) or name in _SPOKEN_TO_HTTP:
                return None
            return self._key(f"{_SENT}{name}")
        key = name.removeprefix(_SENT)
        if self._guarded and key == _KEY:
            return None
        # Only a trusted proxy may set the other headers.
        return key if carried.is_key(key) and (key == name or key not in self._exact) else None

    def _cut(self, request: web.BaseRequest) -> str:
        """Return as much of a request's headers as may go on: what was sent as metadata first.

        Raises:
            Problem: That alone is too much.
        """
        text = ""
        for name, value in sorted(request.raw_headers, key=lambda header: not self._is_metadata(header[0])):
            line = _with_client(self._line(name, value), request)
            if len(text) + len(line) <= carried.LONGEST:
                text += line
            elif self._is_metadata(name):
                detail = f"The metadata that reaches the service may have {carried.LONGEST} characters."
                raise Problem(INVALID_REQUEST, detail)
        return text

    def _is_metadata(self, name: bytes) -> bool:
        """Return whether a header is sent as metadata, and as nothing else."""
        spelt = name.decode("latin-1").lower()
        named = spelt in self._exact or spelt.startswith(self._begin)
        return spelt.startswith(_SENT) or (not named and self._key(spelt) is not None)


class _Lines(dict[tuple[bytes, bytes], str]):
    """What goes on of each header, found out once: most clients send the same ones with each request."""

    def __init__(self, line: Callable[[bytes, bytes], str]) -> None:
        super().__init__()
        self._line = line

    def __missing__(self, header: tuple[bytes, bytes]) -> str:
        name, value = header
        line = self._line(name, value)
        if len(name) + len(value) <= _LONGEST_KNOWN and _CLIENT not in line:
            if len(self) >= _MOST_KNOWN:
                self.clear()
            self[header] = line
        return line


@functools.lru_cache(maxsize=1024)
def forwarded(names: tuple[str, ...], own_names: bool = False, guarded: bool = False) -> ForwardedHeaders:
    """Return the `ForwardedHeaders` of these names, the same for equal ones."""
    return ForwardedHeaders(names, own_names=own_names, guarded=guarded)


def kept(request: web.BaseRequest, text: str, names: tuple[str, ...], *, own_names: bool = False) -> str:
    """Return the forwarded headers that are kept with a queued call: whole ones, as many as fit.

    Args:
        request: The call.
        text: All of them.
        names: Those that may be kept.
        own_names: Metadata has its own name.
    """
    going_on, found = set(text.splitlines()), carried.client_line(text)
    # Read anew: what a line was a header of, or metadata, it does not say.
    for line in forwarded(names, own_names).read(request).splitlines():
        if line in going_on and len(found) + len(line) < carried.MOST_KEPT:
            found += f"{line}\n"
    return found


def _with_client(text: str, request: web.BaseRequest) -> str:
    return text.replace(_CLIENT, f", {request.remote}" if request.remote else "")


def returned(text: str, by_own_name: Iterable[str]) -> dict[str, str]:
    """Return the headers that a handler's metadata comes back as.

    Args:
        text: The metadata (`poste.domain.carried`).
        by_own_name: What of it is a header of its own name; all else has `PREFIX` before it.
    """
    return _headers(text, lambda key: key.title() if key in by_own_name and key not in _OWN else f"{PREFIX}{key}")


def initial_by_own_name(text: str) -> dict[str, str]:
    """Return the headers that initial metadata comes back as by a protocol whose metadata has its own name."""
    return _headers(text, _own_name)


def trailing(text: str, prefix: str = "") -> dict[str, str]:
    """Return trailing metadata by its keys, each behind a prefix."""
    return _headers(text, lambda key: f"{prefix}{key}")


def _own_name(key: str) -> str:
    refused = key in _OWN or key in _POWERFUL or key.startswith(_POWERFUL_BEGIN)
    return f"{PREFIX}{key}" if refused else key.title()


def _headers(text: str, name_of: Callable[[str], str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in text.split("\n"):
        key, colon, value = line.partition(": ")
        if not (colon and carried.is_key(key) and carried.is_value(key, value)):
            continue
        name = name_of(key)
        # As gRPC joins values of one key.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
