"""Everything that can happen next in a world."""

from __future__ import annotations

from collections.abc import Iterator

from model.consumers import Consumers
from model.network import Network
from model.outside import Outside
from model.servers import Servers
from model.store import empty
from model.world import UP, Process, Rules, Step, World


class Game(Network):
    """The steps from one world to the next."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self._outside, self._servers, self._consumers = Outside(rules), Servers(rules), Consumers(rules)

    def start(self) -> World:
        count, names = len(self.rules.once), self.rules.incarnations
        store = empty(count, names)
        for me in range(self.rules.processes):
            store = self.steps.join(store, me).store
        processes = tuple(Process(UP, me, (None,) * count) for me in range(self.rules.processes))
        budget = tuple(self.rules.budget[name] for name in self.names)
        return World(store, processes, (), budget, (0,) * count, (False,) * count, (None,) * count)

    def next(self, world: World) -> Iterator[Step]:
        yield from self._outside.happens(world)
        yield from self._servers.happens(world)
        yield from self._late(world)
        yield from self._consumers.work(world)
        yield from self._at_the_old_master(world)

    def _at_the_old_master(self, world: World) -> Iterator[Step]:
        """Do what those do who still talk to the master that was replaced: nothing of it lasts."""
        if world.old is None:
            return
        there = world._replace(
            store=world.old, disk=world.store, old=None, cut=True, processes=_elsewhere(world.processes)
        )
        for step in (*self._outside.happens(there), *self._consumers.work(there)):
            behind = step.world
            after = behind._replace(
                store=world.store,
                disk=world.disk,
                old=behind.store,
                cut=False,
                processes=_elsewhere(behind.processes),
            )
            yield step._replace(says=f"at the old master: {step.says}", world=after)

    def _late(self, world: World) -> Iterator[Step]:
        for place in range(len(world.late)):
            name, arguments = world.late[place]
            rest = world._replace(late=world.late[:place] + world.late[place + 1 :])
            if {"take": rest.store.ready, "take_lane": rest.store.lane}.get(name, True):
                _, step = self.send(rest, name, *arguments)
                yield step._replace(says=f"a late {name}{arguments}: {step.reply}")
            else:
                yield Step(f"a late {name} finds nothing", rest)


def _elsewhere(processes: tuple[Process, ...]) -> tuple[Process, ...]:
    return tuple(one._replace(old=not one.old) for one in processes)
