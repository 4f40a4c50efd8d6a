"""The problem `gateway-busy`: a client asks for more than there is room for."""

from __future__ import annotations

from poste_gateway.http.problem_types import GATEWAY_BUSY
from poste_gateway.http.problems import RETRY_AFTER, Problem
from poste_gateway.limits.refusals import refuse


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
