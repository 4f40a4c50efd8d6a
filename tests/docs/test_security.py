"""SECURITY.md is true: what is said to stop somebody has its tests, and what nothing stops is said to be so."""

from __future__ import annotations

import re

from support.documents import ROOT, Document

SECURITY = Document("SECURITY.md")
NOTHING = "nothing yet"
_TEST = re.compile(r"\[`(test_\w+)`\]\((tests/[\w/]+\.py)\)")


def test_each_door_names_its_tests() -> None:
    """Who judges whether Poste is safe for a use would trust in what was never tried, or not any more."""
    rows = SECURITY.table("door")

    assert len(rows) > 30
    for door, who, stops, held_by in rows:
        assert all((who, stops)), door
        tests = _TEST.findall(held_by)
        assert held_by == (", ".join(f"[`{name}`]({path})" for name, path in tests) or NOTHING), door
        for name, path in tests:
            assert re.search(rf"^(?:async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), (door, name)


def test_who_finds_a_hole_is_told_where_to_say_so() -> None:
    """It would be told to all the world in an issue first."""
    assert "*Report a vulnerability*" in SECURITY.text
    assert "(SECURITY.md)" in Document("README.md").text
