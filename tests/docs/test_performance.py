"""docs/performance.md has the published figures, all of them, and no others."""

from __future__ import annotations

import json

from support.documents import ROOT, Document

PERFORMANCE = Document("docs/performance.md")


def test_every_published_figure() -> None:
    """The page would boast of figures that were not measured, or leave out those that are not met."""
    rows = json.loads((ROOT / "tests/bench/published.json").read_text())["rows"]

    def spelt(row: dict, text: str) -> str:
        return text if row["unit"] == "ratio" else f"{text} {row['unit']}"

    published = {
        f"`{name}`": [
            row["what"],
            spelt(row, row["target"]) if row["target"] else "none",
            spelt(row, f"{row['figure']:.3g}") + (", not met" if row["verdict"] == "NOT MET" else ""),
        ]
        for name, row in rows.items()
    }

    assert published == {row[0]: row[1:] for row in PERFORMANCE.table("row")}
    prose = " ".join(PERFORMANCE.text.split())
    for row in rows.values():
        assert " ".join(row.get("limit", "").split()) in prose
