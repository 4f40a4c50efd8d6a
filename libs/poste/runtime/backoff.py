"""Exponential back-off: pauses between tries, doubled from failure to failure, with a random part against lockstep."""

from __future__ import annotations

import random


class Backoff:
    """The pauses of one thing that is tried again and again."""

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        """Begin with the shortest pause.

        Args:
            first_seconds: The first pause at most; each further one may be twice as long.
            longest_seconds: The longest.
        """
        self._first = self._next = first_seconds
        self._longest = longest_seconds

    def pause_seconds(self) -> float:
        """Note a failure; returns how long to wait now: half of what it may be, and by chance up to that."""
        longest, self._next = self._next, min(2 * self._next, self._longest)
        return random.uniform(longest / 2, longest)  # noqa: S311 - spread, not secrecy

    def reset(self) -> None:
        """Note a success: the next pause is the first again."""
        self._next = self._first
