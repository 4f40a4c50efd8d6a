"""Explores every configuration, and prints of each what was found: `nox -s model`, `nox -s model -- --long`.

Ends with 1 if something that must hold does not, or a mutant is not caught.
"""

from __future__ import annotations

import argparse
import sys

from model.configurations import LONG, LOSSES, MUTANTS, RESERVES, SHORT, Configuration
from model.exploring import Found, explore


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _figures(found: Found) -> str:
    return f"{found.states:,} states, {found.seconds:.1f} s{'' if found.complete else ', NOT COMPLETE'}"


def _must_hold(configuration: Configuration) -> bool:
    found = explore(configuration.rules)
    holds = found.complete and not found.ways
    _tell(f"{'holds' if holds else 'FAILS'}  {configuration.name} | {_figures(found)}")
    for what, way in found.ways.items():
        _tell("\n         ".join([f"       {what}:", *way]))
    return holds


def _mutants(*, shown: bool) -> bool:
    fine = True
    for mutant in MUTANTS:
        found = explore(mutant.rules, first_only=True)
        caught = mutant.what in found.ways
        fine = fine and caught
        names = ", ".join(rule.name for rule in mutant.off)
        _tell(f"{'caught' if caught else 'MISSED'} without {names} | {mutant.what} | {_figures(found)}")
        if shown:
            _tell("\n         ".join(["", *found.ways.get(mutant.what, [])]))
    return fine


def _reserves() -> bool:
    fine = True
    for reserve in RESERVES:
        found = [explore(rules) for rules in reserve.worlds]
        holds, states = all(one.complete and not one.ways for one in found), sum(one.states for one in found)
        fine = fine and holds
        _tell(f"{'holds' if holds else 'FAILS'}  without {reserve.rule.name} | {states:,} states")
    return fine


def _losses(*, shown: bool) -> bool:
    fine = True
    for loss in LOSSES:
        found = explore(loss.rules)
        exact = found.complete and found.ways.keys() == loss.what
        fine = fine and exact
        _tell(f"{'loses' if exact else 'NOT SO'}  {loss.name} | {'; '.join(sorted(found.ways))} | {_figures(found)}")
        for what, way in found.ways.items() if shown or not exact else ():
            _tell("\n         ".join([f"       {what}:", *way]))
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(prog="model", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the larger configurations too: some minutes, and memory")
    parser.add_argument(
        "--ways", action="store_true", help="show the shortest way to each loss, and to what each mutant does"
    )
    asked = parser.parse_args()
    results = [_must_hold(one) for one in [*SHORT, *(LONG if asked.long else [])]]
    results += [_losses(shown=asked.ways), _mutants(shown=asked.ways), _reserves()]
    _tell("all as it must be" if all(results) else "NOT as it must be")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
