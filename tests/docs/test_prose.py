"""What holds for every document: links lead somewhere, lines can be read, and what is named is there."""

from __future__ import annotations

import re

import pytest
from support.documents import ROOT, Document, anchor

from poste.runtime.settings import GatewaySettings, MomSettings, WorkerSettings
from poste_cli.__main__ import _VERBS

DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/*.md"))),
]
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SETTINGS = {
    f"POSTE_{name.upper()}" for kind in (GatewaySettings, MomSettings, WorkerSettings) for name in kind.model_fields
}
#: What the command and the health checks read.
_OTHERS = {"POSTE_URL", "POSTE_DATA", "POSTE_HEALTH"}


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


@pytest.mark.parametrize("name", DOCUMENTS)
def test_settings_are_those_that_there_are(name: str) -> None:
    """Who sets what the page names would change nothing."""
    # One that ends in `_` stands for several, and `…` for the rest of their names.
    named = set(re.findall(r"POSTE_[A-Z_]*[A-Z]\b(?!_)", Document(name).text))

    assert named <= _SETTINGS | _OTHERS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_are_those_that_there_are(name: str) -> None:
    """Who types what the page names would read that there is no such thing."""
    text = Document(name).text
    noxfile = (ROOT / "noxfile.py").read_text()

    assert set(re.findall(r"(?:`|\$ )poste ([a-z]+)", text)) <= set(_VERBS)
    for session in re.findall(r"nox -s (\w+)", text):
        assert f"\ndef {session}(session" in noxfile, session
    for playbook in re.findall(r"ansible-playbook (?:-i \S+ )?([\w.]+\.yml)", text):
        assert (ROOT / "ansible" / playbook).exists(), playbook
