"""The problem `gateway-busy`: a limit of the gateway is reached."""

from __future__ import annotations

from poste_gateway.http.problem_types import GATEWAY_BUSY
from poste_gateway.http.problems import RETRY_AFTER, Problem
from poste_gateway.limits.refusals import refuse


def busy(reason: str, detail: str, *, peer: str, **facts: object) -> Problem:
    """Count and log a refusal, and return its problem.

    Args:
        reason: What there is too much of: one of `metrics.REFUSAL_REASONS`.
        detail: The same in words, for the client.
        peer: Who is refused.
        **facts: What else the log is to say.
    """
    refuse(reason, peer=peer, **facts)
    return Problem(GATEWAY_BUSY, detail, headers=RETRY_AFTER)
