"""Keeps calls off a replica that does not answer, although its connection looks alive."""

from __future__ import annotations

from typing import Final

#: How long calls are kept off a replica after its first silence, in seconds; doubled for each further one.
_FIRST_SECONDS: Final = 1.0
#: The longest that they are kept off, in seconds.
_LONGEST_SECONDS: Final = 10.0


class Circuit:
    """One replica's. Open after a call that was not answered in time; then one call at a time finds out."""

    def __init__(self) -> None:
        self._silences = 0
        self._open_until = 0.0
        self._probing = False

    def lets_through(self, now: float) -> bool:
        """Tell whether a call may be sent at `now`, in seconds of the loop's clock."""
        return self._silences == 0 or (now >= self._open_until and not self._probing)

    def sent(self) -> None:
        """Note that a call is sent: while the circuit is open, it is the one that finds out."""
        self._probing = self._silences > 0

    def ended(self) -> None:
        """Note that a call is over, however it went."""
        self._probing = False

    def answered(self) -> None:
        """Note a sign of life: any answer."""
        self._silences = 0

    def silent(self, now: float) -> None:
        """Note that an answer did not come in time; one of many that were sent together counts for all."""
        if now < self._open_until:
            return
        self._open_until = now + min(_FIRST_SECONDS * 2.0**self._silences, _LONGEST_SECONDS)
        self._silences += 1
