"""How many of something each has: peers' connections, clients' bytes. Who has none left is not in it any more."""

from __future__ import annotations


class Counts(dict[str, int]):
    """A number for each that has any."""

    def __missing__(self, _: str) -> int:
        """Return 0 for a key that is not in it, without adding it."""
        return 0

    def add(self, who: str, number: int = 1) -> None:
        """Count so many more."""
        self[who] = self.get(who, 0) + number

    def remove(self, who: str, number: int = 1) -> None:
        """Count so many less."""
        left = self[who] - number
        if left:
            self[who] = left
        else:
            # It may have come to none already: what has no bytes is counted, too.
            self.pop(who, None)
