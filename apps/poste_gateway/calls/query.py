"""The query of a call: names and values, as forms and URLs write them."""

from __future__ import annotations

from typing import Final

from poste.rpc.http_rules.templates import BadPathError, decoded
from poste_gateway.http.problem_types import INVALID_REQUEST
from poste_gateway.http.problems import Problem

#: How many parameters a query may have.
_MOST: Final = 1000


def read(raw: str) -> list[tuple[str, str]]:
    """Read a query, as it came.

    Raises:
        Problem: It is broken, or too long.
    """
    if not raw:
        return []
    pairs = []
    parts = raw.split("&")
    if len(parts) > _MOST:
        raise Problem(INVALID_REQUEST, f"A query may have {_MOST} parameters.")
    for part in filter(None, parts):
        name, _, value = part.replace("+", " ").partition("=")
        try:
            pairs.append((decoded(name), decoded(value)))
        except BadPathError as error:
            reason = str(error)
            errors = [{"field": name[:100].encode("utf-8", "replace").decode(), "reason": reason}]
            raise Problem(INVALID_REQUEST, f"A query parameter {reason}.", errors=errors) from error
    return pairs
