"""A consumer's process: what it does, and what may happen to it at any moment.

It may be killed, stopped (SIGSTOP) or asked to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from model.network import Network
from model.rules import Rule
from model.store import HOLDS, NO_LEASE, NONE, REAPED, Store, Token
from model.world import (
    BACK,
    BEGUN,
    CLAIMED,
    DEAD,
    ENDED,
    ENDING,
    FROZEN,
    GIVING,
    PAUSED,
    RUNS,
    SUSPECT,
    TAKEN,
    UP,
    Held,
    Process,
    Step,
    World,
    hold,
    put,
    put_process,
)


class Consumers(Network):
    """The processes of a world."""

    def work(self, world: World) -> Iterator[Step]:
        for place, process in enumerate(world.processes):
            if not process.old:
                yield from self._process(world, place, process)

    def _process(self, world: World, place: int, process: Process) -> Iterator[Step]:
        if process.mode == DEAD:
            yield from self._join(world, place, "starts again")
            return
        yield from self._disturb(world, place, process)
        if process.mode == FROZEN:
            yield Step(f"P{place} goes on", put_process(world, place, process._replace(mode=UP, stalled=True)))
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
            return put_process(world, place, process._replace(**changes))

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
            after = step.world._replace(processes=put(world.processes, place, fresh))
            yield step._replace(says=f"P{place} {how} as {me}", world=after)

    def _unused(self, world: World) -> int | None:
        """Find an incarnation that nothing names any more; it stands for a new one."""
        stores = [store for store in (world.store, world.disk, world.old) if store is not None]
        for me in range(self.rules.incarnations):
            named = any(one.me == me for one in world.processes) or any(one[1][0] == me for one in world.late)
            named = named or any(_names(arguments, me) for name, arguments in world.late if name != "enqueue")
            if not named and not any(_has_part(store, me) for store in stores):
                return me
        return None

    def _renew(self, world: World, place: int, process: Process) -> Iterator[Step]:
        if world.store.leases[process.me] == HOLDS and not process.stalled:
            return
        _, step = self.send(world, "renew", process.me)
        if step.reply:
            # What a server forgets that comes back is no process' fault.
            renewed = put(world.processes, place, process._replace(stalled=not self.lasts(world)))
            yield step._replace(says=f"P{place} renews its lease", world=step.world._replace(processes=renewed))
        elif process.mode == UP:
            yield from self._join(world, place, "is refused its lease, drops all, and joins")
        else:
            dead = process._replace(mode=DEAD, hand=(None,) * len(self.keys), stalled=False)
            after = step.world._replace(processes=put(world.processes, place, dead))
            yield step._replace(says=f"P{place} is refused its lease, and ends", world=after)

    def _take(self, world: World, place: int, process: Process) -> Iterator[Step]:
        store, hand, me = world.store, process.hand, process.me
        if process.rests:
            if not store.paused:
                yield Step(
                    f"P{place} sees that the queue goes on", put_process(world, place, process._replace(rests=False))
                )
            return
        if any(held and held.how == RUNS and held.alone for held in hand):
            return

        def heard(behind: World, keys: Sequence[int]) -> World:
            return hold(behind, place, {key: Held(TAKEN) for key in keys if hand[key] is None})

        if store.ready:
            yield from self.ask(world, f"P{place} takes", heard, "take", me, lost=[world])
        if store.lane and self.on(Rule.LANES):
            yield from self.ask(world, f"P{place} takes from the lane", heard, "take_lane", me, lost=[world])
        yield from self._audit(world, place, process)
        for key in self.keys:
            # What it saw at the queue's front, perhaps long ago.
            if hand[key] is None and store.ready and store.tasks[key].state != NONE:
                yield from self._claims(world, place, process, key, take=1)

    def _claims(self, world: World, place: int, process: Process, key: int, *, take: int) -> Iterator[Step]:
        """Claim one; or what waits is parked, and of the rest there is room for any number."""
        yield from self._claim(world, place, process, key, take=take)
        if self.may(world, "park"):
            for room in (0, 1):
                yield from self._claim(self.spend(world, "park"), place, process, key, take=take, room=room)

    def _audit(self, world: World, place: int, process: Process) -> Iterator[Step]:
        for key in world.store.taken[process.me] if self.on(Rule.AUDIT) else ():
            if process.hand[key] is None:
                yield Step(f"P{place} finds {key} in its list", hold(world, place, {key: Held(TAKEN)}))

    def _claim(
        self, world: World, place: int, process: Process, key: int, *, take: int, room: int | None = None
    ) -> Iterator[Step]:
        """Claim one; what asks again for a lost answer names the same number."""
        me, held = process.me, process.hand[key]
        number = held.number if held and held.number else process.number + 1
        alone = held is not None and held.how == SUSPECT
        settled = not self.rules.weak_disk

        def heard(behind: World, said: Sequence[Any]) -> World:
            if said == ("fenced",):
                return put_process(behind, place, process._replace(stalled=True))
            unnamed, answer = said
            keep: dict[int, Held | None] = {other: Held(TAKEN) for other in unnamed if process.hand[other] is None}
            keep[key] = None
            if answer == "run":
                how = CLAIMED if self.rules.once[key] else RUNS
                keep[key] = Held(how, number, settled=settled, alone=alone)
            elif answer == "suspect":
                keep[key] = Held(SUSPECT)
            rests = process.rests or answer == "paused"
            claimer = process._replace(number=max(number, process.number), rests=rests)
            return hold(put_process(behind, place, claimer), place, keep)

        numbered = put_process(world, place, process._replace(number=max(number, process.number)))
        lost = [hold(numbered, place, {key: None})]
        if not take:
            lost.append(hold(numbered, place, {key: Held(held.how if held else TAKEN, number)}))
        claims = ((key, number),)
        says = f"P{place} {'takes one and ' if take else ''}claims {key}{'' if room is None else f', room {room}'}"
        yield from self.ask(world, says, heard, "claim", me, claims, alone, take, room, lost=lost)

    def _drive(self, world: World, place: int, process: Process, key: int, held: Held) -> Iterator[Step]:
        hand, token = process.hand, (process.me, held.number)
        claimed = any(one and one.how not in (TAKEN, SUSPECT) for one in hand)
        if process.mode == UP and (held.how == TAKEN or (held.how == SUSPECT and not claimed)):
            claims = self._claims if held.how == TAKEN else self._claim
            yield from claims(world, place, process, key, take=0)
        elif held.how == CLAIMED and process.mode == UP:
            yield from self._begin(world, place, process, key, held)
        elif held.how == BEGUN:
            starts = put(world.starts, key, world.starts[key] + 1)
            running = hold(world, place, {key: held._replace(how=RUNS)})._replace(starts=starts)
            yield Step(f"P{place} starts the handler of {key}", running)
            yield from self._refuse(world, place, key, held)
        elif held.how == RUNS:
            yield from self._handle(world, place, key, held)
            if not self.rules.once[key]:
                yield from self._refuse(world, place, key, held)
        elif held.how == ENDED:
            yield from self._report(world, place, key, token, held)
        elif held.how == BACK:
            gone = hold(world, place, {key: None})
            says = f"P{place} puts off {key}"
            yield from self.ask(
                world, says, lambda behind, _: gone._replace(store=behind.store), "put_off", key, token, lost=[world]
            )

    def _begin(self, world: World, place: int, process: Process, key: int, held: Held) -> Iterator[Step]:
        waits = self.on(Rule.BEGIN_ON_DISK) and not held.settled
        if waits:
            # The disk is waited for on whatever server there is then: it says nothing of a claim that another had.
            if self.lasts(world):
                yield Step(
                    f"P{place} knows its claim of {key} to be on disk", hold(world, place, {key: _settled(held)})
                )
            return
        if self.on(Rule.BEGIN_IN_TURN) and any(one and one.how == BEGUN for one in process.hand):
            return
        me = process.me

        def heard(behind: World, said: str) -> World:
            if said == "begun":
                return hold(behind, place, {key: held._replace(how=BEGUN)})
            if said == "fenced":
                return put_process(behind, place, process._replace(stalled=True))
            if said == "paused":
                waiting = [other for other, one in enumerate(process.hand) if one and one.how == CLAIMED]
                return hold(behind, place, {other: _as(process.hand[other], PAUSED) for other in waiting})
            return hold(behind, place, {key: None})

        lost = [hold(world, place, {key: None})]
        yield from self.ask(world, f"P{place} has {key} begin", heard, "begin", me, key, (me, held.number), lost=lost)

    def _put_back(self, world: World, place: int, process: Process) -> Iterator[Step]:
        """Give back all that has not begun: its queue stands still. The oldest last: it is taken first again."""
        waiting = {key: held.number for key, held in enumerate(process.hand) if held and held.how == PAUSED}
        if waiting:
            returned = tuple(
                (key, (process.me, waiting[key]), False) for key in sorted(waiting, key=lambda one: -waiting[one])
            )

            def heard(behind: World, _: int) -> World:
                return hold(behind, place, dict.fromkeys(waiting, None))

            lost = [hold(world, place, dict.fromkeys(waiting, None))]
            yield from self.ask(world, f"P{place} puts back", heard, "give_back", process.me, returned, lost=lost)

    def _refuse(self, world: World, place: int, key: int, held: Held) -> Iterator[Step]:
        if self.may(world, "refuse"):
            after = self.spend(hold(world, place, {key: held._replace(how=BACK)}), "refuse")
            yield Step(f"P{place} can't run {key}", after, fault=True)
            held_aside = hold(world, place, {key: held._replace(how=ENDED, outcome="schema")})
            yield Step(f"P{place} has another schema than {key}", self.spend(held_aside, "refuse"), fault=True)

    def _handle(self, world: World, place: int, key: int, held: Held) -> Iterator[Step]:
        if key in self.rules.poison:
            dead = world.processes[place]._replace(mode=DEAD, hand=(None,) * len(self.keys))
            yield Step(f"{key} kills P{place}", put_process(world, place, dead))
            return
        outcomes = ["ok", *(one for one in ("retry", "silent") if self.may(world, one))]
        outcomes += ["cancelled"] if world.store.tasks[key].stop else []
        for outcome in outcomes:
            after = hold(world, place, {key: held._replace(how=ENDED, outcome=outcome)})
            fault = outcome in ("retry", "silent")
            spent = self.spend(after, outcome) if fault else after
            yield Step(f"P{place}'s handler of {key} ends: {outcome}", spent, fault=fault)

    def _report(self, world: World, place: int, key: int, token: Token, held: Held) -> Iterator[Step]:
        def heard(behind: World, _: str) -> World:
            if not self.answers(world, behind):
                return behind
            return hold(behind, place, {key: None})

        yield from self.ask(world, f"P{place} reports {key}", heard, "complete", key, token, held.outcome, lost=[world])

    def _end(self, world: World, place: int, process: Process) -> Iterator[Step]:
        me, store = process.me, world.store
        if process.mode == ENDING:
            yield Step(f"P{place} ends its handlers", put_process(world, place, process._replace(mode=GIVING)))
            return
        if store.taken[me]:
            returned = tuple((key, *_returned(me, process.hand[key])) for key in store.taken[me])

            # It knows until its end what had started: what it gave back may be in its list again.
            yield from self.ask(
                world, f"P{place} gives back", lambda behind, _: behind, "give_back", me, returned, lost=[world]
            )
            return

        def left(behind: World, said: int) -> World:
            dead = process._replace(mode=DEAD, hand=(None,) * len(self.keys), stalled=False)
            return put_process(behind, place, dead) if said else behind

        yield from self.ask(world, f"P{place} leaves", left, "leave", me, lost=[left(world, 1)])


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


def _has_part(store: Store, me: int) -> bool:
    owns = any(task.token and task.token[0] == me for task in store.tasks)
    return owns or bool(store.taken[me]) or store.leases[me] not in (NO_LEASE, REAPED)
