"""What methods answered with lately: how large the next answer may well be, and how it comes."""

from __future__ import annotations

from typing import Final

from poste.domain import sizes

#: By this part each answer that is smaller than those before it lessens what is thought of the next.
_FORGOTTEN: Final = 32
#: A small answer that took longer to come than this, from its call's first sign of life on, in seconds, was still being
#: made then: its service had sent the headers alone.
_EARLY_SECONDS: Final = 0.1
#: It knows so many methods; then it begins anew. Services come and go, and so do their methods.
_MAX_METHODS: Final = 10_000


class AnswerHistory:
    """Knows methods by their paths."""

    def __init__(self) -> None:
        """Begin with knowing none."""
        self._expected: dict[str, int] = {}
        #: Those whose headers come long before their answers.
        self._early: set[str] = set()

    def expected(self, path: str) -> int | None:
        """Return how many bytes a method's next answer is thought to have; None if it has never answered."""
        return self._expected.get(path)

    def early(self, path: str) -> bool:
        """Return whether a method's headers come long before its answer, which is small."""
        return path in self._early

    def note(self, path: str, size: int, seconds: float = 0.0) -> None:
        """Note an answer.

        Args:
            path: Its method's.
            size: How many bytes it had.
            seconds: How long it took to come after its headers, where that is known.
        """
        expected = self._expected.get(path, 0)
        if not expected and len(self._expected) >= _MAX_METHODS:
            self._expected.clear()
            self._early.clear()
        self._expected[path] = expected = max(size, expected - expected // _FORGOTTEN)
        if seconds > _EARLY_SECONDS and expected <= sizes.LARGE:
            self._early.add(path)
        else:
            self._early.discard(path)
