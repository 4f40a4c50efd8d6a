"""What there is no room for: each refusal is counted, written to the log with whom it met, and told to its client."""

from __future__ import annotations

from typing import Final

from poste.runtime import logs, metrics
from poste_gateway.kinds import GATEWAY_BUSY
from poste_gateway.problems import RETRY_AFTER, Problem

_log: Final = logs.get("refusing")


def busy(reason: str, detail: str, *, peer: str, **facts: object) -> Problem:
    """Return what a request is refused with, and have it counted and logged.

    Args:
        reason: What there is too much of: one of `metrics.REFUSAL_REASONS`.
        detail: The same in words, for the client.
        peer: Who is refused.
        **facts: What else the log is to say.
    """
    metrics.refused_total.labels(reason).inc()
    _log.warning("busy", reason=reason, peer=peer, **facts)
    return Problem(GATEWAY_BUSY, detail, headers=RETRY_AFTER)
