"""Whose turn it is: methods that must not hold up the others of their queue, and what waits in their lanes.

A queue is one list, in the order in which calls came. So that slow methods don't keep fast ones waiting, a method's
tasks go by a lane of their own, where those behind them in the queue pass them,

- if it has a limit of its own (`concurrency`, `starts_per_second`);
- if its tasks hold more than the method's share of this process' places for long (`LONG_SECONDS`): of n such methods
  each has one part of n + 1, so that one part is always for the others. What has its share takes more only while the
  queue has nothing else;
- and until its lane is empty, for what waits there is older than what is in the queue.

The lanes are the queue's, not a process': whoever has a place takes from them. A process learns of lanes that others
filled when it reconciles.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poste.domain.policy import MethodPolicy
    from poste.queue.consumer.state import ConsumerState

#: A place that a task has held for so long, in seconds, is one that others may be waiting for.
LONG_SECONDS: Final = 0.25
#: How often it is found out who holds places for long while there are free ones, in seconds.
_WEIGH_SECONDS: Final = 0.5


class Serving(NamedTuple):
    """A lane whose turn it is: its method, how many may be taken, and how many start a second, if that is limited."""

    method: str
    most: int
    per_second: float | None


class Lanes:
    """One session's view of its queue's lanes."""

    def __init__(self, state: ConsumerState) -> None:
        self._state = state
        #: The methods in whose lanes something waits, as far as is known, in the order of their turns.
        self._waiting: dict[str, None] = {}
        #: The methods that have their share of the places.
        self._satisfied: frozenset[str] = frozenset()
        self._weighed_at = 0.0
        #: Until when a method's pace allows no more, by the loop's clock.
        self._paced: dict[str, float] = {}
        #: The queue itself has its turn next.
        self._queues_turn = False

    def note_waiting(self, methods: Iterable[str]) -> bool:
        """Note that something waits in these methods' lanes; returns whether that is news."""
        known = len(self._waiting)
        for method in methods:
            self._waiting.setdefault(method)
        return len(self._waiting) > known

    def note_taken(self, serving: Serving, count: int, *, wait_seconds: float, now: float) -> None:
        """Note what a lane gave; `wait_seconds` is for how long its method's pace allows no more."""
        if wait_seconds > 0:
            self._paced[serving.method] = now + wait_seconds
        else:
            self._paced.pop(serving.method, None)
        self._waiting.pop(serving.method, None)
        if count == serving.most or wait_seconds > 0:
            # Behind the others.
            self._waiting[serving.method] = None
        self._queues_turn = True

    def weigh(self, now: float) -> None:
        """Find out of which methods tasks hold their share of the places, or more, for long."""
        self._weighed_at = now
        since = now - LONG_SECONDS
        held = Counter(one.method for one in self._state.unended() if one.claim_time <= since)
        share = self._state.concurrency / (len(held) + 1)
        self._satisfied = frozenset(method for method, count in held.items() if count >= share)

    def parked(self, now: float) -> list[str]:
        """Return the methods whose tasks go by their lanes, by the loop's clock `now`."""
        if now - self._weighed_at >= _WEIGH_SECONDS:
            self.weigh(now)
        limited = self._state.host.limits()
        if not (limited or self._waiting or self._satisfied):
            return []
        return [*{*limited, *self._waiting, *self._satisfied}]

    def next(self, slots: int, *, others: bool, now: float) -> Serving | None:
        """Return the lane whose turn it is; None if it is the queue's, or nothing may be taken from lanes.

        Args:
            slots: How many tasks may be taken.
            others: Whether the queue itself has something.
            now: By the loop's clock.
        """
        if not self._waiting:
            return None
        if others and self._queues_turn:
            self._queues_turn = False
            return None
        free = self._free_lanes(slots, others=others, now=now)
        if not free:
            return None
        share = -(-slots // (len(free) + others))
        method, most = next(iter(free.items()))
        policy = self._state.host.limits().get(method)
        return Serving(method, min(most, share), policy.starts_per_second if policy else None)

    def may_serve(self, now: float) -> bool:
        """Return whether some lane may be taken from, the queue itself having nothing."""
        return bool(self._free_lanes(1, others=False, now=now))

    def due_seconds(self, now: float) -> float | None:
        """Return in how long a method's pace allows more of what waits; None if that holds nothing up."""
        waits = [self._paced[method] - now for method in self._waiting if self._paced.get(method, 0.0) > now]
        return min(waits, default=None)

    @property
    def any_waiting(self) -> bool:
        """Whether something waits in a lane, as far as is known."""
        return bool(self._waiting)

    def _free_lanes(self, slots: int, *, others: bool, now: float) -> dict[str, int]:
        """Return the lanes that may be taken from, in their turns, and how many tasks of each."""
        limits, held = self._state.host.limits(), Counter(one.method for one in self._state.unended())
        free = {}
        for method in self._waiting:
            policy: MethodPolicy | None = limits.get(method)
            most = slots
            if policy is not None and policy.concurrency is not None:
                most = min(most, policy.concurrency - held[method])
            if self._paced.get(method, 0.0) > now or (others and method in self._satisfied):
                continue
            if most > 0:
                free[method] = most
        return free
