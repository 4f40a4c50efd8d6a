"""How many requests a client may make: a token bucket, and the header fields that tell of it.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10. Each replica of the gateway has buckets of its own.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from typing import Final, NamedTuple

_SPELT: Final = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,5})", re.ASCII)
FORM: Final = "must be how many requests in how many seconds, such as 100/60"


class Rate(NamedTuple):
    """So many requests in so many seconds; as many may come at once."""

    quota: int
    seconds: int


def read(text: str) -> Rate:
    """Read a rate such as `100/60`.

    Raises:
        ValueError: It is none.
    """
    found = _SPELT.fullmatch(text)
    if found is None:
        raise ValueError(FORM)
    return Rate(int(found[1]), int(found[2]))


class Bucket:
    """What is left of a client's rate. It is full at first, and fills again evenly.

    Attributes:
        rate: The rate.
    """

    __slots__ = ("_clock", "_filled", "_left", "_policy", "rate")

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self._clock = rate, clock
        self._left, self._filled = float(rate.quota), clock()
        self._policy = f'"key";q={rate.quota};w={rate.seconds}'

    def take(self, count: int = 1, *, taken: int = 0) -> bool:
        """Take so many requests out, of which so many were `taken` before; return whether there was one left for them.

        What has many requests in one may take more than there are: the client waits longer after it.
        """
        self._fill()
        if self._left + taken < 1:
            return False
        self._left -= count - taken
        return True

    @property
    def wait_seconds(self) -> int:
        """In how many seconds there is a request left, at least one."""
        return max(1, math.ceil((1 - self._left) * self.rate.seconds / self.rate.quota))

    @property
    def full(self) -> bool:
        """Whether all of them are left."""
        self._fill()
        return self._left >= self.rate.quota

    def headers(self) -> dict[str, str]:
        """Return the header fields that tell of it."""
        quota, seconds = self.rate
        full = math.ceil((quota - self._left) * seconds / quota)
        return {
            "RateLimit-Policy": self._policy,
            "RateLimit": f'"key";r={max(0, math.floor(self._left))};t={full}',
        }

    def _fill(self) -> None:
        now, (quota, seconds) = self._clock(), self.rate
        self._left = min(float(quota), self._left + (now - self._filled) * quota / seconds)
        self._filled = now
