"""Refusals for want of room: each is counted, and logged with its client."""

from __future__ import annotations

from typing import Final

from poste.runtime import logs, metrics
from poste.runtime.log_throttle import LogThrottle

_seldom: Final = LogThrottle(logs.get("refusals"), "warning")


def refuse(reason: str, *, peer: str, **facts: object) -> None:
    """Have it counted and logged that there is no room for something.

    Args:
        reason: What there is too much of: one of `metrics.REFUSAL_REASONS`.
        peer: Who is refused.
        **facts: What else the log is to say.
    """
    metrics.refused_total.labels(reason).inc()
    # A client that is refused comes again, as often as it likes.
    _seldom.tell("busy", reason, peer=peer, **facts)
