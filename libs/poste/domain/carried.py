"""Encoding of forwarded metadata between Poste's parts: a client's headers for its handler, and what comes back.

It is one text, a line `key: value` for each, as HTTP has it: most calls have the same few, and a text costs a frame, or
a record, next to nothing. Bytes (keys that end in `-bin`) stand there in base64, as on gRPC's own wire. Of what comes
back an empty line stands between initial and trailing metadata, as between a head and a body.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

#: The longest such text, in characters, without what is said of the client.
LONGEST: Final = 8192
#: Tells a handler which client a call is from. Only a gateway says it, in the first line.
CLIENT: Final = "poste-client"
_CLIENT: Final = f"{CLIENT}: "
#: The longest name of a client, in characters.
LONGEST_CLIENT: Final = 260
_LONGEST_LINE: Final = len(_CLIENT) + LONGEST_CLIENT + 1
#: The most that is kept of it with a queued call.
MOST_KEPT: Final = 1000
#: What gRPC takes for a key (gRPC over HTTP/2, "Custom-Metadata").
_KEY: Final = re.compile(r"[0-9a-z_.-]{1,100}")
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]*")
_BYTES: Final = "-bin"
#: Keys that mean something to gRPC, or to Poste, and which no client says.
_RESERVED: Final = ("grpc-", "poste-", ":")
#: Those that have a place of their own in each call, and what is about the request's own body or connection.
_ELSEWHERE: Final = frozenset(
    {
        *("x-request-id", "traceparent", "content-type", "content-length", "content-encoding", "host", "connection"),
        *("te", "trailer", "transfer-encoding", "upgrade", "keep-alive", "proxy-authorization", "expect"),
    }
)


def of_client(client: str) -> str:
    """Return the text that says which client a call is from."""
    return f"{_CLIENT}{client}\n"


def is_client(text: str) -> bool:
    """Return whether a text may be a client's name."""
    return len(text) <= LONGEST_CLIENT and _PRINTABLE.fullmatch(text) is not None


def client_line(text: str) -> str:
    """Return what a text says of the client; empty if it says nothing."""
    return text[: text.index("\n") + 1] if text.startswith(_CLIENT) else ""


def is_key(key: str) -> bool:
    """Return whether metadata of a key may be carried."""
    return _KEY.fullmatch(key) is not None and not key.startswith(_RESERVED) and key not in _ELSEWHERE


def is_value(key: str, value: str) -> bool:
    """Return whether a text may be a key's value: printable ASCII, or base64 for a key that has bytes."""
    if not _PRINTABLE.fullmatch(value):
        return False
    return not key.endswith(_BYTES) or _decoded(value) is not None


def read(text: str) -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata that a text is; what is none in it is passed over."""
    if not text or len(text) > LONGEST + _LONGEST_LINE:
        return ()
    found: list[tuple[str, str | bytes]] = []
    for line in text.split("\n"):
        key, colon, value = line.partition(": ")
        if not (colon and (is_key(key) or key == CLIENT) and _PRINTABLE.fullmatch(value)):
            continue
        if not key.endswith(_BYTES):
            found.append((key, value))
        elif (decoded := _decoded(value)) is not None:
            found.append((key, decoded))
    return tuple(found)


def spell(pairs: Iterable[tuple[str, str | bytes]], trailing: Iterable[tuple[str, str | bytes]] = ()) -> str:
    """Return the text that metadata is; what may not be carried, or is too much, is left out.

    Args:
        pairs: The initial metadata.
        trailing: The trailing one, which stands behind an empty line.
    """
    text = _added("", pairs)
    behind = _added(f"{text}\n", trailing) if trailing else ""
    return behind if len(behind) > len(text) + 1 else text


def parts(text: str) -> tuple[str, str]:
    """Return the texts of the initial and of the trailing metadata that `spell` made one text of."""
    if text.startswith("\n"):
        return "", text[1:]
    initial, _, trailing = text.partition("\n\n")
    return initial, trailing


def _added(text: str, pairs: Iterable[tuple[str, str | bytes]]) -> str:
    for key, value in pairs:
        if not is_key(key):
            continue
        if isinstance(value, bytes):
            shown = base64.b64encode(value).decode() if key.endswith(_BYTES) else value.decode("ascii", "replace")
        else:
            shown = value
        if _PRINTABLE.fullmatch(shown) and len(text) + len(key) + len(shown) + 3 <= LONGEST:
            text += f"{key}: {shown}\n"
    return text


def _decoded(value: str) -> bytes | None:
    # gRPC pads or does not, and of several values with one key it makes one, with commas between them.
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
