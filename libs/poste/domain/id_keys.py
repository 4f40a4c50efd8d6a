"""The secrets that sign task ids: the one of today, those before it, and how the next one takes its place.

An id says by number which secret signed it, and which one that must be says the time that it was made at. So every
gateway signs the same way without a word to the others, once all have read the file; who learns of a secret can date no
id later than its time; and one that was replaced is dropped once the last task is over whose id it signed.

A file with anything but this JSON is itself the first secret::

    {"base": "…", "keys": [{"number": 0, "secret": "…", "since_ms": 0},
                           {"number": 1, "secret": "…", "since_ms": 1796016000000}]}

`base` is the first secret for good: the keys of records are made with it, of idempotency keys and of clients' names,
and would be others with another. Who knows it can sign nothing.
"""

from __future__ import annotations

import base64
import json
import math
import secrets
from typing import Final, NamedTuple

from poste.domain.policy import LONGEST_WAIT_SECONDS, MAX_TTL_SECONDS

#: A secret shorter than this could be guessed.
MIN_KEY_BYTES: Final = 16
#: How many there may be: a number has six bits in an id.
MOST_KEYS: Final = 64
#: How long after another took over a secret may still sign, in milliseconds: at a gateway that read the file late.
LATE_MS: Final = 600_000
#: How long after it was replaced there may be a task whose id a secret signed: it waits, and its result is kept.
_KEPT_MS: Final = (LONGEST_WAIT_SECONDS + MAX_TTL_SECONDS) * 1000 + LATE_MS
_BEGINNING: Final = b'{"base"'


class IdKey(NamedTuple):
    """One secret: its number, and from when on it signs, in milliseconds since the epoch."""

    number: int
    secret: bytes
    since_ms: int


class IdKeys(NamedTuple):
    """All of them, by the time from which they sign; the first has always signed, or those before it are over."""

    base: bytes
    keys: tuple[IdKey, ...]


def read(content: bytes) -> IdKeys:
    """Read a file's content.

    Raises:
        ValueError: It is none of secrets.
    """
    if not content.startswith(_BEGINNING):
        return _checked(IdKeys(content, (IdKey(0, content, 0),)))
    try:
        value = json.loads(content)
        keys = (IdKey(one["number"], _decoded(one["secret"]), one["since_ms"]) for one in value["keys"])
        found = IdKeys(_decoded(value["base"]), tuple(sorted(keys, key=lambda key: key.since_ms)))
    except (ValueError, KeyError, TypeError, AttributeError):
        # Without what stands there: that is secret.
        raise ValueError("what signs task ids can't be read") from None
    return _checked(found)


def spell(keys: IdKeys) -> bytes:
    """Return the content of a file with these."""
    listed = [{"number": one.number, "secret": _encoded(one.secret), "since_ms": one.since_ms} for one in keys.keys]
    return json.dumps({"base": _encoded(keys.base), "keys": listed}).encode() + b"\n"


def rotated(keys: IdKeys, *, now_ms: int, since_ms: int) -> IdKeys:
    """Return them with a new one, which signs from then on, and without those that are over.

    Raises:
        ValueError: Another one is to take over, and has not yet; or there are as many as there may be.
    """
    if keys.keys[-1].since_ms > now_ms:
        raise ValueError("the one before it does not sign yet")
    number = (keys.keys[-1].number + 1) % MOST_KEYS
    new = IdKey(number, secrets.token_bytes(32), since_ms)
    return _checked(without_old(IdKeys(keys.base, (*keys.keys, new)), now_ms=now_ms))


def without_old(keys: IdKeys, *, now_ms: int) -> IdKeys:
    """Return them without those of which no task's id is left."""
    afterwards = [one.since_ms for one in keys.keys[1:]]
    old = sum(since_ms + _KEPT_MS <= now_ms for since_ms in afterwards)
    return keys._replace(keys=keys.keys[old:])


def times(keys: IdKeys) -> list[tuple[IdKey, int, float]]:
    """Return each with the times from which and until which it signs, in milliseconds since the epoch."""
    since = [0, *(one.since_ms for one in keys.keys[1:])]
    until = [*(one - 1 for one in since[1:]), math.inf]
    return [*zip(keys.keys, since, until, strict=True)]


def _checked(keys: IdKeys) -> IdKeys:
    numbers = {one.number for one in keys.keys}
    if not numbers or len(numbers) < len(keys.keys) or not numbers <= {*range(MOST_KEYS)}:
        raise ValueError(f"what signs task ids needs numbers of its own, from 0 to {MOST_KEYS - 1}")
    for secret in (keys.base, *(one.secret for one in keys.keys)):
        if len(secret) < MIN_KEY_BYTES:
            raise ValueError(f"the key that signs task ids has {len(secret)} bytes; it needs at least {MIN_KEY_BYTES}")
    return keys


def _encoded(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, altchars=b"-_", validate=True)
