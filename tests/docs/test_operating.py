"""docs/operating.md is true of what is shipped: alerts, verbs, log lines and settings that it names."""

from __future__ import annotations

import re

from support.documents import ROOT, Document

from poste.runtime import metrics
from poste_cli.__main__ import _VERBS

OPERATING = Document("docs/operating.md")
RULES = (ROOT / "compose/prometheus/rules.yml").read_text()
SOURCES = "\n".join(
    path.read_text() for folder in ("apps", "libs") for path in (ROOT / folder).rglob("*.py") if "_pb2" not in path.name
)


def test_every_alert_has_its_section() -> None:
    """Whom an alert wakes would find nothing on it, or go by one that is not shipped."""
    shipped = {
        name: (
            re.search(r"severity: (\w+)", rest)[1],
            f"after {found[1]}" if (found := re.search(r"^ +for: (\w+)", rest, re.MULTILINE)) else "at once",
        )
        for name, rest in (alert.split("\n", 1) for alert in re.split(r"- alert: ", RULES)[1:])
    }

    told = {
        name: (found[1], found[2])
        for name, found in re.findall(r"^### (Poste\w+)\n\n(.*)$", OPERATING.text, re.MULTILINE)
        for found in [re.match(r"\*(\w+), (after \w+|at once)\.\*", found)]
    }

    assert shipped == told


def test_every_verb_of_the_command() -> None:
    """A reader would not learn of a verb, or type one that is not there."""
    assert [f"poste {name}" for name in _VERBS] == OPERATING.codes("verb")


def test_log_lines_are_those_that_are_written() -> None:
    """A search for the line that the page names would find nothing, though it happened."""
    for line in re.findall(r'`"([^"`]+)"`', OPERATING.text):
        # It may stand on two lines here.
        assert f'"{" ".join(line.split())}"' in SOURCES, line


def test_metrics_are_those_that_there_are() -> None:
    """A search for the figure that the page names would find nothing."""
    for name in set(re.findall(r"poste_[a-z_]+_(?:total|seconds|bytes)\b", OPERATING.text)):
        assert f'"{name}"' in SOURCES or f'"{name.removesuffix("_total")}"' in SOURCES, name


def test_reasons_are_those_that_there_are() -> None:
    """Whom the alert wakes would not know what the reason in the metric means."""
    assert list(metrics.REFUSAL_REASONS) == OPERATING.codes("reason")
    storm = OPERATING.text.partition("### PosteFailoverStorm")[2].partition("###")[0]
    assert set(metrics.FAILOVER_REASONS) <= set(re.findall(r"`([a-z-]+)`", storm))
