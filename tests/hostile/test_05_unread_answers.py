"""Number 5: a gateway that sends calls over a link and reads no answer."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from poste.domain.codes import Code
from poste.service.admission_control import AdmissionControl
from poste.service.link_answers import LinkAnswers
from poste.service.outcome import Metadatum, Outcome, not_here

_MANY = 2000


@pytest.mark.parametrize(
    "outcome",
    [
        lambda n: not_here(f"/testing.v1.LedgerService/Nope{n}"),
        lambda n: Outcome(Code.NOT_FOUND, "à" * 2000 + str(n)),
        lambda n: Outcome(Code.NOT_FOUND, "字" * 2000 + str(n)),
        lambda n: Outcome(Code.NOT_FOUND, trailing_metadata=(Metadatum(f"key-{n}", "v" * 1000 + str(n)),)),
        lambda n: Outcome(Code.OK, response=b"", initial_metadata=tuple(Metadatum(f"k{n}-{i}", "") for i in range(20))),
        lambda n: Outcome(Code.OK, response=b"x" * 300 + str(n).encode()),
    ],
    ids=["refusals", "texts", "wide texts", "trailers", "metadata", "responses"],
)
async def test_an_answer_that_waits_counts_as_much_as_it_takes(outcome: Callable[[int], Outcome]) -> None:
    """Refusals counted 32 bytes each, whatever they took: a service held two million of them, in 750 MB."""
    answers = LinkAnswers(AdmissionControl(max_calls=10))
    tracemalloc.start()
    try:
        for number in range(_MANY):
            answers.add(number, outcome(number))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert answers.waiting_bytes >= taken
    while answers.any_wait():
        answers.next_frame()
    assert answers.waiting_bytes == 0
