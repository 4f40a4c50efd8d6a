"""A call's place in its trace, as it travels: W3C's `traceparent`, empty if it is in none."""

from __future__ import annotations

import random
import re
from typing import Final

#: The header, and the metadata, under which it travels.
HEADER: Final = "traceparent"
#: Travels between Poste's own parts in place of a `traceparent` if one of them began the trace and it is not recorded:
#: no part may sample it anew, and a whole one that no backend records costs a call more than all its metrics.
UNRECORDED: Final = "-"
_FORM: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?![^-])")
_LENGTH: Final = 55
#: The last digit if the trace is recorded: its lowest bit is set.
_RECORDED: Final = "13579bdf"


def read(header: str) -> str:
    """Return a header's `traceparent`, empty if it is none; a later version of it is read as this one."""
    return f"00{header[2:_LENGTH]}" if _FORM.match(header) else ""


def spelt(traceparent: str) -> str:
    """Return it as others than Poste's own parts read it."""
    if traceparent == UNRECORDED:
        return f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-00"
    return traceparent


def recorded(traceparent: str) -> bool:
    """Return whether its trace is recorded: the part that began it decided that, for all of it."""
    return traceparent != "" and traceparent[-1] in _RECORDED


def trace_id(traceparent: str) -> str:
    """Return the id of its trace; empty if it has none."""
    return traceparent[3:35]
