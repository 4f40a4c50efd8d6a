"""What must hold in every world, and what it is that all has ended."""

from __future__ import annotations

from model.game import Game
from model.rules import Rule
from model.store import ARRIVED, MOVED, NO_LEASE, NONE, OTHER
from model.world import DEAD, World
from poste.domain.policy import SUSPECT_AFTER


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
    there = world.store.there[key]
    if task.state == MOVED and not task.was and there.state in (NONE, OTHER):
        return "a call was accepted, and there is no record"
    if task.open and there.state == "Q":
        return "an open task stands in two places"
    return _misplaced(game, world, key) if task.open else None


def _unkept(game: Game, world: World, key: int) -> str | None:
    ends, starts, told = world.store.tasks[key].ends, world.starts[key], world.told[key]
    if key in world.ordered and world.store.tasks[key].state == "D" and "r" not in ends:
        return "a dead letter of which its operator was told that it runs again is as it was"
    if sum(letter in "SF" for letter in ends) > 1:
        return "a task has two results"
    if game.rules.once[key] and starts > 1:
        return "what must not run twice runs twice"
    if game.rules.once[key] and starts > 0 and (ends[-1:] in ("c", "e") or (told and told[0] in "ce")):
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
    waits = store.ready.count(key) + store.lane.count(key) + (key in store.delayed | store.scheduled)
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
    nothing_open = not any(task.open or task.was or task.state == NONE for task in store.tasks)
    nothing_open = nothing_open and not any(there.state == "Q" or there.mark == ARRIVED for there in store.there)
    waits = store.delayed | store.scheduled
    return nothing_open and not (store.ready or store.lane or any(store.taken) or waits or world.late)
