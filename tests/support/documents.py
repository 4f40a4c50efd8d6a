"""The project's documents, read as a test reads them: sections, tables, blocks of code, and links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_HEADING = re.compile(r"(#+) (.+)")
_FENCE = re.compile(r"( *)```(\w*)")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A block of code."""

    document: str
    line: int
    section: str
    language: str
    text: str


class Document:
    """One document, by its path below the project's root."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (ROOT / name).read_text()
        self.lines = self.text.splitlines()

    @property
    def headings(self) -> list[str]:
        """Every heading's text, blocks of code left out."""
        return [found[2] for _, line in self.prose() if (found := _HEADING.fullmatch(line))]

    def prose(self) -> list[tuple[int, str]]:
        """Every line that is in no block of code, with its number."""
        found, inside = [], False
        for number, line in enumerate(self.lines, 1):
            if _FENCE.match(line):
                inside = not inside
            elif not inside:
                found.append((number, line))
        return found

    def blocks(self) -> list[Block]:
        """Every block of code, in order."""
        found: list[Block] = []
        section, start, language, indent = "", 0, "", 0
        for number, line in enumerate(self.lines, 1):
            fence = _FENCE.match(line)
            if fence and not start:
                start, language, indent = number, fence[2], len(fence[1])
            elif fence:
                text = "\n".join(one[indent:] for one in self.lines[start : number - 1])
                found.append(Block(self.name, start, section, language, text + "\n"))
                start = 0
            elif not start and (heading := _HEADING.fullmatch(line)):
                section = heading[2]
        return found

    def table(self, first: str) -> list[list[str]]:
        """The rows of the table whose first column has this head; of several such tables, all of them."""
        rows: list[list[str]] = []
        inside = False
        for _, line in self.prose():
            if not line.startswith("|"):
                inside = False
                continue
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if cells[0] == first:
                inside = True
            elif inside and not set(cells[0]) <= set("-: "):
                rows.append(cells)
        assert rows, f"{self.name} has no table of {first!r}"
        return rows

    def codes(self, first: str) -> list[str]:
        """What is marked as code in the first column of such a table, in order."""
        return [code for row in self.table(first) for code in _CODE.findall(row[0])]


def anchor(heading: str) -> str:
    """Spell a heading as links to it do, as GitHub has it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
