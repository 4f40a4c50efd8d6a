"""Everything that can happen next: processes, the network, time, clients, operators, and the faults that are allowed.

A script is one step. Its answer may be lost; the command itself may stay in the network and run late (`late`); a
process may be killed, stopped (SIGSTOP) or asked to end at any moment. What is a fault costs something of the world's
budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from model.rules import Rule
from model.steps import Done, Steps
from model.store import HOLDS, NO_LEASE, NONE, OVER, REAPED, Store, Token, empty
from poste.domain.policy import SUSPECT_AFTER

#: A process' modes: up, stopped by a signal, finishing what runs, giving back, dead.
UP, FROZEN, ENDING, GIVING, DEAD = "up", "frozen", "ending", "giving", "dead"
#: What a process knows of a task: taken and to be claimed; the same, alone; claimed, and to begin; the same, but its
#: queue stands still, so it goes back; asked to begin, its handler not started; its handler runs; it ended, and its
#: report is not answered; it did not run, and is put off.
TAKEN, SUSPECT, CLAIMED, PAUSED, BEGUN, RUNS = "taken", "suspect", "claimed", "paused", "begun", "runs"
ENDED, BACK = "ended", "back"
#: How often a replayed task may be run: its operator said so.
_REPLAYED: Final = -9


class Held(NamedTuple):
    """One task in a process' hand. `settled`: its claim is known to be on disk."""

    how: str
    number: int = 0
    outcome: str = ""
    settled: bool = True
    alone: bool = False


class Process(NamedTuple):
    """One process.

    Attributes:
        mode: See above.
        me: Its incarnation.
        hand: What it knows of each task.
        number: How many claims it has named.
        stalled: It was stopped, and has not renewed its lease since.
        rests: It has seen that the queue is paused, and takes nothing until it has seen that it is not.
    """

    mode: str
    me: int
    hand: tuple[Held | None, ...]
    number: int = 0
    stalled: bool = False
    rests: bool = False


class World(NamedTuple):
    """All there is. `disk`: what a Redis that dies now comes back with, if that is less than there is."""

    store: Store
    processes: tuple[Process, ...]
    #: Commands under way that run once more: a script's name and its arguments.
    late: tuple[tuple[str, tuple[Any, ...]], ...]
    budget: tuple[int, ...]
    #: How often each task's handler was started, if it must not run twice.
    starts: tuple[int, ...]
    #: Which calls were answered 202.
    accepted: tuple[bool, ...]
    disk: Store | None = None


class Step(NamedTuple):
    """One thing that happens. `command`: the script that it is, with its arguments; `reply`: what that answers."""

    says: str
    world: World
    fault: bool = False
    broken: tuple[str, ...] = ()
    command: tuple[str, tuple[Any, ...]] | None = None
    reply: Any = None


@dataclass(frozen=True)
class Rules:
    """What is explored: the tasks, the processes, the faults.

    Attributes:
        once: For each task whether it must not run twice.
        processes: How many there are.
        budget: How often each fault may happen.
        poison: Tasks whose handler kills its process, each time.
        off: The rules that are switched off.
        weak_disk: Redis answers before it has written to disk.
        replica: Redis has a replica that takes over without its last writes; nothing is waited for until it has them.
        incarnations: How many names there are; those of which nothing is left are given out again.
    """

    once: tuple[bool, ...]
    processes: int
    budget: Mapping[str, int]
    poison: frozenset[int] = frozenset()
    off: frozenset[Rule] = frozenset()
    weak_disk: bool = False
    replica: bool = False
    max_failures: int = 2
    max_crashes: int = 2
    incarnations: int = 4


class Game:
    """The steps from one world to the next."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.steps = Steps(rules.once, rules.off, rules.weak_disk, rules.max_failures, rules.max_crashes)
        self.names = tuple(sorted(rules.budget))
        self.keys = range(len(rules.once))

    def on(self, rule: Rule) -> bool:
        return rule not in self.rules.off

    @property
    def _waits(self) -> bool:
        """Whether nothing is answered before it is known to last."""
        return self.on(Rule.TOLD_ON_DISK) and not self.rules.replica

    def start(self) -> World:
        count, names = len(self.rules.once), self.rules.incarnations
        store = empty(count, names)
        for me in range(self.rules.processes):
            store = self.steps.join(store, me).store
        processes = tuple(Process(UP, me, (None,) * count) for me in range(self.rules.processes))
        budget = tuple(self.rules.budget[name] for name in self.names)
        return World(store, processes, (), budget, (0,) * count, (False,) * count)

    # -- the network

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
            *arguments, keywords["alone"], keywords["take"] = arguments  # type: ignore[assignment]
        elif name == "pause":
            return self.steps.pause(store, paused=arguments[0])
        done: Done = getattr(self.steps, name)(store, *arguments, **keywords)
        return done

    def send(self, world: World, name: str, *arguments: Any) -> tuple[World, Step]:
        """Run a script; returns the world behind it, and the step without its words."""
        done = self.run(world.store, name, arguments)
        behind = world._replace(store=done.store)
        broken = done.broken
        if name == "reap":
            broken += self._taken_along(world, done)
            # A lease that its Redis lost with its last writes is no process's fault here.
            if world.store.leases[arguments[0]] in (HOLDS, OVER) and done.store.leases != world.store.leases:
                broken += self._reaped_alive(world, arguments[0])
        return behind, Step("", behind, broken=broken, command=(name, arguments), reply=done.reply)

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

    # -- all of it

    def next(self, world: World) -> Iterator[Step]:
        yield from self._clients(world)
        yield from self._operators(world)
        yield from self._time(world)
        yield from self._passes(world)
        for place in range(len(world.late)):
            name, arguments = world.late[place]
            rest = world._replace(late=world.late[:place] + world.late[place + 1 :])
            if name != "take" or rest.store.ready:
                _, step = self.send(rest, name, *arguments)
                yield step._replace(says=f"a late {name}{arguments}: {step.reply}")
            else:
                yield Step("a late take finds nothing", rest)
        for place, process in enumerate(world.processes):
            yield from self._process(world, place, process)

    def _clients(self, world: World) -> Iterator[Step]:
        store = world.store
        for key in self.keys:
            task = store.tasks[key]
            if not world.accepted[key]:

                def heard(behind: World, said: str, key: int = key) -> World:
                    on_disk = behind.disk is None or not self._waits
                    promised = said == "accepted" and on_disk
                    return behind._replace(accepted=_put(behind.accepted, key, promised))

                yield from self.ask(world, f"enqueue {key}", heard, "enqueue", key)
            if task.open and self.may(world, "cancel"):
                _, step = self.send(world, "cancel", key)
                yield step._replace(says=f"cancel {key}", world=self.spend(step.world, "cancel"), fault=True)
            if task.open and task.overdue:
                _, step = self.send(world, "read", key)
                if step.world != world:
                    yield step._replace(says=f"a client reads {key}", fault=True)

    def _operators(self, world: World) -> Iterator[Step]:
        if world.store.paused:
            _, step = self.send(world, "pause", False)
            yield step._replace(says="the queue is resumed")
        elif self.may(world, "pause"):
            _, step = self.send(world, "pause", True)
            yield step._replace(says="the queue is paused", world=self.spend(step.world, "pause"), fault=True)
        for key in self.keys:
            task = world.store.tasks[key]
            if self.may(world, "replay") and (task.state == "D" or (task.final and not self.on(Rule.REPLAY_DEAD))):
                _, step = self.send(world, "replay", key)
                after = self.spend(step.world, "replay")
                if step.reply == "done":
                    after = after._replace(starts=_put(after.starts, key, _REPLAYED))
                yield step._replace(says=f"replay {key}: {step.reply}", world=after, fault=True)
            if self.may(world, "purge") and task.state == "D" and not task.purged:
                _, step = self.send(world, "purge", key)
                yield step._replace(says=f"purge {key}", world=self.spend(step.world, "purge"), fault=True)
            if self.may(world, "forget") and task.final and (task.state != "D" or task.purged):
                _, step = self.send(world, "forget", key)
                yield step._replace(says=f"the record of {key} is over", world=self.spend(step.world, "forget"))

    def _time(self, world: World) -> Iterator[Step]:
        store = world.store
        for key in self.keys:
            task = store.tasks[key]
            if task.open and not task.overdue and self.may(world, "overdue"):
                tasks = _put(store.tasks, key, task._replace(overdue=True))
                after = self.spend(world._replace(store=store._replace(tasks=tasks)), "overdue")
                # Without any process it is what must happen, and what is awaited.
                fault = self.rules.processes > 0
                yield Step(f"{key} is overdue", after, fault=fault, command=("overdue", (key,)))
        for me, lease in enumerate(store.leases):
            owner = next((one for one in world.processes if one.me == me and one.mode != DEAD), None)
            if lease == HOLDS and (owner is None or owner.mode == FROZEN):
                yield self._lapse(world, me)
        yield from self._redis(world)

    def _lapse(self, world: World, *names: int) -> Step:
        leases = tuple(OVER if me in names else lease for me, lease in enumerate(world.store.leases))
        after = world._replace(store=world.store._replace(leases=leases))
        return Step(f"the lease of {names} is over", after, command=("lapse", names))

    def _redis(self, world: World) -> Iterator[Step]:
        if self.may(world, "outage"):
            holders = [me for me, lease in enumerate(world.store.leases) if lease == HOLDS]
            away = world if self.on(Rule.CLOCK) else self._lapse(world, *holders).world
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
        for key in sorted(store.delayed):
            if self.on(Rule.WAKE):
                _, step = self.send(world, "wake", (key,))
                yield step._replace(says=f"{key} is due")
        if self.on(Rule.SWEEP) and any(not store.tasks[key].open or store.tasks[key].overdue for key in store.ready):
            _, step = self.send(world, "sweep", store.ready)
            yield step._replace(says="the queue is swept")

    def _read_for_reaping(self, world: World, me: int) -> Step:
        late = tuple(sorted((*world.late, ("reap", (me, world.store.taken[me]))), key=repr))
        return Step(f"a pass reads what {me} has", self.spend(world._replace(late=late), "late"), fault=True)

    def _reaped_alive(self, world: World, me: int) -> tuple[str, ...]:
        alive = any(one.me == me and one.mode in (UP, ENDING) and not one.stalled for one in world.processes)
        return ("an owner is reaped that never stalled",) if alive else ()

    # -- a process

    def _process(self, world: World, place: int, process: Process) -> Iterator[Step]:
        if process.mode == DEAD:
            yield from self._join(world, place, "starts again")
            return
        yield from self._disturb(world, place, process)
        if process.mode == FROZEN:
            yield Step(f"P{place} goes on", _put_process(world, place, process._replace(mode=UP, stalled=True)))
            return
        yield from self._renew(world, place, process)
        if process.mode in (ENDING, GIVING):
            yield from self._end(world, place, process)
        if process.mode == UP:
            yield from self._take(world, place, process)
        if process.mode != GIVING:
            yield from self._put_back(world, place, process)
            for key, held in enumerate(process.hand):
                if held is not None:
                    yield from self._drive(world, place, process, key, held)

    def _disturb(self, world: World, place: int, process: Process) -> Iterator[Step]:
        def be(**changes: Any) -> World:
            return _put_process(world, place, process._replace(**changes))

        nothing = (None,) * len(self.keys)
        if self.may(world, "kill"):
            dead = be(mode=DEAD, hand=nothing, stalled=False)
            yield Step(f"P{place} is killed", self.spend(dead, "kill"), fault=True)
            if self.may(world, "late") and process.mode == UP:
                late = tuple(sorted((*dead.late, ("take", (process.me,))), key=repr))
                after = self.spend(dead._replace(late=late), "kill", "late")
                yield Step(f"P{place} is killed, its BLMOVE is under way", after, fault=True)
        if self.may(world, "freeze") and process.mode == UP:
            yield Step(f"P{place} is stopped", self.spend(be(mode=FROZEN, stalled=True), "freeze"), fault=True)
        if self.may(world, "deploy") and process.mode == UP:
            yield Step(f"P{place} is asked to end", self.spend(be(mode=ENDING), "deploy"), fault=True)

    def _join(self, world: World, place: int, how: str) -> Iterator[Step]:
        me = self._unused(world)
        if me is not None:
            _, step = self.send(world, "join", me)
            fresh = Process(UP, me, (None,) * len(self.keys))
            after = step.world._replace(processes=_put(world.processes, place, fresh))
            yield step._replace(says=f"P{place} {how} as {me}", world=after)

    def _unused(self, world: World) -> int | None:
        """Find an incarnation that nothing names any more; it stands for a new one."""
        store = world.store
        for me, lease in enumerate(store.leases):
            named = any(one.me == me for one in world.processes) or any(one[1][0] == me for one in world.late)
            named = named or any(_names(arguments, me) for name, arguments in world.late if name != "enqueue")
            owns = any(task.token and task.token[0] == me for task in (*store.tasks, *_tasks(world.disk)))
            listed = store.taken[me] or (world.disk and world.disk.taken[me])
            if lease in (NO_LEASE, REAPED) and not (named or owns or listed):
                return me
        return None

    def _renew(self, world: World, place: int, process: Process) -> Iterator[Step]:
        if world.store.leases[process.me] == HOLDS and not process.stalled:
            return
        _, step = self.send(world, "renew", process.me)
        if step.reply:
            renewed = _put(world.processes, place, process._replace(stalled=False))
            yield step._replace(says=f"P{place} renews its lease", world=step.world._replace(processes=renewed))
        elif process.mode == UP:
            yield from self._join(world, place, "is refused its lease, drops all, and joins")
        else:
            dead = process._replace(mode=DEAD, hand=(None,) * len(self.keys), stalled=False)
            after = step.world._replace(processes=_put(world.processes, place, dead))
            yield step._replace(says=f"P{place} is refused its lease, and ends", world=after)

    def _take(self, world: World, place: int, process: Process) -> Iterator[Step]:
        store, hand, me = world.store, process.hand, process.me
        if process.rests:
            if not store.paused:
                yield Step(
                    f"P{place} sees that the queue goes on", _put_process(world, place, process._replace(rests=False))
                )
            return
        if any(held and held.how == RUNS and held.alone for held in hand):
            return
        if store.ready:

            def heard(behind: World, keys: Sequence[int]) -> World:
                return _hold(behind, place, {key: Held(TAKEN) for key in keys if hand[key] is None})

            yield from self.ask(world, f"P{place} takes", heard, "take", me, lost=[world])
        yield from self._audit(world, place, process)
        for key in self.keys:
            # What it saw at the queue's front, perhaps long ago.
            if hand[key] is None and store.ready and store.tasks[key].state != NONE:
                yield from self._claim(world, place, process, key, take=1)

    def _audit(self, world: World, place: int, process: Process) -> Iterator[Step]:
        for key in world.store.taken[process.me] if self.on(Rule.AUDIT) else ():
            if process.hand[key] is None:
                yield Step(f"P{place} finds {key} in its list", _hold(world, place, {key: Held(TAKEN)}))

    def _claim(self, world: World, place: int, process: Process, key: int, *, take: int) -> Iterator[Step]:
        """Claim one; what asks again for a lost answer names the same number."""
        me, held = process.me, process.hand[key]
        number = held.number if held and held.number else process.number + 1
        alone = held is not None and held.how == SUSPECT
        settled = not self.rules.weak_disk

        def heard(behind: World, said: Sequence[Any]) -> World:
            if said == ("fenced",):
                return _put_process(behind, place, process._replace(stalled=True))
            unnamed, answer = said
            hold: dict[int, Held | None] = {other: Held(TAKEN) for other in unnamed if process.hand[other] is None}
            hold[key] = None
            if answer == "run":
                how = CLAIMED if self.rules.once[key] else RUNS
                hold[key] = Held(how, number, settled=settled, alone=alone)
            elif answer == "suspect":
                hold[key] = Held(SUSPECT)
            rests = process.rests or answer == "paused"
            claimer = process._replace(number=max(number, process.number), rests=rests)
            return _hold(_put_process(behind, place, claimer), place, hold)

        numbered = _put_process(world, place, process._replace(number=max(number, process.number)))
        lost = [_hold(numbered, place, {key: None})]
        if not take:
            lost.append(_hold(numbered, place, {key: Held(held.how if held else TAKEN, number)}))
        claims = ((key, number),)
        says = f"P{place} {'takes one and ' if take else ''}claims {key}"
        yield from self.ask(world, says, heard, "claim", me, claims, alone, take, lost=lost)

    def _drive(self, world: World, place: int, process: Process, key: int, held: Held) -> Iterator[Step]:
        hand, token = process.hand, (process.me, held.number)
        claimed = any(one and one.how not in (TAKEN, SUSPECT) for one in hand)
        if process.mode == UP and (held.how == TAKEN or (held.how == SUSPECT and not claimed)):
            yield from self._claim(world, place, process, key, take=0)
        elif held.how == CLAIMED and process.mode == UP:
            yield from self._begin(world, place, process, key, held)
        elif held.how == BEGUN:
            starts = _put(world.starts, key, world.starts[key] + 1)
            running = _hold(world, place, {key: held._replace(how=RUNS)})._replace(starts=starts)
            yield Step(f"P{place} starts the handler of {key}", running)
            yield from self._refuse(world, place, key, held)
        elif held.how == RUNS:
            yield from self._handle(world, place, key, held)
            if not self.rules.once[key]:
                yield from self._refuse(world, place, key, held)
        elif held.how == ENDED:
            yield from self._report(world, place, key, token, held)
        elif held.how == BACK:
            gone = _hold(world, place, {key: None})
            says = f"P{place} puts off {key}"
            yield from self.ask(
                world, says, lambda behind, _: gone._replace(store=behind.store), "put_off", key, token, lost=[world]
            )

    def _begin(self, world: World, place: int, process: Process, key: int, held: Held) -> Iterator[Step]:
        waits = self.on(Rule.BEGIN_ON_DISK) and not held.settled
        if waits:
            # The disk is waited for on whatever server there is then: it says nothing of a claim that another had.
            if world.disk is None:
                yield Step(
                    f"P{place} knows its claim of {key} to be on disk", _hold(world, place, {key: _settled(held)})
                )
            return
        if self.on(Rule.BEGIN_IN_TURN) and any(one and one.how == BEGUN for one in process.hand):
            return
        me = process.me

        def heard(behind: World, said: str) -> World:
            if said == "begun":
                return _hold(behind, place, {key: held._replace(how=BEGUN)})
            if said == "fenced":
                return _put_process(behind, place, process._replace(stalled=True))
            if said == "paused":
                waiting = [other for other, one in enumerate(process.hand) if one and one.how == CLAIMED]
                return _hold(behind, place, {other: _as(process.hand[other], PAUSED) for other in waiting})
            return _hold(behind, place, {key: None})

        lost = [_hold(world, place, {key: None})]
        yield from self.ask(world, f"P{place} has {key} begin", heard, "begin", me, key, (me, held.number), lost=lost)

    def _put_back(self, world: World, place: int, process: Process) -> Iterator[Step]:
        """Give back all that has not begun: its queue stands still. The oldest last: it is taken first again."""
        waiting = {key: held.number for key, held in enumerate(process.hand) if held and held.how == PAUSED}
        if waiting:
            returned = tuple(
                (key, (process.me, waiting[key]), False) for key in sorted(waiting, key=lambda one: -waiting[one])
            )

            def heard(behind: World, _: int) -> World:
                return _hold(behind, place, dict.fromkeys(waiting, None))

            lost = [_hold(world, place, dict.fromkeys(waiting, None))]
            yield from self.ask(world, f"P{place} puts back", heard, "give_back", process.me, returned, lost=lost)

    def _refuse(self, world: World, place: int, key: int, held: Held) -> Iterator[Step]:
        if self.may(world, "refuse"):
            after = self.spend(_hold(world, place, {key: held._replace(how=BACK)}), "refuse")
            yield Step(f"P{place} can't run {key}", after, fault=True)

    def _handle(self, world: World, place: int, key: int, held: Held) -> Iterator[Step]:
        if key in self.rules.poison:
            dead = world.processes[place]._replace(mode=DEAD, hand=(None,) * len(self.keys))
            yield Step(f"{key} kills P{place}", _put_process(world, place, dead))
            return
        outcomes = ["ok", *(one for one in ("retry", "silent") if self.may(world, one))]
        outcomes += ["cancelled"] if world.store.tasks[key].stop else []
        for outcome in outcomes:
            after = _hold(world, place, {key: held._replace(how=ENDED, outcome=outcome)})
            fault = outcome in ("retry", "silent")
            spent = self.spend(after, outcome) if fault else after
            yield Step(f"P{place}'s handler of {key} ends: {outcome}", spent, fault=fault)

    def _report(self, world: World, place: int, key: int, token: Token, held: Held) -> Iterator[Step]:
        def heard(behind: World, _: str) -> World:
            if behind.disk is not None and self._waits:
                return behind
            return _hold(behind, place, {key: None})

        yield from self.ask(world, f"P{place} reports {key}", heard, "complete", key, token, held.outcome, lost=[world])

    def _end(self, world: World, place: int, process: Process) -> Iterator[Step]:
        me, store = process.me, world.store
        if process.mode == ENDING:
            yield Step(f"P{place} ends its handlers", _put_process(world, place, process._replace(mode=GIVING)))
            return
        if store.taken[me]:
            returned = tuple((key, *_returned(me, process.hand[key])) for key in store.taken[me])

            def heard(behind: World, _: int) -> World:
                return _hold(behind, place, dict.fromkeys(store.taken[me], None))

            yield from self.ask(world, f"P{place} gives back", heard, "give_back", me, returned, lost=[world])
            return

        def left(behind: World, said: int) -> World:
            dead = process._replace(mode=DEAD, hand=(None,) * len(self.keys), stalled=False)
            return _put_process(behind, place, dead) if said else behind

        yield from self.ask(world, f"P{place} leaves", left, "leave", me, lost=[left(world, 1)])


def broken(game: Game, world: World) -> str | None:
    """Return which promise is broken, None if all hold."""
    for key in game.keys:
        if found := _lost(game, world, key) or _unkept(game, world, key) or _suffers(game, world, key):
            return found
    return None


def _lost(game: Game, world: World, key: int) -> str | None:
    task = world.store.tasks[key]
    if world.accepted[key] and task.state == NONE:
        return "a call was accepted, and there is no record"
    return _misplaced(game, world, key) if task.open else None


def _unkept(game: Game, world: World, key: int) -> str | None:
    ends, starts = world.store.tasks[key].ends, world.starts[key]
    if sum(letter in "SF" for letter in ends) > 1:
        return "a task has two results"
    if game.rules.once[key] and starts > 1:
        return "what must not run twice runs twice"
    if game.rules.once[key] and starts > 0 and ends[-1:] in ("c", "e"):
        return "what was reported as never begun runs"
    return None


def _suffers(game: Game, world: World, key: int) -> str | None:
    """A poison that nothing else goes wrong with."""
    task, poison = world.store.tasks[key], game.rules.poison
    if key not in poison and poison and (task.reason == "crashes" or task.company > len(poison) * SUSPECT_AFTER):
        return "what kills no process suffers more crashes than make it a suspect"
    return None


def _misplaced(game: Game, world: World, key: int) -> str | None:
    store, task = world.store, world.store.tasks[key]
    waits = store.ready.count(key) + (key in store.delayed)
    places = waits + sum(listed.count(key) for listed in store.taken)
    if places > 1:
        return "an open task stands in two places"
    if task.state == "R" and waits:
        return "a task runs, and waits in the queue"
    watched = (
        key in listed and (lease != NO_LEASE or game.on(Rule.ORPHANS) or _alive(world, me))
        for me, (lease, listed) in enumerate(zip(store.leases, store.taken, strict=True))
    )
    return None if waits or any(watched) else "an open task is in no place that is ever read"


def _alive(world: World, me: int) -> bool:
    return any(one.me == me and one.mode != DEAD for one in world.processes)


def drained(world: World) -> bool:
    """Return whether everything has ended, and nothing is left over."""
    store = world.store
    nothing_open = not any(task.open or task.state == NONE for task in store.tasks)
    return nothing_open and not (store.ready or store.delayed or any(store.taken) or world.late)


def _put(values: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*values[:place], value, *values[place + 1 :])


def _put_process(world: World, place: int, process: Process) -> World:
    return world._replace(processes=_put(world.processes, place, process))


def _hold(world: World, place: int, changes: Mapping[int, Held | None]) -> World:
    process = world.processes[place]
    hand = tuple(changes.get(key, held) for key, held in enumerate(process.hand))
    return _put_process(world, place, process._replace(hand=hand))


def _settled(held: Held) -> Held:
    return held._replace(settled=True)


def _as(held: Held | None, how: str) -> Held | None:
    return held and held._replace(how=how)


def _returned(me: int, held: Held | None) -> tuple[Token | None, bool]:
    if held is None or held.how in (TAKEN, SUSPECT):
        return None, False
    return (me, held.number), held.how in (RUNS, ENDED)


def _names(arguments: tuple[Any, ...], me: int) -> bool:
    return any(isinstance(one, tuple) and one[:1] == (me,) for one in arguments) or arguments[:1] == (me,)


def _tasks(store: Store | None) -> tuple[Any, ...]:
    return store.tasks if store else ()
