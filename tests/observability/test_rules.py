"""What is shipped for Prometheus: its own tool reads it, and judges the rules with the durations of a deployment."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.prometheus import FOLDER, program

from poste_gateway.http.problem_types import PROBLEM_TYPES

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", ["prometheus.yml", "swarm.yml"])
def test_prometheus_takes_the_configuration(name):
    """It would not start, or would run without a rule that it can't read."""
    done = subprocess.run(
        [program("promtool"), "check", "config", FOLDER / name], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS: 1 rule files found" in done.stdout


def test_each_alert_fires_when_it_must_and_no_sooner():
    """An alert that stays silent warns of nothing; one that fires too often is soon ignored."""
    done = subprocess.run(
        [program("promtool"), "test", "rules", HERE / "rules.test.yml"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_test_and_says_what_to_do():
    """An alert that was never seen to fire may not; one without advice does not help those whom it wakes."""
    rules = (FOLDER / "rules.yml").read_text()
    tested = set(re.findall(r'alertname="(\w+)"', (HERE / "rules.test.yml").read_text()))
    alerts = re.split(r"- alert: ", rules)[1:]

    assert {alert.split()[0] for alert in alerts} == tested
    for alert in alerts:
        assert re.findall(r"^ {10}(summary|description|runbook):", alert, re.MULTILINE) == [
            "summary",
            "description",
            "runbook",
        ]


def test_what_is_answered_with_5xx_is_an_error_in_the_rules():
    """A new kind of failure would not be counted by the alert that is for failures."""
    rules = (FOLDER / "rules.yml").read_text()
    (told,) = re.findall(r'record: service:poste_call_errors:rate\n.*\n.*outcome=~"([^"]+)"', rules)

    assert {kind.outcome for kind in PROBLEM_TYPES.values() if kind.status >= 500} == set(told.split("|"))
