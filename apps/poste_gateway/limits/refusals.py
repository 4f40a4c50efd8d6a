"""Counts and logs what is refused because a limit is reached."""

from __future__ import annotations

from typing import Final

from poste.runtime import logs, metrics
from poste.runtime.log_throttle import LogThrottle

_seldom: Final = LogThrottle(logs.get("refusals"), "warning")


def refuse(reason: str, *, peer: str, **facts: object) -> None:
    """Count and log one refusal.

    Args:
        reason: The limit: one of `metrics.REFUSAL_REASONS`.
        peer: The client.
        **facts: Further fields of the log line.
    """
    metrics.refused_total.labels(reason).inc()
    # Throttled: a refused client may try again as often as it likes.
    _seldom.write("busy", reason, peer=peer, **facts)
