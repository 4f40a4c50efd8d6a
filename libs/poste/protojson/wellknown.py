"""The types whose JSON is a text of their own: Timestamp, Duration, FieldMask.

Read as ProtoJSON has them and no more leniently; what is written can be read back.
"""

from __future__ import annotations

import datetime as dt
import re
import string
from collections.abc import Iterable
from typing import Final

from poste.protojson.errors import NoFormError, quotable
from poste.protojson.scalars import BadValueError

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
#: 0001-01-01T00:00:00Z and the last second of 9999, from the epoch.
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
#: 10,000 years.
_LONGEST_SECONDS: Final = 315_576_000_000
_NANOS: Final = 10**9
_INSTANT: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)"
    r"(?:\.(?P<fraction>\d+))?(?P<zone>Z|(?P<sign>[+-])(?P<hours>\d\d):(?P<minutes>\d\d))?",
    re.ASCII,
)
_DURATION: Final = re.compile(r"(?P<sign>-?)(?P<seconds>0|[1-9]\d*)(\.(?P<fraction>\d+))?s", re.ASCII)
# What may be said of a path in both spellings: a capital letter stands for an underscore before it. Patterns of what
# may not stand in it, for one that takes the whole of a long path remembers each step of that.
_NO_JSON_PATH: Final = re.compile(r"[^A-Za-z0-9.]|\.(?![A-Za-z0-9])|^\.|^$")
_NO_PROTO_PATH: Final = re.compile(r"[^a-z0-9_.]|_(?![a-z])|\.(?![a-z0-9_])|^\.|^$")
_EVERYTHING: Final = "*"
_MAX_DIGITS: Final = 12
#: How a capital letter of a path in JSON is spelt in the proto.
_SNAKE: Final = {ord(letter): f"_{letter.lower()}" for letter in string.ascii_uppercase}


def read_timestamp(value: object) -> tuple[int, int]:
    """Read an instant; returns its seconds since the epoch, and nanoseconds.

    Raises:
        BadValueError: It is none.
    """
    found = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise BadValueError("must be an instant such as 2026-01-02T03:04:05Z (RFC 3339)")
    if found["zone"] is None:
        raise BadValueError("needs a time zone, such as Z")
    nanos = _nanos(found["fraction"])
    try:
        year, month, day, hour, minute, second = map(int, found.group(1, 2, 3, 4, 5, 6))
        instant = dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)
        # A day's time, and no more: there is no offset of 24 hours.
        offset = dt.time(int(found["hours"] or 0), int(found["minutes"] or 0))
    except ValueError:
        raise BadValueError("is a day, a time or a time zone that there is not") from None
    away = offset.hour * 3600 + offset.minute * 60
    seconds = (instant - _EPOCH) // dt.timedelta(seconds=1) + (away if found["sign"] == "-" else -away)
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise BadValueError("must lie in the years 1 to 9999, in UTC")
    return seconds, nanos


def write_timestamp(seconds: int, nanos: int) -> str:
    """Write an instant; raises NoFormError."""
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise NoFormError(f"is an instant outside of the years 1 to 9999: {seconds} seconds from 1970")
    if not 0 <= nanos < _NANOS:
        raise NoFormError(f"has {nanos} nanoseconds, which must lie between 0 and 999999999")
    instant = _EPOCH + dt.timedelta(seconds=seconds)
    return f"{instant.replace(tzinfo=None).isoformat()}{_fraction(nanos)}Z"


def read_duration(value: object) -> tuple[int, int]:
    """Read a duration; returns its seconds and nanoseconds, both of its sign.

    Raises:
        BadValueError: It is none.
    """
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise BadValueError("must be seconds, followed by s, such as 1.5s")
    nanos = _nanos(found["fraction"])
    # The length is checked before it is made a number, which costs much of a long text.
    seconds = int(found["seconds"]) if len(found["seconds"]) <= _MAX_DIGITS else _LONGEST_SECONDS + 1
    if seconds > _LONGEST_SECONDS:
        raise BadValueError(f"must lie between -{_LONGEST_SECONDS}s and {_LONGEST_SECONDS}s")
    return (-seconds, -nanos) if found["sign"] else (seconds, nanos)


def write_duration(seconds: int, nanos: int) -> str:
    """Write a duration; raises NoFormError."""
    if abs(seconds) > _LONGEST_SECONDS:
        raise NoFormError(f"is a duration of {seconds} seconds, more than 10000 years")
    if abs(nanos) >= _NANOS:
        raise NoFormError(f"has {nanos} nanoseconds, which must lie between -999999999 and 999999999")
    if seconds and nanos and (seconds < 0) is not (nanos < 0):
        raise NoFormError(f"has {seconds} seconds and {nanos} nanoseconds, which must be of one sign")
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{_fraction(abs(nanos))}s"


def read_field_mask(value: object) -> list[str]:
    """Read the paths of a mask; returns them as protos spell them.

    Raises:
        BadValueError: It is none.
    """
    if not isinstance(value, str):
        raise BadValueError("must be a string: paths such as user.firstName, with commas between them")
    if not value:
        return []
    paths = value.split(",")
    for path in paths:
        if "_" in path:
            raise BadValueError(f"has the path {quotable(path)!r}, which must be in lowerCamelCase")
        if path != _EVERYTHING and _NO_JSON_PATH.search(path):
            raise BadValueError(f"has the path {quotable(path)!r}: a path is names with points between them")
    return [path.translate(_SNAKE) for path in paths]


def write_field_mask(paths: Iterable[str]) -> str:
    """Write the paths of a mask; raises NoFormError if one would be read back as another."""
    written = []
    for path in paths:
        if path != _EVERYTHING and _NO_PROTO_PATH.search(path):
            shown = quotable(path)
            raise NoFormError(f"has the path {shown!r}, which can't be written in lowerCamelCase and read back")
        if "_" in path:
            # Once for each letter: one pass by a pattern would make a piece of each, sixty times the path in all.
            for letter in string.ascii_lowercase:
                path = path.replace(f"_{letter}", letter.upper())  # noqa: PLW2901 - what is left of it
        written.append(path)
    return ",".join(written)


def _nanos(fraction: str | None) -> int:
    if fraction is None:
        return 0
    if len(fraction) > len(str(_NANOS - 1)):
        raise BadValueError("has more than nine digits after the point")
    return int(fraction.ljust(9, "0"))


def _fraction(nanos: int) -> str:
    """Spell nanoseconds after a point, in as many thirds as they need."""
    if not nanos:
        return ""
    if nanos % 1_000_000 == 0:
        return f".{nanos // 1_000_000:03}"
    return f".{nanos // 1000:06}" if nanos % 1000 == 0 else f".{nanos:09}"
