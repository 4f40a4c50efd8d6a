"""What happens to a queue from outside its consumers: clients, operators, time, the middleware's passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from model.network import Network
from model.rules import Rule
from model.store import (
    ARRIVED,
    FORGOTTEN,
    GONE,
    HOLDS,
    MOVED,
    NO_LEASE,
    NONE,
    NOT_ARRIVED,
    OTHER,
    OVER,
    REAPED,
    SETTLED,
    There,
)
from model.world import DEAD, FROZEN, PAUSE, Step, World, put

#: How often a replayed task may be run: its operator said so.
_REPLAYED: Final = -9


class Outside(Network):
    """All but the consumers, and what becomes of Redis."""

    def happens(self, world: World) -> Iterator[Step]:
        yield from self._clients(world)
        yield from self._operators(world)
        yield from self._time(world)
        yield from self._passes(world)
        yield from self._moves(world)

    def _clients(self, world: World) -> Iterator[Step]:
        store = world.store
        for key in self.keys:
            task = store.tasks[key]
            if not world.accepted[key]:

                def heard(behind: World, said: str, key: int = key) -> World:
                    promised = said == "accepted" and self.answers(world, behind)
                    return behind._replace(accepted=put(behind.accepted, key, promised))

                yield from self.ask(world, f"enqueue {key}", heard, "enqueue", key, key in self.rules.later)
            if task.open and self.may(world, "cancel"):
                _, step = self.send(world, "cancel", key)
                yield step._replace(says=f"cancel {key}", world=self.spend(step.world, "cancel"), fault=True)
            if task.open and task.overdue:
                _, step = self.send(world, "read", key)
                if step.world != world:
                    yield step._replace(says=f"a client reads {key}", fault=True)
            elif self.rules.reads and world.accepted[key]:
                yield from self._ends(world, key)

    def _ends(self, world: World, key: int) -> Iterator[Step]:
        """Let a client read how its task ended; what it was told before must be so still."""
        task, told = world.store.tasks[key], world.told[key]
        if task.state in (NONE, GONE, MOVED) or (world.cut and self.waits and self.on(Rule.READ_NAMED)):
            return
        end = (task.ends[-1:], task.token if task.state in "SF" else None) if task.final else None
        says = f"a client reads {key}: {end or 'open'}"
        if end is not None and self.waits and self.on(Rule.READ_ON_DISK) and not self.lasts(world):
            return
        if told is None and end is not None:
            yield Step(says, world._replace(told=put(world.told, key, end)), fault=True)
        elif told != end:
            yield Step(says, world, broken=("a client that was told how its task ended is told otherwise",))

    def _operators(self, world: World) -> Iterator[Step]:
        if world.store.paused:
            _, step = self.send(world, "pause", False)
            after = step.world._replace(ordered=world.ordered - {PAUSE})
            yield step._replace(says="the queue is resumed", world=after)
        elif self.may(world, "pause"):
            _, step = self.send(world, "pause", True)
            after = self.spend(self._told(world, step.world, PAUSE), "pause")
            yield step._replace(says="the queue is paused", world=after, fault=True)
        for key in self.keys:
            task = world.store.tasks[key]
            if self.may(world, "replay") and (task.state in "DF" or (task.final and not self.on(Rule.REPLAY_DEAD))):
                _, step = self.send(world, "replay", key)
                after = self.spend(step.world, "replay")
                if step.reply == "done":
                    after = after._replace(starts=put(after.starts, key, _REPLAYED), told=put(after.told, key, None))
                    after = self._told(world, after, key)
                yield step._replace(says=f"replay {key}: {step.reply}", world=after, fault=True)
            if self.may(world, "purge") and task.state == "D" and not task.purged:
                _, step = self.send(world, "purge", key)
                yield step._replace(says=f"purge {key}", world=self.spend(step.world, "purge"), fault=True)
            if self.may(world, "forget") and task.final and (task.state != "D" or task.purged):
                _, step = self.send(world, "forget", key)
                yield step._replace(says=f"the record of {key} is over", world=self.spend(step.world, "forget"))

    def _told(self, world: World, behind: World, order: int) -> World:
        """Have an operator rely on an order, if it is told to be done."""
        told = self.rules.reads and (self.answers(world, behind) or not self.on(Rule.ORDER_ON_DISK))
        return behind._replace(ordered=behind.ordered | {order}) if told else behind

    def _time(self, world: World) -> Iterator[Step]:
        store = world.store
        for key in self.keys:
            task = store.tasks[key]
            if task.open and not task.overdue and self.may(world, "overdue"):
                tasks = put(store.tasks, key, task._replace(overdue=True))
                after = self.spend(world._replace(store=store._replace(tasks=tasks)), "overdue")
                # Without any process it is what must happen, and what is awaited.
                fault = self.rules.processes > 0
                yield Step(f"{key} is overdue", after, fault=fault, command=("overdue", (key,)))
        for me, lease in enumerate(store.leases):
            owner = next((one for one in world.processes if one.me == me and one.mode != DEAD), None)
            if lease == HOLDS and (owner is None or owner.mode == FROZEN or owner.old):
                yield self.lapse(world, me)

    def _passes(self, world: World) -> Iterator[Step]:
        store = world.store
        for me, lease in enumerate(store.leases):
            orphan = lease == NO_LEASE and self.on(Rule.ORPHANS)
            if lease != OVER and not (store.taken[me] and (lease == REAPED or orphan)):
                if lease == HOLDS and self.may(world, "late"):
                    yield self._read_for_reaping(world, me)
                continue
            _, step = self.send(world, "reap", me, store.taken[me])
            yield step._replace(says=f"{me} is reaped: {step.reply}")
            if self.may(world, "late"):
                yield self._read_for_reaping(world, me)
        for key in sorted(store.delayed | store.scheduled):
            if self.on(Rule.WAKE):
                _, step = self.send(world, "wake", (key,))
                yield step._replace(says=f"{key} is due")
        for listed, lane in ((store.ready, False), (store.lane, True)):
            over = any(not store.tasks[key].open or store.tasks[key].overdue for key in listed)
            if self.on(Rule.SWEEP) and over:
                _, step = self.send(world, "sweep", listed, lane)
                yield step._replace(says=f"the {'lane' if lane else 'queue'} is swept")

    def _moves(self, world: World) -> Iterator[Step]:
        """Let tasks move to another queue, and live there: what runs there ends at once."""
        for key in self.keys:
            task, there = world.store.tasks[key], world.store.there[key]
            moves = task.state in ("Q", "F") or (task.state == "D" and not task.purged)
            if self.may(world, "move") and (moves or (task.state == "R" and not self.on(Rule.MOVE_WAITING))):
                _, step = self.send(world, "move_out", key)
                after = self.spend(step.world, "move")
                yield step._replace(says=f"{key} stops, to be moved", world=after, fault=True)
            if self.on(Rule.MOVE_RESUMED) and (self.lasts(world) or not self.on(Rule.MOVE_ON_DISK)):
                yield from self._go_on(world, key)
            if there.state == "Q":
                after = self._there(world, key, "C")
                yield after._replace(
                    says=f"{key} runs in the other queue, and ends",
                    world=after.world._replace(starts=put(world.starts, key, world.starts[key] + self.rules.once[key])),
                    command=("end_there", (key,)),
                )
            elif there.state == OTHER:
                yield self._there(world, key, NONE)._replace(
                    says=f"the other call's record under the key of {key} is over", command=("forget_there", (key,))
                )
            elif there.state not in (NONE, GONE) and self.may(world, "forget"):
                step = self._there(world, key, GONE)
                yield step._replace(
                    says=f"the record of {key} in the other queue is over",
                    world=self.spend(step.world, "forget"),
                    fault=True,
                    command=("forget_there", (key,)),
                )
            if task.was and there == There() and self.may(world, "taken"):
                step = self._there(world, key, OTHER)
                yield step._replace(
                    says=f"another call with the key of {key} comes to the other queue",
                    world=self.spend(step.world, "taken"),
                    fault=True,
                    command=("other_there", (key,)),
                )
            if there.mark == SETTLED:
                after = world._replace(
                    store=world.store._replace(there=put(world.store.there, key, there._replace(mark=FORGOTTEN)))
                )
                yield Step(f"that {key} arrived is forgotten", after, command=("forget_arrival", (key,)))

    def _go_on(self, world: World, key: int) -> Iterator[Step]:
        """Do the next step of a move: whoever comes upon the task does."""
        task, (state, mark) = world.store.tasks[key], world.store.there[key]
        arrived = mark != NOT_ARRIVED or (state == OTHER and not self.on(Rule.MOVE_TAKEN))
        if task.was:
            yield from self.ask(
                world, f"{key} is written to the other queue", lambda behind, _: behind, "move_in", key, task.was
            )
        if task.was and (arrived or not self.on(Rule.MOVE_DONE)):
            yield from self.ask(world, f"the record of {key} is dropped", lambda behind, _: behind, "move_done", key)
        if mark == ARRIVED and (not task.was or not self.on(Rule.MOVE_SETTLED)):
            _, step = self.send(world, "move_settle", key)
            yield step._replace(says=f"the move of {key} is settled")

    @staticmethod
    def _there(world: World, key: int, state: str) -> Step:
        there = put(world.store.there, key, world.store.there[key]._replace(state=state))
        return Step("", world._replace(store=world.store._replace(there=there)))

    def _read_for_reaping(self, world: World, me: int) -> Step:
        late = tuple(sorted((*world.late, ("reap", (me, world.store.taken[me]))), key=repr))
        return Step(f"a pass reads what {me} has", self.spend(world._replace(late=late), "late"), fault=True)
