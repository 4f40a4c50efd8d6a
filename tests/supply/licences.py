"""Whether each package in the image, but for Debian's, has a licence that the image may carry."""

from __future__ import annotations

from typing import Any

from license_expression import ExpressionError, LicenseSymbol, get_spdx_licensing

#: What may be in the image, by SPDX: permissive ones, and MPL-2.0, which asks for the source of its own files alone.
ALLOWED = frozenset(
    {
        *("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Python-2.0"),
        "Unlicense",
    }
)
#: Packages whose metadata have no SPDX name, and what their LICENSE says.
STATED = {"protobuf": "BSD-3-Clause"}
#: What classifiers of before SPDX call licences.
_CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
_SPDX = get_spdx_licensing()


def expression(component: dict[str, Any]) -> str | None:
    """Return a component's licences as one SPDX expression; None where it names none.

    Several that stand beside each other all count, for nothing says that one may choose.
    """
    stated = [_one(entry) for entry in component.get("licenses", ())] or [STATED.get(component["name"], "")]
    return " AND ".join(f"({one})" for one in dict.fromkeys(stated)) if all(stated) else None


def _one(entry: dict[str, Any]) -> str:
    if "expression" in entry:
        return str(entry["expression"])
    named: dict[str, str] = entry["license"]
    return named.get("id") or _CLASSIFIERS.get(named["name"], "")


def allowed(stated: str) -> bool:
    """Return whether an SPDX expression can be met by allowed licences alone; of an OR, one side is enough."""
    try:
        parsed = _SPDX.parse(stated, validate=True)
    except ExpressionError:
        return False
    return _met(parsed)


def _met(parsed: Any) -> bool:
    if isinstance(parsed, LicenseSymbol):
        return parsed.key in ALLOWED
    sides = [_met(side) for side in parsed.args]
    return any(sides) if isinstance(parsed, _SPDX.OR) else all(sides)


def judged(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return those components of a CycloneDX document that are packages of Python, or of the pages."""
    return [one for one in document["components"] if one.get("purl", "").startswith(("pkg:pypi/", "pkg:npm/"))]


def refused(document: dict[str, Any]) -> dict[str, str]:
    """Return the packages that may not be in the image, with what they state."""
    stated = {one["name"]: expression(one) for one in judged(document)}
    return {name: what or "nothing" for name, what in stated.items() if what is None or not allowed(what)}
