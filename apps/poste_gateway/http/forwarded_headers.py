"""Forwards request headers to handlers as metadata, and handlers' metadata to clients as headers.

Which ones is set in the catalogue. Most clients send the same headers with each request, so the decision about a name
is cached.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Final

from aiohttp import web

from poste.domain import carried
from poste_gateway.http.problem_types import INVALID_REQUEST
from poste_gateway.http.problems import Problem

#: The prefix of headers that carry gRPC metadata, both ways.
PREFIX: Final = "Grpc-Metadata-"
_SENT: Final = PREFIX.lower()
#: It names the addresses on the whole way of a request: each hop adds one.
_WAY: Final = "x-forwarded-for"
#: So many header names are cached for each set.
_MOST_KNOWN: Final = 1000
_UNKNOWN: Final = object()
#: Headers of the response that a service can't set.
_OWN: Final = frozenset(
    {
        *("content-type", "content-length", "content-encoding", "transfer-encoding", "connection", "date", "server"),
        *(
            "x-request-id",
            "preference-applied",
            "allow",
            "www-authenticate",
            "vary",
            "keep-alive",
            "upgrade",
            "trailer",
        ),
    }
)


class ForwardedHeaders:
    """The headers that reach the handlers of one service."""

    def __init__(self, names: tuple[str, ...]) -> None:
        """Forward those of these names; one that ends in `*` stands for all that begin so."""
        self._exact = frozenset(name for name in names if not name.endswith("*"))
        self._begin = tuple(name.removesuffix("*") for name in names if name.endswith("*"))
        #: The metadata key of each header name, in the client's spelling; None if it is not forwarded.
        self._known: dict[bytes, str | None] = {}

    def read(self, request: web.BaseRequest) -> str:
        """Return a request's forwarded headers as text (`poste.domain.carried`).

        Raises:
            Problem: One of them can't be metadata, or they are too many.
        """
        text, known = "", self._known
        for name, value in request.raw_headers:
            key: Any = known.get(name, _UNKNOWN)
            if key is _UNKNOWN:
                key = self._learn(name)
            if key is not None:
                text += f"{key}: {self._value(name, key, value, request)}\n"
        if len(text) > carried.LONGEST:
            detail = f"The headers that reach the service may have {carried.LONGEST} characters."
            raise Problem(INVALID_REQUEST, detail)
        return text

    def _value(self, name: bytes, key: str, value: bytes, request: web.BaseRequest) -> str:
        shown = value.decode("latin-1")
        if not carried.is_value(key, shown):
            reason = "must be base64" if key.endswith("-bin") else "must be printable ASCII, for it reaches the service"
            field = name.decode("ascii", "replace")
            raise Problem(INVALID_REQUEST, f"{field} {reason}", errors=[{"field": field, "reason": reason}])
        return f"{shown}, {request.remote}" if key == _WAY and request.remote else shown

    def _learn(self, name: bytes) -> str | None:
        key = self._key(name.decode("latin-1").lower())
        if len(self._known) < _MOST_KNOWN:
            self._known[name] = key
        return key

    def _key(self, name: str) -> str | None:
        if not (name in self._exact or name.startswith(self._begin)):
            return None
        key = name.removeprefix(_SENT)
        # Only a trusted proxy may set the other headers.
        return key if carried.is_key(key) and (key == name or key not in self._exact) else None


@functools.lru_cache(maxsize=1024)
def forwarded(names: tuple[str, ...]) -> ForwardedHeaders:
    """Return the `ForwardedHeaders` of these names, the same for equal ones."""
    return ForwardedHeaders(names)


def kept(request: web.BaseRequest, text: str, names: tuple[str, ...]) -> str:
    """Return the forwarded headers that are kept with a queued call: whole ones, as many as fit.

    Args:
        request: The call.
        text: All of them.
        names: Those that may be kept.
    """
    going_on, found = set(text.splitlines()), ""
    for line in forwarded(names).read(request).splitlines():
        if line in going_on and len(found) + len(line) < carried.MOST_KEPT:
            found += f"{line}\n"
    return found


def returned(text: str, by_own_name: Iterable[str]) -> dict[str, str]:
    """Return the headers that a handler's metadata comes back as.

    Args:
        text: The metadata (`poste.domain.carried`).
        by_own_name: What of it is a header of its own name; all else has `PREFIX` before it.
    """
    headers: dict[str, str] = {}
    for line in text.split("\n"):
        key, colon, value = line.partition(": ")
        if not (colon and carried.is_key(key) and carried.is_value(key, value)):
            continue
        name = key.title() if key in by_own_name and key not in _OWN else f"{PREFIX}{key}"
        # As gRPC joins values of one key.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
