"""Task ids: opaque, URL-safe, canonical and signed, so that a status never has to guess.

An id carries what is needed to judge it with no record at hand: its queue, when it was minted and both times to live.
Of two tasks under one idempotency key, one after the other, the ids differ by that time alone.
Its signature (HMAC-SHA-256, RFC 2104, truncated to 128 bits) proves that this Poste issued it; which key made it, it
says by its number (`id_keys`). Its random part ends in a keyed hash of the client that it was made for, which tells
whether a task is a client's with no record at hand: of 2^24 other clients one would have the same.

Layout before base64url without padding (RFC 4648, section 5)::

    number and kind 1 | random 9 | owner 3 | create_time 6, ms | task TTL 4, s | result TTL 4, s
    | queue, UTF-8 | signature 16

Only gateways have the key. What others need to call a task in their logs as its client does travels with it: the id
without its queue's name, which they know (`without_queue`, `with_queue`). That is short, and costs no decoding: the
name begins where a group of four characters does.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import os
import struct
import time
from typing import Final, NamedTuple

from poste.domain import id_keys
from poste.domain.errors import InvalidTaskId
from poste.domain.id_keys import LATE_MS, IdKeys

#: The first byte: the task was accepted before the id was given out, or it was unknown whether it was. In front of that
#: stand six bits with the number of the key that signed it.
_ACCEPTED: Final = 1
_ACCEPTANCE_UNKNOWN: Final = 2
_KIND_BITS: Final = 2
_HEAD: Final = struct.Struct(">B12s6sII")
_SIGNATURE_BYTES: Final = 16
_RANDOM_BYTES: Final = 9
_OWNER_BYTES: Final = 3
#: The owners of so many clients' tasks are remembered.
_MOST_OWNERS: Final = 1024
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
#: How many characters there are before the queue's name; and how many at most without it, with a rest of it.
_HEAD_CHARS: Final = _HEAD.size // 3 * 4
MAX_WITHOUT_QUEUE: Final = _HEAD_CHARS + (2 + _SIGNATURE_BYTES) // 3 * 4
#: Longer strings are refused before any work is done on them: a queue's name is at most a few hundred bytes.
_MAX_TEXT: Final = 1024


class TaskId(NamedTuple):
    """One task's id, taken apart.

    Attributes:
        text: The public spelling.
        queue: The queue's name, which is the service's full name.
        key: The random part, or what an idempotency key made of it, and the owner: what the task is called within its
            queue in Redis.
        create_ms: When it was minted, in milliseconds since the epoch.
        task_ttl_seconds: How long it may wait for its service.
        result_ttl_seconds: How long its result is kept.
        acceptance_unknown: It was given out although it was unknown whether the task was accepted.
    """

    text: str
    queue: str
    key: str
    create_ms: int
    task_ttl_seconds: int
    result_ttl_seconds: int
    acceptance_unknown: bool = False


class _Signer(NamedTuple):
    """What one key signs by: its number, its own rounds of each signature, and between which times, in milliseconds."""

    number: int
    rounds: hmac.HMAC
    since_ms: int
    until_ms: float


class _Owners(dict[str, bytes]):
    """What the ids of each client's tasks have of it, by the client: made when it is first asked for."""

    def __init__(self, base: bytes) -> None:
        super().__init__()
        self._base = base

    def __missing__(self, client: str) -> bytes:
        if len(self) >= _MOST_OWNERS:
            self.clear()
        said = f"poste task owner\0{client}".encode()
        owner = self[client] = hmac.new(self._base, said, hashlib.sha256).digest()[:_OWNER_BYTES]
        return owner


class TaskIds:
    """Mints and reads ids under secret keys."""

    def __init__(self, content: bytes) -> None:
        """Take what the file with the keys holds (`poste.domain.id_keys`).

        Raises:
            ValueError: It is none, or a key is too short.
        """
        keys = id_keys.read(content)
        self._base = keys.base
        self._owners = _Owners(keys.base)
        self.renew(keys)

    def renew(self, keys: IdKeys) -> None:
        """Sign and read by other keys from now on.

        Raises:
            ValueError: They are another Poste's: none would be an id that was given out.
        """
        if keys.base != self._base:
            raise ValueError("the keys that sign task ids are another Poste's")
        self._signers = {
            key.number: _Signer(key.number, hmac.new(key.secret, digestmod="sha256"), first, last)
            for key, first, last in id_keys.times(keys)
        }
        self._newest = self._signers[keys.keys[-1].number]

    @property
    def fingerprint(self) -> str:
        """A fingerprint of the keys: it differs for those of two Postes, reveals none, and outlives their rotation."""
        return hmac.new(self._base, b"poste id key fingerprint", hashlib.sha256).hexdigest()[:16]

    def mint(
        self,
        queue: str,
        *,
        task_ttl_seconds: int,
        result_ttl_seconds: int,
        client: str = "",
        random: bytes | None = None,
        now: float | None = None,
    ) -> TaskId:
        """Make a new id for a task of `queue`.

        Args:
            queue: The queue's name.
            task_ttl_seconds: How long it may wait for its service.
            result_ttl_seconds: How long its result is kept.
            client: The client that it belongs to; empty if clients are not told apart.
            random: What stands for the random part: of a call with an idempotency key (`of_idempotency_key`).
            now: In seconds since the epoch; the clock's if not given.
        """
        milliseconds = int((time.time() if now is None else now) * 1000)
        made = (random or os.urandom(_RANDOM_BYTES)) + self._owners[client]
        return self._make(queue, made, milliseconds, task_ttl_seconds, result_ttl_seconds)

    def of_idempotency_key(self, service: str, method: str, text: str, *, client: str = "") -> bytes:
        """Return what stands for the random part of the id of each call of a method with a client's idempotency key.

        So they all have one record. Under the base, which is secret, no client can choose two texts for which it is the
        same.
        """
        said = f"poste idempotency key\0{service}\0{method}\0{text}\0{client}".encode()
        return hmac.new(self._base, said, hashlib.sha256).digest()[:_RANDOM_BYTES]

    def is_of(self, task_id: TaskId, client: str) -> bool:
        """Return whether a task is a client's."""
        return hmac.compare_digest(_decode(task_id.key)[_RANDOM_BYTES:], self._owners[client])

    def owner_of(self, client: str) -> str:
        """Return what the keys of a client's tasks end in."""
        return _encode(self._owners[client])

    def key_of_idempotency_key(self, service: str, method: str, text: str, *, client: str = "") -> str:
        """Return what a call of a method with a client's idempotency key is called within its queue."""
        return _encode(self.of_idempotency_key(service, method, text, client=client) + self._owners[client])

    def remake(self, queue: str, key: str, *, create_ms: int, task_ttl_seconds: int, result_ttl_seconds: int) -> TaskId:
        """Make the id of a task that is on record: the very one that was minted."""
        return self._make(queue, _decode(key), create_ms, task_ttl_seconds, result_ttl_seconds)

    def with_acceptance_unknown(self, task_id: TaskId) -> TaskId:
        """Return the same task's id, flagged as "acceptance unknown".

        It names the same record. Where there is no record it is answered with 404 in place of 500 `record-lost`, for
        the call may never have been accepted.
        """
        return self._make(
            task_id.queue,
            _decode(task_id.key),
            task_id.create_ms,
            task_id.task_ttl_seconds,
            task_id.result_ttl_seconds,
            acceptance_unknown=True,
        )

    def _make(
        self,
        queue: str,
        random: bytes,
        milliseconds: int,
        task_ttl_seconds: int,
        result_ttl_seconds: int,
        *,
        acceptance_unknown: bool = False,
    ) -> TaskId:
        signer = self._newest
        if milliseconds < signer.since_ms:
            signer = next(one for one in self._signers.values() if milliseconds <= one.until_ms)
        kind = _ACCEPTANCE_UNKNOWN if acceptance_unknown else _ACCEPTED
        head = _HEAD.pack(
            signer.number << _KIND_BITS | kind,
            random,
            milliseconds.to_bytes(6, "big"),
            task_ttl_seconds,
            result_ttl_seconds,
        )
        payload = head + queue.encode()
        text, key = _encode(payload + _signature(signer, payload)), _encode(random)
        # By their places: by their names they cost twice as much.
        return TaskId(text, queue, key, milliseconds, task_ttl_seconds, result_ttl_seconds, acceptance_unknown)

    def read(self, text: str) -> TaskId:
        """Take an id apart.

        Raises:
            InvalidTaskId: It was never issued under these keys, or is not spelled as it was issued.
        """
        raw = _decoded(text)
        signer = self._signers.get(raw[0] >> _KIND_BITS)
        if signer is None:
            raise InvalidTaskId
        payload, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, _signature(signer, payload)):
            raise InvalidTaskId
        task_id = _taken_apart(text, payload)
        # By its own time another key signed it: this one is not secret any more.
        if not signer.since_ms <= task_id.create_ms <= signer.until_ms + LATE_MS:
            raise InvalidTaskId
        return task_id

    def signed_anew(self, text: str) -> TaskId:
        """Return the id that a record of ours has, signed anew if the key that signed it was dropped since.

        A dead letter may lie there for longer than any key is kept.

        Raises:
            InvalidTaskId: The record is damaged: this is none of its ids.
        """
        raw = _decoded(text)
        if raw[0] >> _KIND_BITS in self._signers:
            return self.read(text)
        old = _taken_apart(text, raw[:-_SIGNATURE_BYTES])
        return self.remake(
            old.queue,
            old.key,
            create_ms=old.create_ms,
            task_ttl_seconds=old.task_ttl_seconds,
            result_ttl_seconds=old.result_ttl_seconds,
        )


def _decoded(text: str) -> bytes:
    """Return an id's bytes: as many as one has at least.

    Raises:
        InvalidTaskId: It is none.
    """
    raw = _decode(text)
    if len(raw) <= _HEAD.size + _SIGNATURE_BYTES:
        raise InvalidTaskId
    return raw


def _taken_apart(text: str, payload: bytes) -> TaskId:
    """Return what an id says, its signature aside.

    Raises:
        InvalidTaskId: It is none.
    """
    first, random, milliseconds, task_ttl, result_ttl = _HEAD.unpack_from(payload)
    kind = first & (1 << _KIND_BITS) - 1
    if kind not in (_ACCEPTED, _ACCEPTANCE_UNKNOWN):
        raise InvalidTaskId
    try:
        queue = payload[_HEAD.size :].decode()
    except UnicodeDecodeError as error:
        raise InvalidTaskId from error
    return TaskId(
        text=text,
        queue=queue,
        key=_encode(random),
        create_ms=int.from_bytes(milliseconds, "big"),
        task_ttl_seconds=task_ttl,
        result_ttl_seconds=result_ttl,
        acceptance_unknown=kind == _ACCEPTANCE_UNKNOWN,
    )


def _signature(signer: _Signer, payload: bytes) -> bytes:
    rounds = signer.rounds.copy()
    rounds.update(payload)
    return rounds.digest()[:_SIGNATURE_BYTES]


def without_queue(task_id: TaskId) -> str:
    """Return an id's text without its queue's name: `MAX_WITHOUT_QUEUE` characters at most."""
    text = task_id.text
    return text[:_HEAD_CHARS] + text[_HEAD_CHARS + len(_spelt(task_id.queue)) :]


def with_queue(queue: str, rest: str) -> str:
    """Return the whole text of what `without_queue` returned; whether it was ever issued is not proved.

    Of a task that was moved, the name of the queue that its id was issued for stands behind it and an `@`.
    """
    rest, _, issued_for = rest.partition("@")
    return rest[:_HEAD_CHARS] + _spelt(issued_for or queue) + rest[_HEAD_CHARS:]


@functools.lru_cache(maxsize=1024)
def _spelt(queue: str) -> str:
    """Spell as much of a queue's name as is spelt in characters of its own."""
    name = queue.encode()
    return _encode(name[: len(name) // 3 * 3])


def _encode(raw: bytes) -> str:
    # As `base64` does it, without its two calls more.
    return binascii.b2a_base64(raw, newline=False).translate(_URL_SAFE).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Decode base64url, refusing every spelling but the one that `_encode` gives."""
    if len(text) > _MAX_TEXT or not text.isascii():
        raise InvalidTaskId
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise InvalidTaskId from error
    if _encode(raw) != text:
        raise InvalidTaskId
    return raw
