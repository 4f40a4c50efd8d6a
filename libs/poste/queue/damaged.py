"""Records that can't be read: they are passed over, counted, and each is logged once.

What stands in Redis may be written by another program, or damaged. One such record must hide no other, and end nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from poste.domain import input_rules
from poste.queue.connection import text
from poste.queue.errors import reading
from poste.runtime import logs, metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import redis.asyncio as redis

_log: Final = logs.get("records")
#: How many reported records are remembered, at most: lists are read again and again, and each record is logged once.
_MAX_REPORTED: Final = 10_000
_reported: Final[dict[tuple[str, str], None]] = {}


class DamagedRecord(ValueError):  # noqa: N818 - it states a fact
    """A record, or a part of one, is not what the scripts write."""


async def sound_keys(client: redis.Redis, place: str, queue: str, listed: Iterable[Any]) -> list[str]:
    """Return what stands in a list of keys; what can't be one is taken off it, for no step could name it.

    Raises:
        StoreUnreached, StoreNotRead: Redis did not answer.
    """
    sound = []
    for key in listed:
        if key.isascii():
            sound.append(text(key))
        else:
            # Whether it is gone or not: it is taken off again when it is next seen.
            with reading():
                await client.lrem(place, 0, key)
            report(queue, text(key), "it is no key")
    return sound


def fields_of(reply: Any) -> Sequence[Any]:
    """Return what HMGET answered of a record, in a pipeline whose errors are among its replies.

    Raises:
        DamagedRecord: What stands under its key is of another kind: that is what Redis refuses to read.
        StoreUnreached, StoreNotRead: It was not answered.
    """
    if isinstance(reply, ResponseError):
        raise DamagedRecord(str(reply))
    with reading():
        if isinstance(reply, Exception):
            raise reply
    fields: Sequence[Any] = reply
    return fields


def whole(value: bytes | str | None, name: str, *, most: int) -> int:
    """Return the whole number that a field is, of those up to `most`.

    Raises:
        DamagedRecord: It is none, or not there.
    """
    digits = value if value is not None and value.isdigit() and len(value) <= len(str(most)) else -1
    if not 0 <= (number := int(digits)) <= most:
        raise DamagedRecord(f"{name} is no number up to {most}")
    return number


def instant(value: bytes | str | None, name: str) -> float:
    """Return the instant that a field is, in seconds since the epoch: fields have it in whole milliseconds.

    Raises:
        DamagedRecord: It is none.
    """
    return whole(value, name, most=input_rules.LAST_SECOND * 1000) / 1000


def report(queue: str, key: str, why: str) -> None:
    """Count a record that was skipped, and log it unless it was logged before."""
    metrics.records_damaged_total.inc()
    if (queue, key) in _reported:
        return
    if len(_reported) >= _MAX_REPORTED:
        del _reported[next(iter(_reported))]
    _reported[queue, key] = None
    # By its key, not by the id that its client was given: that stands in the record, which can't be read. The key may
    # be whatever stands there.
    _log.error("record can't be read", queue=queue, key=key.encode("ascii", "backslashreplace").decode(), reason=why)
