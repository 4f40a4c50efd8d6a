"""The verbs that a path takes: the `Allow` header, and the 405 for any other verb."""

from __future__ import annotations

from collections.abc import Iterable

from poste_gateway.http.problem_types import WRONG_VERB
from poste_gateway.http.problems import Problem


def allow(verbs: Iterable[str]) -> str:
    """Spell the header `Allow` of a path that takes these verbs."""
    names = list(verbs)
    if "GET" in names:
        names.append("HEAD")
    # A service may take either itself.
    return ", ".join(dict.fromkeys([*names, "OPTIONS"]))


def wrong_verb(verbs: Iterable[str]) -> Problem:
    """Return the problem of a verb that a path does not take."""
    allowed = allow(verbs)
    return Problem(WRONG_VERB, f"The path takes {allowed}.", headers={"Allow": allowed})
