"""A response that has no JSON: the client's problem and the log name the field that can't be written."""

from __future__ import annotations

from typing import Final

from poste.protojson import UnprintableError
from poste.runtime import logs
from poste_gateway.http.problem_types import UNREADABLE_ANSWER
from poste_gateway.http.problems import Problem

_log: Final = logs.get("unprintable")


def unreadable(error: UnprintableError, *, service: str, method: str) -> Problem:
    """Return the problem that a method's unprintable answer is, and have it logged."""
    field, reason = error.error
    _log.warning("answer unreadable", service=service, method=method, field=field, reason=reason)
    detail = f"The service's answer can't be written as JSON: {error}."
    return Problem(UNREADABLE_ANSWER, detail, errors=[{"field": field, "reason": reason}])
