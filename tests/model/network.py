"""What all who act in a world share: a script is one step, its answer may be lost, and it may run once more, late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from model.rules import Rule
from model.steps import Done, Steps
from model.store import HOLDS, OVER, Store
from model.world import ENDING, PAUSE, UP, Rules, Step, World


class Network:
    """Runs the scripts of a game; what is a fault costs something of the world's budget."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.steps = Steps(rules.once, rules.off, rules.weak_disk, rules.max_failures, rules.max_crashes)
        self.names = tuple(sorted(rules.budget))
        self.keys = range(len(rules.once))

    def on(self, rule: Rule) -> bool:
        return rule not in self.rules.off

    @property
    def waits(self) -> bool:
        """Whether nothing is answered before it is known to last."""
        return self.on(Rule.TOLD_ON_DISK) and (self.rules.weak_disk or not self.rules.replica)

    def lasts(self, world: World) -> bool:
        """Whether the wait for what is written to last would come to an end."""
        # The second replica acknowledges what it gets from the master that was replaced.
        fooled = world.cut and self.rules.second and not self.on(Rule.ACK_NAMED)
        return world.disk is None or fooled

    def answers(self, before: World, behind: World) -> bool:
        """Whether what a script says is passed on: it lasts, as far as that is waited for."""
        unwaited = behind.store == before.store and not self.on(Rule.BARRIER)
        return not self.waits or self.lasts(behind) or unwaited

    def may(self, world: World, fault: str) -> bool:
        return fault in self.names and world.budget[self.names.index(fault)] > 0

    def spend(self, world: World, *faults: str) -> World:
        budget = list(world.budget)
        for fault in faults:
            budget[self.names.index(fault)] -= 1
        return world._replace(budget=tuple(budget))

    def run(self, store: Store, name: str, arguments: tuple[Any, ...]) -> Done:
        keywords: dict[str, Any] = {}
        if name == "claim":
            *arguments, keywords["alone"], keywords["take"], keywords["room"] = arguments  # type: ignore[assignment]
        elif name == "sweep":
            return self.steps.sweep(store, arguments[0], lane=arguments[1])
        elif name == "pause":
            return self.steps.pause(store, paused=arguments[0])
        done: Done = getattr(self.steps, name)(store, *arguments, **keywords)
        return done

    def send(self, world: World, name: str, *arguments: Any) -> tuple[World, Step]:
        """Run a script; returns the world behind it, and the step without its words."""
        done = self.run(world.store, name, arguments)
        behind = world._replace(store=done.store)
        broken = done.broken
        if PAUSE in world.ordered and not (world.cut or world.store.paused):
            broken += self._starts(name, arguments, done)
        if name == "reap":
            broken += self._taken_along(world, done)
            # A lease that its Redis lost with its last writes is no process's fault here.
            if world.store.leases[arguments[0]] in (HOLDS, OVER) and done.store.leases != world.store.leases:
                broken += self._reaped_alive(world, arguments[0])
        return behind, Step("", behind, broken=broken, command=(name, arguments), reply=done.reply)

    def _starts(self, name: str, arguments: tuple[Any, ...], done: Done) -> tuple[str, ...]:
        """Judge what starts something of a queue that was paused and, for all its Redis knows, is not."""
        if name == "claim":
            claims = [] if done.reply == ("fenced",) else zip(arguments[1], done.reply[1:], strict=True)
            started = any(said == "run" and not self.rules.once[key] for (key, _), said in claims)
        else:
            started = name == "begin" and done.reply == "begun"
        return ("something starts of a queue of which its operator was told that it is paused",) if started else ()

    def _taken_along(self, world: World, done: Done) -> tuple[str, ...]:
        lost = [
            key
            for key, (before, after) in enumerate(zip(world.store.tasks, done.store.tasks, strict=True))
            if before.state == "R" and after.reason == "outcome-unknown" and world.starts[key] == 0
        ]
        return ("a process that dies takes more than one task along that it had not started",) if len(lost) > 1 else ()

    def ask(
        self, world: World, says: str, heard: Any, name: str, *arguments: Any, lost: Sequence[World] = ()
    ) -> Iterator[Step]:
        """Send a command: its answer is heard, or lost (`lost`: what the asker may then be), or it stays under way.

        `heard` makes the next world of the one behind the script and its answer.
        """
        behind, step = self.send(world, name, *arguments)
        yield step._replace(says=f"{says}: {step.reply}", world=heard(behind, step.reply))
        if self.may(world, "lost"):
            for asker in lost:
                after = self.spend(asker._replace(store=behind.store), "lost")
                yield step._replace(says=f"{says}: {step.reply}, and the answer is lost", world=after, fault=True)
        if self.may(world, "late"):
            late = tuple(sorted((*world.late, (name, arguments)), key=repr))
            yield Step(f"{says}: a copy stays under way", self.spend(world._replace(late=late), "late"), fault=True)

    def _reaped_alive(self, world: World, me: int) -> tuple[str, ...]:
        alive = any(
            one.me == me and one.mode in (UP, ENDING) and not (one.stalled or one.old) for one in world.processes
        )
        return ("an owner is reaped that never stalled",) if alive else ()

    def lapse(self, world: World, *names: int) -> Step:
        leases = tuple(OVER if me in names else lease for me, lease in enumerate(world.store.leases))
        after = world._replace(store=world.store._replace(leases=leases))
        return Step(f"the lease of {names} is over", after, command=("lapse", names))
