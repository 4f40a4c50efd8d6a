"""Spans of time as users write them: 90s, 15m, 2h, 7d."""

from __future__ import annotations

import re
from typing import Final

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN: Final = re.compile(r"(\d{1,9})([smhd]?)", re.ASCII)
#: What a span looks like, in words for the user.
SUCH_AS: Final = "90s, 15m, 2h or 7d"


def seconds_of(text: str) -> int | None:
    """Return how many seconds a span has, which are what is meant without a unit; None if it is none."""
    found = _SPAN.fullmatch(text)
    return None if found is None else int(found[1]) * _SECONDS[found[2] or "s"]
