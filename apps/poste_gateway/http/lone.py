"""Headers of which a request may have one only."""

from __future__ import annotations

from multidict import CIMultiDictProxy


def read(headers: CIMultiDictProxy[str], name: str, errors: list[dict[str, str]]) -> str | None:
    """Return a header's value; None if it is not there, or more than once, which is added to `errors`."""
    values = headers.getall(name, [])
    if len(values) > 1:
        errors.append({"field": name, "reason": "must be there once only"})
    return values[0] if len(values) == 1 else None
