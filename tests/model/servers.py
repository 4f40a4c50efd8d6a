"""What becomes of the server that holds a queue: it is away, or dies and comes back with less than it had.

What is not on disk yet, or not at the replica, is the same to the model: it is gone if the server goes now. A replica
that lags is one from which the master was cut off a little earlier, so one moment of that stands for every other.
"""

from __future__ import annotations

from collections.abc import Iterator

from model.network import Network
from model.rules import Rule
from model.store import HOLDS
from model.world import Process, Step, World, put_process


class Servers(Network):
    """Redis, and its replica."""

    def happens(self, world: World) -> Iterator[Step]:
        if self.may(world, "outage"):
            holders = [me for me, lease in enumerate(world.store.leases) if lease == HOLDS]
            away = world if self.on(Rule.CLOCK) else self.lapse(world, *holders).world
            yield Step("Redis was away for longer than a lease", self.spend(away, "outage"), fault=True)
        place = "at the replica" if self.rules.replica else "on disk"
        if world.disk is None and world.old is None and self.may(world, "lag"):
            after = self.spend(world._replace(disk=world.store), "lag")
            yield Step(f"what is written from here on is not {place} yet", after, fault=True)
        if world.disk is not None:
            yield Step(f"all is {place}", world._replace(disk=None))
            yield from self._goes(world)
        if world.old is not None:
            yield from self._comes_back(world)

    def _goes(self, world: World) -> Iterator[Step]:
        assert world.disk is not None
        # The other queue is on another server.
        back = world.disk._replace(run=world.store.run + 1, there=world.store.there)
        after = world._replace(store=back, disk=None)
        comes = "its replica takes over" if self.rules.replica else "comes back with what was on disk"
        yield Step(f"Redis dies and {comes}", after, fault=True)
        if self.may(world, "lives_on"):
            processes = tuple(one._replace(old=True) for one in world.processes)
            split = self.spend(after._replace(old=world.store, processes=processes), "lives_on")
            yield Step("the replica takes over, and the old master lives on", split, fault=True)

    def _comes_back(self, world: World) -> Iterator[Step]:
        for place, process in enumerate(world.processes):
            if process.old:
                yield Step(f"P{place} finds the new master", put_process(world, place, _moved(world, process)))
        processes = tuple(_moved(world, one) if one.old else one for one in world.processes)
        yield Step(
            "the old master follows the new one: what it had is gone", world._replace(old=None, processes=processes)
        )


def _moved(world: World, process: Process) -> Process:
    """Have a process talk to the new master; it could renew no lease there until now."""
    return process._replace(old=False, stalled=process.stalled or world.store.leases[process.me] != HOLDS)
