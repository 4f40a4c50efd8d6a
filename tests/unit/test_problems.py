"""The problems: complete, consistent, and with a page each."""

from __future__ import annotations

import pytest

from poste.domain.codes import Code
from poste_gateway.http import problem_types
from poste_gateway.http.problem_types import PROBLEM_TYPES, ProblemType
from poste_gateway.http.problems import Problem, page


def test_every_kind_has_its_page_and_its_place_in_the_table():
    """Else a type leads nowhere."""
    named = problem_types.OF_CODE.values()
    made = [value for value in vars(problem_types).values() if isinstance(value, ProblemType)] + list(named)
    assert {kind.name for kind in made} == PROBLEM_TYPES.keys()
    assert len({kind.name for kind in made}) == len(made)
    for name in PROBLEM_TYPES:
        assert page(name)
    assert page("nothing") is None


def test_every_code_but_ok_has_a_kind():
    """Else a service's status is a 500 of the gateway's own."""
    assert set(Code) - {Code.OK} == problem_types.OF_CODE.keys()


@pytest.mark.parametrize("kind", PROBLEM_TYPES.values())
def test_a_problem_object_is_whole(kind):
    """Else a client can't rely on its members."""
    value = Problem(kind, "this time", errors=[]).to_value("/v1/x")

    assert value == {
        "type": f"/problems/{kind.name}",
        "title": kind.title,
        "status": kind.status,
        "detail": "this time",
        "instance": "/v1/x",
        "code": kind.code.name,
    }
    assert 400 <= kind.status < 600
