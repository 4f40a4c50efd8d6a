"""What becomes of the server that holds a queue: it is away, or dies and comes back with less than it had."""

from __future__ import annotations

from collections.abc import Iterator

from model.network import Network
from model.rules import Rule
from model.store import HOLDS
from model.world import Step, World


class Servers(Network):
    """Redis, and its replica."""

    def happens(self, world: World) -> Iterator[Step]:
        if self.may(world, "outage"):
            holders = [me for me, lease in enumerate(world.store.leases) if lease == HOLDS]
            away = world if self.on(Rule.CLOCK) else self.lapse(world, *holders).world
            yield Step("Redis was away for longer than a lease", self.spend(away, "outage"), fault=True)
        lags, place, dies = self.rules.weak_disk or self.rules.replica, "on disk", "comes back with what was on disk"
        if self.rules.replica:
            place, dies = "at the replica", "its replica takes over"
        if lags and world.disk is None and self.may(world, "lag"):
            after = self.spend(world._replace(disk=world.store), "lag")
            yield Step(f"what is written from here on is not {place} yet", after, fault=True)
        if world.disk is not None:
            yield Step(f"all is {place}", world._replace(disk=None))
            back = world.disk._replace(run=world.store.run + 1)
            yield Step(f"Redis dies and {dies}", world._replace(store=back, disk=None), True)
