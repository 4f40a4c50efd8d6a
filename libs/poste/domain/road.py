"""Which road a call takes: decided by what is proved about it, never by an error's text.

The table in docs/design.md, "Which road a call takes", is this module; its tests go row by row.
"""

from __future__ import annotations

import enum

from poste.domain.codes import ENDS_UNTOLD, Code


class CallEvidence(enum.Enum):
    """What is known of a call that was tried on the direct road."""

    #: Never issued on any channel (no ready replica, refused, name unknown), or the replica proves it did not run it.
    NOT_RUN = enum.auto()
    #: Sent, and no answer: it may have run.
    MAY_HAVE_RUN = enum.auto()
    #: The service answered.
    ANSWERED = enum.auto()


class Verdict(enum.Enum):
    """What becomes of the call."""

    ANSWER = enum.auto()
    QUEUE = enum.auto()
    TRY_ANOTHER_REPLICA = enum.auto()
    OUTCOME_UNKNOWN = enum.auto()


def classify(code: Code, *, not_run: bool) -> CallEvidence:
    """Judge a call that was issued, by its status and by whether the replica says that it did not run it.

    UNAVAILABLE is a refused connection as well as a kill in the middle of the handler, and DEADLINE_EXCEEDED is
    silence: neither proves anything. Every other status was an answer of the service.
    """
    if not_run:
        return CallEvidence.NOT_RUN
    if code in ENDS_UNTOLD:
        return CallEvidence.MAY_HAVE_RUN
    return CallEvidence.ANSWERED


def decide(evidence: CallEvidence, *, repeatable: bool, replicas_left: bool) -> Verdict:
    """Choose what becomes of a call.

    Args:
        evidence: What is known of the last try.
        repeatable: The method may be run again although it may have run.
        replicas_left: Another replica is ready, and it may be tried there: once, if it may have run.
    """
    match evidence:
        case CallEvidence.ANSWERED:
            return Verdict.ANSWER
        case CallEvidence.NOT_RUN:
            return Verdict.TRY_ANOTHER_REPLICA if replicas_left else Verdict.QUEUE
        case CallEvidence.MAY_HAVE_RUN if repeatable:
            return Verdict.TRY_ANOTHER_REPLICA if replicas_left else Verdict.QUEUE
        case CallEvidence.MAY_HAVE_RUN:
            return Verdict.OUTCOME_UNKNOWN
