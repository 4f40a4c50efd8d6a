"""How many wrong keys and tokens an address may bring. Who brings a right one is let in whatever else comes from there.

So this is not what keeps keys from being guessed, which is their length; it bounds what trying costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from poste_gateway.access.rate import Bucket, Rate

#: So many at once, and one more every two seconds.
_RATE: Final = Rate(30, 60)
#: Of so many addresses it is known what they brought; of more the one that is known longest is forgotten.
_MOST_PEERS: Final = 4096


class Attempts:
    """Counts them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of: dict[str, Bucket] = {}

    def failed(self, peer: str) -> int:
        """Count one that was wrong; return 0, or in how many seconds a further one may be tried, if that are too many.

        Args:
            peer: The client (`limits.clients.client_of`); a trusted proxy, whose clients can't be told apart, may bring
                any number.
        """
        if not peer:
            return 0
        bucket = self._of.get(peer)
        if bucket is None:
            if len(self._of) >= _MOST_PEERS:
                del self._of[next(iter(self._of))]
            bucket = self._of[peer] = Bucket(_RATE, self._clock)
        return 0 if bucket.take() else bucket.wait_seconds
