"""What holds for every document: links lead somewhere, lines can be read."""

from __future__ import annotations

import re

import pytest
from support.documents import ROOT, Document, anchor

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/*.md"))),
]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    """A reader would be sent to a page, or a place on it, that is not there."""
    document = Document(name)
    for number, line in document.prose():
        for link in _LINK.findall(line):
            if "://" in link:
                continue
            path, _, place = link.partition("#")
            target = (ROOT / name).parent / path if path else ROOT / name
            assert target.exists(), f"{name}:{number}: {link}"
            if place:
                headings = Document(str(target.resolve().relative_to(ROOT))).headings
                assert place in map(anchor, headings), f"{name}:{number}: {link}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_lines_are_short(name: str) -> None:
    """It could not be read in a terminal or a review. A table's row is one line however long."""
    long = [number for number, line in Document(name).prose() if len(line) > 120 and not line.startswith("|")]

    assert not long
