"""Headers of which a request may have one only."""

from __future__ import annotations

from multidict import CIMultiDictProxy


def read(headers: CIMultiDictProxy[str], name: str, errors: list[dict[str, str]]) -> str | None:
    """Return a header's value; None if it is not there, or more than once, which is added to `errors`."""
    # Few requests have one, and each call is asked for several.
    if name not in headers:
        return None
    value, *others = headers.getall(name)
    if others:
        errors.append({"field": name, "reason": "must be there once only"})
        return None
    return value
