"""The page's sessions: what a browser shows in place of the key that it gave once; and the codes that begin one.

Either is signed by a key made of those that sign task ids, and kept nowhere, so every gateway reads what another gave
out. It holds the digest of the key that it stands for, which is looked up with each request: with a key its sessions
are revoked. A code is good once at each gateway, which remembers those that were used until their time is over.

Layout before base64url::

    number of the signing key 1 | kind 1 | random 16 | expires 8, s | digest of the key 32 | signature 32
"""

from __future__ import annotations

import base64
import enum
import hmac
import secrets
import struct
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from poste.domain import id_keys
from poste.domain.id_keys import LATE_MS, IdKeys

#: How long a session lasts, in seconds: a working day and what goes before and after it.
SESSION_SECONDS: Final = 12 * 3600
#: How long after it was made a code may begin one, in seconds.
CODE_SECONDS: Final = 600
#: What is signed so is no task id: its first byte is of no kind of theirs.
_PURPOSE: Final = b"poste page session"
_BODY: Final = struct.Struct(">BB16sQ32s")
_SIGNATURE_BYTES: Final = 32
_CHARS: Final = (_BODY.size + _SIGNATURE_BYTES) // 3 * 4


class _Kind(enum.IntEnum):
    SESSION = 1
    CODE = 2


_LASTS: Final = {_Kind.SESSION: SESSION_SECONDS, _Kind.CODE: CODE_SECONDS}


class _Signer(NamedTuple):
    """One key: its number, what signs, and between which times it does, in milliseconds."""

    number: int
    secret: bytes
    since_ms: int
    until_ms: float


class _Shown(NamedTuple):
    """What a genuine text says."""

    random: bytes
    expires: int
    digest: str


class Sessions:
    """Gives out sessions and codes, and reads them."""

    def __init__(self, keys: IdKeys, clock: Callable[[], float] = time.time) -> None:
        """Sign by these; `clock` tells seconds since the epoch."""
        self._clock = clock
        #: The codes that were used here, and when each is over.
        self._used: dict[bytes, int] = {}
        self.renew(keys)

    def renew(self, keys: IdKeys) -> None:
        """Sign and read by other keys from now on."""
        self._signers = {
            key.number: _Signer(key.number, hmac.digest(key.secret, _PURPOSE, "sha256"), since, until)
            for key, since, until in id_keys.times(keys)
        }
        self._newest = self._signers[keys.keys[-1].number]

    def begin(self, digest: str) -> str:
        """Return a session for who has the key of a digest (`client_keys.digest`)."""
        return self._make(_Kind.SESSION, digest)

    def code(self, digest: str) -> str:
        """Return a code with which one can be begun, once."""
        return self._make(_Kind.CODE, digest)

    def read(self, text: str) -> str | None:
        """Return the digest of the key that a session stands for; None if it is over, or was never given out."""
        shown = self._read(_Kind.SESSION, text)
        return None if shown is None else shown.digest

    def redeem(self, code: str) -> str | None:
        """Return the digest of the key that a code stands for; None if it is over, was used, or never given out."""
        shown, now = self._read(_Kind.CODE, code), self._clock()
        if shown is None or shown.random in self._used:
            return None
        self._used = {random: expires for random, expires in self._used.items() if expires > now}
        self._used[shown.random] = shown.expires
        return shown.digest

    def _make(self, kind: _Kind, digest: str) -> str:
        expires, signer = int(self._clock()) + _LASTS[kind], self._newest
        body = _BODY.pack(signer.number, kind, secrets.token_bytes(16), expires, bytes.fromhex(digest))
        return base64.urlsafe_b64encode(body + hmac.digest(signer.secret, body, "sha256")).decode()

    def _read(self, kind: _Kind, text: str) -> _Shown | None:
        if len(text) != _CHARS or not text.isascii():
            return None
        try:
            raw = base64.b64decode(text, altchars=b"-_", validate=True)
        except ValueError:
            return None
        body, signature = raw[: _BODY.size], raw[_BODY.size :]
        number, said, random, expires, digest = _BODY.unpack(body)
        signer = self._signers.get(number)
        if signer is None or not hmac.compare_digest(signature, hmac.digest(signer.secret, body, "sha256")):
            return None
        made_ms = (expires - _LASTS[kind]) * 1000
        # By its own time another key signed it: this one is not secret any more.
        timely = signer.since_ms - 1000 < made_ms <= signer.until_ms + LATE_MS
        if said != kind or not timely or expires <= self._clock():
            return None
        return _Shown(random, expires, digest.hex())
