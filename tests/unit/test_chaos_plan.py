"""The plan of `nox -s chaos`: a run proves nothing about what it never breaks."""

from __future__ import annotations

import pytest
from chaos import plan
from chaos.parts import COURIERS, GATEWAYS, MOMS, REDIS, REPLICAS

CLASSES = {REDIS: "redis", **dict.fromkeys(REPLICAS, "service"), **dict.fromkeys(MOMS, "mom")}
CLASSES |= {**dict.fromkeys(GATEWAYS, "gateway"), **dict.fromkeys(COURIERS, "courier")}
LINKS = {name: kind for kind, names in plan._LINKS.items() for name in names}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_quarter_of_an_hour_breaks_everything_in_every_way(seed: int) -> None:
    """Each kind of fault on each class of part and of link, and parts in pairs."""
    faults = plan.make(seed, 900)
    done = {(fault.kind, (CLASSES | LINKS)[target]) for fault in faults for target in fault.targets}
    in_pairs = [fault for fault in faults if len(fault.targets) == 2]
    pairs = {frozenset(CLASSES[target] for target in fault.targets) for fault in in_pairs}
    parts = ("service", "courier", "mom", "gateway", "redis")

    assert len(faults) >= 200
    assert done >= {(kind, part) for kind in ("kill", "term", "stop", "isolate") for part in parts}
    assert done >= {(mode, link) for mode in plan._NETWORK for link in plan._LINKS}
    assert done >= {(kind, "redis") for kind in ("kill-after-202", "disk-full", "maxmemory", "clock")}
    assert done >= {("clock", "gateway"), ("clock", "mom")}
    assert len(pairs) >= 6
    assert {fault.kind for fault in in_pairs} == {"kill", "term", "stop"}
    assert all(fault.at + fault.seconds <= 900 for fault in faults)


def test_a_seed_breaks_the_same_things_again() -> None:
    """What a run found could not be found again."""
    assert plan.make(5, 300) == plan.make(5, 300) != plan.make(6, 300)


def test_the_short_form_breaks_each_kind_once() -> None:
    """CI would pass a change that is broken by what it never does."""
    kinds = {fault.kind for fault in plan.make(7, 120)}

    assert kinds >= {"kill", "term", "stop", "isolate", "kill-after-202", "disk-full", "maxmemory", *plan._NETWORK}
