"""What methods answered with lately: how large the next answer may well be, and how it comes."""

from __future__ import annotations

from typing import Final

from poste.domain import sizes

#: By this part each answer that is smaller than those before it lessens what is thought of the next.
_FORGOTTEN: Final = 32
#: A small answer that took longer to come than this, from its call's first sign of life on, in seconds, was still being
#: made then: its service had sent the headers alone.
_EARLY_SECONDS: Final = 0.1
#: After so many that came at once its service sends no headers beforehand any more.
_AT_ONCE: Final = 16
#: It knows so many methods; then it begins anew. Services come and go, and so do their methods.
_MAX_METHODS: Final = 10_000


class AnswerHistory:
    """Knows methods by their paths."""

    def __init__(self) -> None:
        """Begin with knowing none."""
        self._expected: dict[str, int] = {}
        #: Those whose headers come long before their answers, and how many answers in a row would disprove it.
        self._early: dict[str, int] = {}

    def expected(self, path: str) -> int | None:
        """Return how many bytes a method's next answer is thought to have; None if it has never answered."""
        return self._expected.get(path)

    def small(self, path: str) -> bool:
        """Return whether a method has answered, and its next answer is thought to be small."""
        expected = self._expected.get(path)
        return expected is not None and expected <= sizes.LARGE

    def early(self, path: str) -> bool:
        """Return whether a method's headers come long before its answer, which is small."""
        return path in self._early

    def note(self, path: str, size: int, seconds: float | None = None) -> None:
        """Note an answer.

        Args:
            path: Its method's.
            size: How many bytes it had.
            seconds: How long it took to come after its headers; None where that can't be known.
        """
        expected = self._expected.get(path, 0)
        if not expected and len(self._expected) >= _MAX_METHODS:
            self._expected.clear()
            self._early.clear()
        self._expected[path] = expected = max(size, expected - expected // _FORGOTTEN)
        if expected > sizes.LARGE:
            self._early.pop(path, None)
        elif seconds is None:
            return
        elif seconds > _EARLY_SECONDS:
            self._early[path] = _AT_ONCE
        elif left := self._early.pop(path, 1) - 1:
            self._early[path] = left
