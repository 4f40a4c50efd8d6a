"""The table "Which road", row by row."""

from __future__ import annotations

import pytest

from poste.domain.codes import Code
from poste.domain.road import Proof, Verdict, decide, prove

SENT_AND_LOST = [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED]


@pytest.mark.parametrize("code", list(Code))
def test_only_silence_leaves_open_whether_it_ran(code: Code) -> None:
    """RESOURCE_EXHAUSTED, for one, may come after the handler ran: it is an answer, and proves nothing else."""
    expected = Proof.MAY_HAVE_RUN if code in SENT_AND_LOST else Proof.ANSWERED

    assert prove(code, not_run=False) is expected


@pytest.mark.parametrize("code", list(Code))
def test_a_replica_s_word_that_it_did_not_run_it_is_proof(code: Code) -> None:
    """A full or draining replica must not cost a call that may not run twice."""
    assert prove(code, not_run=True) is Proof.NOT_RUN


@pytest.mark.parametrize(
    ("proof", "repeatable", "replicas_left", "verdict"),
    [
        (Proof.NOT_RUN, True, False, Verdict.QUEUE),
        (Proof.NOT_RUN, False, False, Verdict.QUEUE),
        (Proof.NOT_RUN, True, True, Verdict.TRY_ANOTHER_REPLICA),
        (Proof.NOT_RUN, False, True, Verdict.TRY_ANOTHER_REPLICA),
        (Proof.MAY_HAVE_RUN, True, True, Verdict.TRY_ANOTHER_REPLICA),
        (Proof.MAY_HAVE_RUN, True, False, Verdict.QUEUE),
        (Proof.MAY_HAVE_RUN, False, True, Verdict.OUTCOME_UNKNOWN),
        (Proof.MAY_HAVE_RUN, False, False, Verdict.OUTCOME_UNKNOWN),
        (Proof.ANSWERED, True, True, Verdict.ANSWER),
        (Proof.ANSWERED, False, False, Verdict.ANSWER),
    ],
)
def test_the_table(proof: Proof, *, repeatable: bool, replicas_left: bool, verdict: Verdict) -> None:
    """What may have run and must not run twice is never sent again, on any road."""
    assert decide(proof, repeatable=repeatable, replicas_left=replicas_left) is verdict
