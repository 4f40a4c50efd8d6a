"""How many calls may be under way at one service: found out, for the service does not say it.

As TCP finds a path's room: it begins with few and doubles them from round to round, up to the first sign that there are
too many, and from then on adds some a round. Signs are answers that say so (UNAVAILABLE, RESOURCE_EXHAUSTED, none in
time), which halve it, and answers that take longer than they used to, which shrink it in proportion: a queue has grown
at the service. A round is as many answers as calls may be under way. Times are compared method by method, so that a
service with slow methods and fast ones does not look loaded whenever more of the slow are called. What a method usually
takes is learnt anew only while few calls are under way: with many it is their own queue that one would learn.

(Jacobson, Congestion avoidance and control, SIGCOMM 1988, for the rounds; Brakmo and Peterson, TCP Vegas, SIGCOMM 1994,
for the times; the tolerance and the square root are from Gradient2 of Netflix's concurrency-limits.)
"""

from __future__ import annotations

import math
from typing import Final

#: How many calls it begins with.
_FIRST: Final = 4.0
#: How many times as long as before answers may take without being a sign.
_TOLERANCE: Final = 2.0
#: What is left at least of the limit after one round.
_LEAST_LEFT: Final = 0.5
#: So many answers of a method tell how long they take; and what that counts beside what was known.
_SAMPLE: Final = 32
_WEIGHT: Final = 0.5
#: A limit that is not used up to this share says nothing about more.
_USED: Final = 0.5


class _Usual:
    """How long a method's answers usually take.

    Attributes:
        seconds: So long.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._count = 0
        self._sum = 0.0

    def note(self, seconds: float, *, few: bool) -> None:
        """Note one more answer; `few` says that there is no queue that it could have waited in."""
        self._count += 1
        self._sum += seconds
        if self._count == _SAMPLE:
            mean = self._sum / _SAMPLE
            self.seconds = self.seconds + _WEIGHT * (mean - self.seconds) if few else min(self.seconds, mean)
            self._count, self._sum = 0, 0.0


class ConcurrencyLimit:
    """One service's."""

    def __init__(self, most: int) -> None:
        """Begin slowly; it is never more than `most`."""
        self._most = float(most)
        self._limit = min(_FIRST, self._most)
        self._doubling = True
        #: When it last fell: what was sent before says nothing new.
        self._fell_at = -math.inf
        self._usual: dict[str, _Usual] = {}
        self._answers = 0
        #: The sum of what this round's answers took, each as a multiple of the usual.
        self._slowness = 0.0
        self._full = False

    @property
    def now(self) -> int:
        """How many calls may be under way now."""
        return int(self._limit)

    def restart(self) -> None:
        """Begin slowly again: the service was away, and may have come back with less."""
        self._limit, self._doubling = min(_FIRST, self._most), True
        self._begin_round()

    def answered(self, method: str, seconds: float, *, in_flight: int) -> None:
        """Note an answer.

        Args:
            method: The method's short name.
            seconds: How long it took.
            in_flight: How many calls were under way when it came, itself included.
        """
        usual = self._usual.get(method)
        if usual is None:
            usual = self._usual[method] = _Usual(seconds)
        self._slowness += seconds / usual.seconds if usual.seconds > 0 else 1.0
        usual.note(seconds, few=self._limit <= _FIRST)
        self._answers += 1
        self._full = self._full or in_flight >= self._limit * _USED
        if self._answers >= self._limit:
            self._end_round()

    def refused(self, *, sent_at: float, now: float) -> None:
        """Note that the service did not take a call, lost it, or had no time for it.

        Args:
            sent_at: When it was sent. Of all that were sent before the limit fell one has counted for all.
            now: By the same clock.
        """
        if sent_at > self._fell_at:
            self._fell_at, self._doubling = now, False
            self._limit = max(1.0, self._limit * _LEAST_LEFT)
            self._begin_round()

    def _end_round(self) -> None:
        slowness = self._slowness / self._answers
        if slowness > _TOLERANCE:
            self._doubling = False
            self._limit = max(1.0, self._limit * max(_LEAST_LEFT, _TOLERANCE / slowness))
        elif self._full:
            more = self._limit if self._doubling else math.sqrt(self._limit)
            self._limit = min(self._limit + more, self._most)
        self._begin_round()

    def _begin_round(self) -> None:
        self._answers, self._slowness, self._full = 0, 0.0, False
