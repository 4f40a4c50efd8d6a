"""docs/settings.md is what the code says."""

from __future__ import annotations

from support.documents import Document
from support.settings_page import PAGE, page

from poste.runtime.settings import GatewaySettings, MomSettings, WorkerSettings


def test_it_is_made_from_the_code() -> None:
    """A setting that is new, gone or changed would be on it as it was: `nox -s docs` writes the page anew."""
    assert PAGE.read_text() == page()


def test_every_setting_is_on_it_and_explained() -> None:
    """One would have to read the code to learn of it, or what it means."""
    rows = {row[0].strip("`"): row[2] for row in Document("docs/settings.md").table("variable")}

    for kind in (GatewaySettings, MomSettings, WorkerSettings):
        for name in kind.model_fields:
            assert rows[f"POSTE_{name.upper()}"], name
