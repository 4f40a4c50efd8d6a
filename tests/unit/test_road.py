"""The table "Which road", row by row."""

from __future__ import annotations

import pytest

from poste.domain.codes import Code
from poste.domain.road import CallEvidence, Verdict, classify, decide

SENT_AND_LOST = [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED]


@pytest.mark.parametrize("code", list(Code))
def test_only_silence_leaves_open_whether_it_ran(code: Code) -> None:
    """RESOURCE_EXHAUSTED, for one, may come after the handler ran: it is an answer, and proves nothing else."""
    expected = CallEvidence.MAY_HAVE_RUN if code in SENT_AND_LOST else CallEvidence.ANSWERED

    assert classify(code, not_run=False) is expected


@pytest.mark.parametrize("code", list(Code))
def test_a_replica_s_word_that_it_did_not_run_it_is_proof(code: Code) -> None:
    """A full or draining replica must not cost a call that may not run twice."""
    assert classify(code, not_run=True) is CallEvidence.NOT_RUN


@pytest.mark.parametrize(
    ("evidence", "repeatable", "replicas_left", "verdict"),
    [
        (CallEvidence.NOT_RUN, True, False, Verdict.QUEUE),
        (CallEvidence.NOT_RUN, False, False, Verdict.QUEUE),
        (CallEvidence.NOT_RUN, True, True, Verdict.TRY_ANOTHER_REPLICA),
        (CallEvidence.NOT_RUN, False, True, Verdict.TRY_ANOTHER_REPLICA),
        (CallEvidence.MAY_HAVE_RUN, True, True, Verdict.TRY_ANOTHER_REPLICA),
        (CallEvidence.MAY_HAVE_RUN, True, False, Verdict.QUEUE),
        (CallEvidence.MAY_HAVE_RUN, False, True, Verdict.OUTCOME_UNKNOWN),
        (CallEvidence.MAY_HAVE_RUN, False, False, Verdict.OUTCOME_UNKNOWN),
        (CallEvidence.ANSWERED, True, True, Verdict.ANSWER),
        (CallEvidence.ANSWERED, False, False, Verdict.ANSWER),
    ],
)
def test_the_table(evidence: CallEvidence, *, repeatable: bool, replicas_left: bool, verdict: Verdict) -> None:
    """What may have run and must not run twice is never sent again, on any road."""
    assert decide(evidence, repeatable=repeatable, replicas_left=replicas_left) is verdict
