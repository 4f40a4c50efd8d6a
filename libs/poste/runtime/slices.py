"""Long work on the event loop, cut into slices: between them all else has its turn."""

from __future__ import annotations

import asyncio
import time
from typing import Final

#: How long a slice may be before others have their turn, in seconds.
_SLICE_SECONDS: Final = 0.003


class Slices:
    """The slices of one piece of work, whose steps are short."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def pause(self) -> None:
        """Let all else have its turn if this slice was long; to be called between two steps."""
        if time.monotonic() - self._began > _SLICE_SECONDS:
            await asyncio.sleep(0)
            self._began = time.monotonic()
