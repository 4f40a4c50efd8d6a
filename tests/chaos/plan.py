"""The schedule of faults: made from a seed before the run begins, so that a seed breaks the same things again."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from chaos.parts import COURIERS, GATEWAYS, MOMS, REDIS, REPLICAS, TAKERS
from chaos.proxy import Mode

#: The mean time between two faults, in seconds.
MEAN_GAP_SECONDS: Final = 3.4
#: When the first one comes, in seconds.
_FIRST_SECONDS: Final = 2.0
#: The step in which a schedule looks for a healthy target, in seconds.
_LOOK_SECONDS: Final = 0.25
#: No fault lasts beyond so long before the end of the load, in seconds.
_TAIL_SECONDS: Final = 3.0
#: After a fault its target is left alone for so long, in seconds: what is never well is not tested.
_REST_SECONDS: Final = 4.0
#: Redis is what everything hangs on: without rest nothing would be accepted that could be lost.
_REDIS_REST_SECONDS: Final = 8.0
_NETWORK: Final = tuple(mode.value for mode in Mode if mode is not Mode.PASS)

_CLASSES: Final = {
    "service": REPLICAS, "courier": COURIERS, "mom": MOMS, "gateway": GATEWAYS, "redis": (REDIS,),
}  # fmt: skip
#: The links of each kind: all that lead from any of the first to any of the second.
_LINKS: Final = {
    "clients>gateway": tuple(f"clients>{name}" for name in GATEWAYS),
    "gateway>service": tuple(f"gateways>{name}" for name in REPLICAS),
    "gateway>mom": tuple(f"{one}>{mom}" for one in GATEWAYS for mom in MOMS),
    "service>mom": tuple(f"{one}>{mom}" for one in TAKERS for mom in MOMS),
    "service>redis": tuple(f"{one}>{REDIS}" for one in TAKERS),
    "mom>redis": tuple(f"{one}>{REDIS}" for one in MOMS),
}
#: The targets that a card of the deck may name.
_ALL: Final = {**_CLASSES, **_LINKS}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the schedule.

    Attributes:
        at: When it begins, in seconds after the load began.
        kind: kill, term, stop, isolate (all links of a part are blackholes), kill-after-202, disk-full, maxmemory,
            clock, or what a link does (`chaos.proxy.Mode`).
        targets: The parts or links that it hits, at once.
        seconds: How long it lasts; for a kill, how long until the part is started again.
        figure: What else it takes: seconds of delay, seconds that a clock is off, a share of the memory in use.
        deliver: What a link held is passed on at the end, not cut.
    """

    at: float
    kind: str
    targets: tuple[str, ...]
    seconds: float
    figure: float = 0.0
    deliver: bool = False


class _Deck:
    """Deals what may happen: what no run is one without first, then all there is, again and again."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._cards: list[tuple[str, str]] = list(_once())
        rng.shuffle(self._cards)

    def deal(self, well: Callable[[str], list[str]]) -> tuple[str, tuple[str, ...]] | None:
        """Return a kind and its targets, of those that are healthy; None if there is none to hit now."""
        for place, (kind, what) in enumerate(self._cards):
            targets = _targets(self._rng, kind, what, well)
            if targets:
                del self._cards[place]
                if not self._cards:
                    self._cards = [*_once(), *_often()]
                    self._rng.shuffle(self._cards)
                return kind, targets
        return None


def _targets(rng: random.Random, kind: str, what: str, well: Callable[[str], list[str]]) -> tuple[str, ...]:
    chosen: list[str] = []
    for one in what.split("+") if kind == "pair" else (what,):
        free = [name for name in well(one) if name not in chosen]
        if not free:
            return ()
        # Slow calls, and calls that must not run twice, are the ledger's.
        free += [name for name in free if name.startswith("ledger")]
        chosen.append(rng.choice(free))
    return tuple(chosen)


def _once() -> Iterator[tuple[str, str]]:
    """What a run is not one without, however short: each kind of fault, each class of part, each class of link."""
    for kind in ("kill", "stop"):
        for target in _CLASSES:
            yield kind, target
    yield from (("term", "service"), ("term", "gateway"), ("term", "mom"))
    yield from (("isolate", "service"), ("isolate", "service"), ("isolate", "mom"), ("isolate", "courier"))
    yield from (("pair", "service+mom"), ("pair", "mom+redis"), ("pair", "service+gateway"))
    yield from zip(
        _NETWORK, ("gateway>service", "service>mom", "service>redis", "mom>redis", "gateway>mom"), strict=True
    )
    for kind in ("kill-after-202", "disk-full", "maxmemory", "clock"):
        yield kind, "redis"
    yield "clock", "gateway"


def _often() -> Iterator[tuple[str, str]]:
    """What else there is, and what matters most once more: each kind of link in each way."""
    for kind in ("kill", "term", "stop"):
        yield from ((kind, "service"), (kind, "service"), (kind, "service"), (kind, "mom"), (kind, "gateway"))
        yield kind, "courier"
    for pair in ("service+redis", "gateway+mom", "service+service", "mom+mom", "gateway+redis"):
        yield "pair", pair
    yield from (("term", "redis"), ("kill-after-202", "redis"), ("clock", "mom"))
    yield from (("isolate", "service"), ("isolate", "service"), ("isolate", "gateway"), ("isolate", "redis"))
    yield "isolate", "courier"
    for mode in _NETWORK:
        for link in _LINKS:
            yield mode, link


def make(seed: int, seconds: float) -> list[Fault]:
    """Make the schedule of a run whose load lasts so long."""
    rng = random.Random(seed)
    deck = _Deck(rng)
    busy_until: dict[str, float] = {}
    faults: list[Fault] = []
    at, end = _FIRST_SECONDS, seconds - _TAIL_SECONDS
    while at < end:
        dealt = deck.deal(functools.partial(_well, busy_until, at))
        if dealt is None:
            at += _LOOK_SECONDS
            continue
        fault = _make(rng, at, *dealt, longest=end - at)
        faults.append(fault)
        for target in fault.targets:
            busy_until[target] = at + fault.seconds + (_REDIS_REST_SECONDS if target == REDIS else _REST_SECONDS)
        at += rng.uniform(0.4, 1.6) * MEAN_GAP_SECONDS
    return faults


def _well(busy_until: dict[str, float], at: float, what: str) -> list[str]:
    return [name for name in _ALL[what] if busy_until.get(name, 0.0) <= at]


def _make(rng: random.Random, at: float, kind: str, targets: tuple[str, ...], *, longest: float) -> Fault:
    if kind == "pair":
        kind = rng.choice(("kill", "kill", "term", "stop"))
    redis = REDIS in targets
    more: dict[str, Any] = {}
    if kind == "isolate":
        # Half of them longer than a lease: what the part held is another's when it comes back.
        seconds, more = rng.uniform(1, 4 if redis else 13), {"deliver": rng.random() < 0.7}
    elif kind == "stop":
        # Half of them short, a few as long as can be.
        seconds = 1 + 19 * rng.random() ** (4 if redis else 2)
    elif kind in ("kill", "term", "kill-after-202"):
        seconds = rng.uniform(0, 2 if redis else 5)
    elif kind == "disk-full":
        seconds = rng.uniform(0.5, 4)
    elif kind == "maxmemory":
        seconds, more = rng.uniform(1, 8), {"figure": rng.uniform(0.6, 1.05)}
    elif kind == "clock":
        # Behind by far too, but not ahead: how long a doubtful acceptance stays undecided grows by that.
        off = rng.uniform(-20, 20) if redis else rng.choice((rng.uniform(-25, 25), 45, rng.uniform(-3000, -40)))
        seconds, more = rng.uniform(2, 15), {"figure": round(off, 1)}
    else:
        seconds, more = 0.5 + 9.5 * rng.random() ** 2, {"deliver": rng.random() < 0.5}
        if kind == Mode.DELAY.value:
            more["figure"] = round(rng.uniform(0.05, 2), 2)
    return Fault(round(at, 2), kind, targets, round(min(seconds, longest), 2), **more)
