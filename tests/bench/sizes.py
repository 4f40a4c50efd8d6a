"""How large a run is: as it is published, or small enough for CI."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a run is.

    Attributes:
        rounds: How often each row is measured.
        seconds: How long one load runs.
        drained: Calls that one drain begins with.
        waits: Calls whose results are waited for, per round, by the peer.
        kills: How often the service is killed, per round.
        backlog: What the backlog grows to.
        enqueued: Calls by which the cost at one backlog is taken.
        services: How many services the catalogue of the gateway has that is started.
    """

    rounds: int = 5
    seconds: float = 3.0
    drained: int = 20_000
    waits: int = 300
    kills: int = 4
    backlog: int = 1_000_000
    enqueued: int = 20_480
    services: int = 1_000


FULL = Sizes()
QUICK = Sizes(rounds=2, seconds=1.5, drained=4_000, waits=100, kills=2, backlog=200_000, enqueued=5_120, services=200)
