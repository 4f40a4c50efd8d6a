"""What there is no room for: each refusal is counted, written to the log with whom it met, and told to its client."""

from __future__ import annotations

from typing import Final

from poste.runtime import logs, metrics
from poste_gateway.kinds import GATEWAY_BUSY
from poste_gateway.problems import RETRY_AFTER, Problem
from poste_gateway.seldom import Seldom

_seldom: Final = Seldom(logs.get("refusing"), "warning")


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


def busy(reason: str, detail: str, *, peer: str, **facts: object) -> Problem:
    """Return what a request is refused with, and have it counted and logged.

    Args:
        reason: What there is too much of: one of `metrics.REFUSAL_REASONS`.
        detail: The same in words, for the client.
        peer: Who is refused.
        **facts: What else the log is to say.
    """
    refuse(reason, peer=peer, **facts)
    return Problem(GATEWAY_BUSY, detail, headers=RETRY_AFTER)
