"""docs/comparison.md is true of Poste, line by line: what holds it to each is there."""

from __future__ import annotations

import re

from support.documents import ROOT, Document

COMPARISON = Document("docs/comparison.md")
PRODUCTS = ["Poste", "Celery", "Temporal", "Restate", "Dapr", "Cloud Tasks", "grpc-gateway", "Envoy"]
_LINK = re.compile(r"\[([^]]+)\]\((?:\.\./)?([^)#]+)(?:#[^)]*)?\)")


def test_each_line_is_held_by_something() -> None:
    """A promise would outlive what kept it; or one would be made that nothing ever kept."""
    rows = COMPARISON.table("")

    assert len(rows) > 20
    for feature, poste, *_, held_by in rows:
        assert held_by or poste == "no", feature
        for label, path in _LINK.findall(held_by):
            file = ROOT / path if "/" in path else ROOT / "docs" / path
            assert file.exists(), feature
            name = label.strip("`")
            if name.startswith("test_") and not name.endswith(".py"):
                assert f"def {name}(" in file.read_text(), feature


def test_each_product_has_its_sources() -> None:
    """A reader could not tell what is said of others from what is made up."""
    (head, *_) = [line for line in COMPARISON.lines if line.startswith("| |")]
    sources = COMPARISON.text.partition("## Sources")[2]

    assert [cell.strip() for cell in head.strip("|").split("|")] == ["", *PRODUCTS, "held by"]
    for product in PRODUCTS[1:]:
        assert re.search(rf"- \*\*{product}\*\*.*?https://", sources, re.DOTALL), product
