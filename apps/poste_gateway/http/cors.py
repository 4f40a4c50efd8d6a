"""Cross-origin requests of browsers (Fetch standard, "CORS protocol"): from the origins that the settings name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiohttp import web
from multidict import istr

from poste.domain import carried
from poste_gateway.http import preferences, time_limits
from poste_gateway.http.callback_urls import CALLBACK
from poste_gateway.http.door import AUTHORIZATION
from poste_gateway.http.idempotency import IDEMPOTENCY_KEY, REPLAYED
from poste_gateway.http.not_before import NOT_BEFORE
from poste_gateway.http.responses import Response

# As multidict keeps names: read without being converted to lower case each time.
REQUEST_ID: Final = istr("X-Request-Id")
#: The last event that a client of a task's events knows (WHATWG HTML, section 9.2).
LAST_EVENT_ID: Final = istr("Last-Event-ID")
#: A browser asks with it whether it may call.
ASKED_VERB: Final = "Access-Control-Request-Method"
_ANY: Final = "*"
#: What begins so is metadata to a service. No wildcard stands for it where credentials are sent: each is named.
_METADATA: Final = "grpc-metadata-"
#: What only pages ask to send that speak a protocol whose metadata has its own name; or their URL has the query of one.
_PROTOCOLS_ASKED: Final = frozenset({"connect-protocol-version", "x-grpc-web"})
_PROTOCOL_QUERY: Final = "connect=v1"
#: More names than that no page of anybody's asks for at once.
_MOST_ASKED: Final = 100
_ALLOWED: Final = ", ".join(
    (
        str(AUTHORIZATION),
        *("Content-Type", preferences.PREFER, preferences.TASK_TTL, preferences.RESULT_TTL, CALLBACK, NOT_BEFORE),
        *(time_limits.GRPC_TIMEOUT, time_limits.CONNECT_TIMEOUT, IDEMPOTENCY_KEY, REQUEST_ID, LAST_EVENT_ID),
    )
)
_EXPOSED: Final = (
    *("Cache-Control", "ETag", str(REPLAYED), "Location", "Retry-After"),
    *(preferences.APPLIED, str(REQUEST_ID)),
    *("RateLimit", "RateLimit-Policy"),
)
#: What is not told beside these: what every page may read, and what is about this very protocol, or the connection.
_UNTOLD: Final = ("access-control-", "content-type", "vary", "transfer-encoding", "allow")
#: How long a browser may remember what is allowed, in seconds.
_MAX_AGE: Final = "600"


def add_headers(
    response: Response | web.StreamResponse, request: web.BaseRequest, origins: tuple[str, ...], verbs: Iterable[str]
) -> None:
    """Let a browser's page see the answer, if it comes from a named origin.

    Args:
        response: The answer.
        request: What it answers.
        origins: The origins that may see it.
        verbs: The methods of the path, for the answer to a preflight.
    """
    response.headers["Vary"] = ", ".join(filter(None, (response.headers.get("Vary"), "Origin")))
    origin = request.headers.get("Origin")
    # It is sent back, so it must be what a header may hold; a browser's own always is (RFC 6454, section 7).
    if origin is None or not origin.isascii() or not (origin in origins or _ANY in origins):
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    # By name, too: metadata of its service's.
    further = (name for name in response.headers if name not in _EXPOSED and not name.lower().startswith(_UNTOLD))
    response.headers["Access-Control-Expose-Headers"] = ", ".join((*_EXPOSED, *further))
    if request.method == "OPTIONS" and ASKED_VERB in request.headers:
        response.headers["Access-Control-Allow-Methods"] = ", ".join(verbs)
        response.headers["Access-Control-Allow-Headers"] = ", ".join((_ALLOWED, *_metadata_asked(request)))
        response.headers["Access-Control-Max-Age"] = _MAX_AGE


def _metadata_asked(request: web.BaseRequest) -> list[str]:
    """Return which metadata a browser asks whether it may send."""
    asked = request.headers.get("Access-Control-Request-Headers", "").split(",", _MOST_ASKED)[:_MOST_ASKED]
    names = [name.strip().lower() for name in asked]
    if not _PROTOCOLS_ASKED.isdisjoint(names) or _PROTOCOL_QUERY in request.rel_url.raw_query_string:
        # Among them the protocol's own.
        return [name for name in names if carried.is_key(name)]
    return [name for name in names if name.startswith(_METADATA) and carried.is_key(name.removeprefix(_METADATA))]
