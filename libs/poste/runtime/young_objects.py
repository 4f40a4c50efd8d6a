"""Has the garbage collector look at new objects before they are many.

By itself it begins once 20,000 objects more were made than freed (`lifecycle`), and then takes all that are new in one
go. But each old object that is freed makes up for a new one: where a thousand connections replace what they hold of
their last requests, two hundred thousand may be new by then, and the event loop stands for 80 ms.
"""

from __future__ import annotations

import gc
from typing import Final

#: After so many objects were made the collector looks at them, which takes a millisecond or two.
_MOST: Final = 5_000
#: So often it looks at the youngest only; then at what was young before as well, as it would by itself.
_TIMES: Final = 20


class YoungObjects:
    """Counts objects that are made, where they may be many and live for a while. Used from one thread only."""

    def __init__(self) -> None:
        """Begin with none."""
        self._made = self._times = 0

    def made(self, count: int) -> None:
        """Count so many that were made."""
        self._made += count
        if self._made > _MOST:
            self._made = 0
            self._times = (self._times + 1) % _TIMES
            gc.collect(0 if self._times else 1)
