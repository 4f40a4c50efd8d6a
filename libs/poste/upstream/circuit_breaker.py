"""A circuit breaker: keeps calls off a replica that does not answer, although its connection seems alive."""

from __future__ import annotations

from typing import Final

#: How long calls are kept off a replica after its first timeout, in seconds; doubled for each further one.
_FIRST_SECONDS: Final = 1.0
#: The longest that they are kept off, in seconds.
_LONGEST_SECONDS: Final = 10.0


class CircuitBreaker:
    """One replica's circuit breaker.

    It opens after a call that was not answered in time. Once it was open for its time it lets one call at a time
    through, the probe, and closes when any call is answered. Calls that were sent before it opened and are not answered
    either neither open it for longer nor make room for another probe.
    """

    def __init__(self) -> None:
        self._timeouts = 0
        self._open_until = 0.0
        self._probing = False

    def allows(self, now: float) -> bool:
        """Return whether a call may be sent at `now`, in seconds of the loop's clock."""
        return self._timeouts == 0 or (now >= self._open_until and not self._probing)

    def on_start(self) -> bool:
        """Note that a call is sent; returns whether it is the probe."""
        if self._timeouts == 0 or self._probing:
            return False
        self._probing = True
        return True

    def on_finish(self, *, probe: bool) -> None:
        """Note that a call is over, however it went; `probe` is what `on_start` returned for it."""
        if probe:
            self._probing = False

    def record_success(self) -> None:
        """Note a sign of life: any answer."""
        self._timeouts = 0

    def record_timeout(self, now: float, *, sent: float) -> None:
        """Note that an answer did not come in time.

        Args:
            now: In seconds of the loop's clock.
            sent: When the call was sent. One of many that were sent before it opened has counted for all.
        """
        if self._timeouts and sent < self._open_until:
            return
        self._open_until = now + min(_FIRST_SECONDS * 2.0**self._timeouts, _LONGEST_SECONDS)
        self._timeouts += 1
