"""Every rule of the queued road is there for something: without it the model comes to what must never be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.configurations import LOSSES, MUTANTS, RESERVES, SHORT, Loss, Mutant
from model.exploring import explore
from model.rules import Rule


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: "+".join(rule.name.lower() for rule in mutant.off))
def test_each_rule_prevents_something(mutant: Mutant) -> None:
    """A model that can't fail proves nothing."""
    assert mutant.what in explore(mutant.rules, first_only=True).ways


def test_every_rule_is_switched_off_once() -> None:
    """A rule that no configuration leaves out may be one that nothing needs."""
    off = {rule for mutant in MUTANTS for rule in mutant.off} | {reserve.rule for reserve in RESERVES}
    assert off == set(Rule)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_replica_that_takes_over_costs_what_is_said_of_it(loss: Loss) -> None:
    """README.md says which promises end there: one more that broke would go unnoticed."""
    found = explore(loss.rules)

    assert found.complete
    assert found.ways.keys() == loss.what


@pytest.mark.parametrize(
    "name",
    [
        "one repeatable task: kill, stop",
        "two that must not run twice: kill",
        "an old master lives on, and the replica is waited for: one that must not run twice",
    ],
)
def test_the_rules_hold_together(name: str) -> None:
    """With every rule on nothing is lost, nothing runs twice, and all ends: `nox -s model` explores the rest."""
    found = explore(next(one.rules for one in SHORT if one.name == name))
    assert found.complete
    assert found.ways == {}


def test_the_model_runs_where_nothing_is_installed() -> None:
    """`nox -s model` installs nothing: what the model imports must need Python alone, the domain's constants too."""
    root = Path(__file__).parents[2]
    rooms = os.pathsep.join(str(root / room) for room in ("tests", "libs"))

    # -S: without what is installed beside Python.
    bare = [sys.executable, "-S", "-m", "model", "--help"]
    ran = subprocess.run(bare, env={"PYTHONPATH": rooms}, capture_output=True, text=True, timeout=60, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")
