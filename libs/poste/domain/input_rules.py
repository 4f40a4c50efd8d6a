"""Input validation rules: one set for the gateway, to its clients, and for the middleware, to the other parts.

A part that calls the middleware belongs to the deployment, and may be faulty or taken over all the same. What is let in
becomes Redis keys, records, metadata and log lines, whose readers rely on these rules.
"""

from __future__ import annotations

import re
from typing import Final

from poste.domain import traceparents
from poste.domain.policy import MAX_TTL_SECONDS
from poste.domain.task_id import MAX_WITHOUT_QUEUE

#: A key is the random part of a task's id: 12 bytes in base64url, so that every spelling is the only one.
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{16}")
#: What the keys of one client's tasks end in: 3 bytes in base64url.
_OWNER: Final = re.compile(r"[A-Za-z0-9_-]{4}")
#: The digest of a request: 16 bytes in base64url.
_DIGEST: Final = re.compile(r"[A-Za-z0-9_-]{22}")
#: A task's id without its queue's name, in base64url too: it goes into metadata and logs.
_ID_REST: Final = re.compile(rf"[A-Za-z0-9_-]{{0,{MAX_WITHOUT_QUEUE}}}(@[\w.]{{1,255}})?", re.ASCII)
#: The full name of a service, which is its queue's name too, as proto has it. Its length leaves room in a task's id.
_SERVICE: Final = re.compile(r"(?=.{1,500}\Z)[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
#: Packages that no service of a deployment is in: the middleware itself, health and reflection, protobuf's own.
_RESERVED: Final = re.compile(r"(poste\.v\d+|grpc|google)\.", re.ASCII)
#: The name of a replica, unique in its service.
_REPLICA: Final = re.compile(r"[!-~]{1,300}")
#: Where a replica is called: a host, its name or its address, and a port.
_ADDRESS: Final = re.compile(r"(?=.{1,300}\Z)(?:[\w.-]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]):(\d{1,5})", re.ASCII)
_LAST_PORT: Final = 65_535
#: What a target begins with that is called over TLS.
TLS_SCHEME: Final = "grpcs://"
#: The name of a field of a message, as protos have it.
_FIELD: Final = re.compile(r"[A-Za-z_]\w{0,254}", re.ASCII)
#: The token of a claim: `<incarnation>:<seq>`.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}:[0-9]{1,15}")
#: The form of a client's own request id: it goes into metadata and logs.
LONGEST_REQUEST_ID: Final = 128
_REQUEST_ID: Final = re.compile(rf"[\w.:/+=@-]{{1,{LONGEST_REQUEST_ID}}}", re.ASCII)
#: What may be told of a task's end: it goes into its record, and names a host.
LONGEST_CALLBACK_URL: Final = 1000
_CALLBACK_URL: Final = re.compile(rf"(?=.{{1,{LONGEST_CALLBACK_URL}}}\Z)https?://[!$-;=?-\[\]_a-z~]+", re.ASCII)
#: The name of a client: it goes into a key of Redis.
_LONGEST_CLIENT: Final = 300
#: The end of the year 9999, in seconds since the epoch: the last instant that a timestamp can hold.
LAST_SECOND: Final = 253_402_300_799


def is_key(text: str) -> bool:
    """Return whether a text may be a task's key within its queue."""
    return _KEY.fullmatch(text) is not None


def is_owner(text: str) -> bool:
    """Return whether a text may be what the keys of one client's tasks end in."""
    return _OWNER.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Return whether a text may be the digest of a request."""
    return _DIGEST.fullmatch(text) is not None


def is_service(text: str) -> bool:
    """Return whether a text may be a service's full name, and so a queue's."""
    return _SERVICE.fullmatch(text) is not None


def reserved_package(service: str) -> str | None:
    """Return the package that a service must not be in and is, None if it may be where it is.

    A service is called by its name: under one of Poste's own, or of gRPC's, a client would get where none is meant to.
    """
    found = _RESERVED.match(service)
    return None if found is None else found[1]


def is_replica(text: str) -> bool:
    """Return whether a text may be the name of a replica."""
    return _REPLICA.fullmatch(text) is not None


def is_address(text: str) -> bool:
    """Return whether a text may be where a replica is called: `host:port`."""
    found = _ADDRESS.fullmatch(text)
    return found is not None and 1 <= int(found[1]) <= _LAST_PORT


def is_target(text: str) -> bool:
    """Return whether a text may be where a server is called that does not register itself: it may be over TLS."""
    return is_address(text.removeprefix(TLS_SCHEME))


def is_field(text: str) -> bool:
    """Return whether a text may be the name of a message's field."""
    return _FIELD.fullmatch(text) is not None


def is_token(text: str) -> bool:
    """Return whether a text may be the token of a claim."""
    return _TOKEN.fullmatch(text) is not None


def is_id_rest(text: str) -> bool:
    """Return whether a text may be a task's id without its queue's name (`task_id.with_queue` reads it)."""
    return _ID_REST.fullmatch(text) is not None


def is_request_id(text: str) -> bool:
    """Return whether a text may be the id of a client's request."""
    return _REQUEST_ID.fullmatch(text) is not None


def is_callback_url(text: str) -> bool:
    """Return whether a text may be a URL that is told of a task's end: of HTTP, and without a fragment."""
    return _CALLBACK_URL.fullmatch(text) is not None


def is_client(text: str) -> bool:
    """Return whether a text may be a client's name."""
    return 0 < len(text) <= _LONGEST_CLIENT and text.isprintable()


def is_ttl(seconds: int) -> bool:
    """Return whether a call may wait, or its result be kept, for so long."""
    return 1 <= seconds <= MAX_TTL_SECONDS


def is_instant(seconds: int, nanos: int = 0) -> bool:
    """Return whether this many seconds since the epoch, and parts of one, are a time that a timestamp can hold."""
    return 0 <= seconds <= LAST_SECOND and 0 <= nanos < 10**9


def is_place_in_trace(text: str) -> bool:
    """Return whether a text is what travels between Poste's own parts as a call's place in its trace."""
    return text in ("", traceparents.UNRECORDED) or traceparents.read(text) == text
