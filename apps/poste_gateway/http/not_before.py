"""The time before which a call is not to run: the header `Poste-Not-Before`, and the same of a call in a batch.

It is written as HTTP has it where a time may be either (`Retry-After`, RFC 9110, 10.2.3): as an instant, here by
RFC 3339, or as whole seconds from now.
"""

from __future__ import annotations

import re
import time
from typing import Final

from multidict import CIMultiDictProxy, istr

from poste.domain.policy import MAX_DELAY_SECONDS
from poste.protojson import wellknown
from poste.protojson.scalars import BadValueError
from poste_gateway.http import lone

NOT_BEFORE: Final = istr("Poste-Not-Before")
_SECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
#: What a time must be, in words for the client.
FORM: Final = (
    "must be whole seconds from now or an instant such as 2026-01-02T03:04:05Z (RFC 3339), "
    f"at most {MAX_DELAY_SECONDS} seconds ahead"
)


def read(headers: CIMultiDictProxy[str], errors: list[dict[str, str]]) -> int:
    """Return a call's time in milliseconds since the epoch, 0 if it has none; what is wrong is added to `errors`."""
    text = lone.read(headers, NOT_BEFORE, errors)
    if text is None:
        return 0
    instant_ms = parse(text.strip())
    if instant_ms is None:
        errors.append({"field": NOT_BEFORE, "reason": FORM})
    return instant_ms or 0


def parse(said: object) -> int | None:
    """Return a time in milliseconds since the epoch, by this machine's clock; None if it is none, or too far ahead.

    Args:
        said: Whole seconds from now, as a number or as text, or an instant. One that is over may be said.
    """
    now_ms = round(time.time() * 1000)
    if isinstance(said, int) and not isinstance(said, bool):
        said = str(said)
    if isinstance(said, str) and _SECONDS.fullmatch(said):
        instant_ms = now_ms + int(said) * 1000
    else:
        try:
            seconds, nanos = wellknown.read_timestamp(said)
        except BadValueError:
            return None
        instant_ms = seconds * 1000 + nanos // 1_000_000
    # What is over by now is so whenever it was, and no time of a record is before the epoch.
    return max(1, instant_ms) if instant_ms <= now_ms + MAX_DELAY_SECONDS * 1000 else None
