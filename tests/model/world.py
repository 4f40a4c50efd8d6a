"""What there is at a moment (processes, Redis, what clients know), a step from there, and what is explored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from model.rules import Rule
from model.store import Store, Token

#: A process' modes: up, stopped by a signal, finishing what runs, giving back, dead.
UP, FROZEN, ENDING, GIVING, DEAD = "up", "frozen", "ending", "giving", "dead"
#: What a process knows of a task: taken and to be claimed; the same, alone; claimed, and to begin; the same, but its
#: queue stands still, so it goes back; asked to begin, its handler not started; its handler runs; it ended, and its
#: report is not answered; it did not run, and is put off.
TAKEN, SUSPECT, CLAIMED, PAUSED, BEGUN, RUNS = "taken", "suspect", "claimed", "paused", "begun", "runs"
ENDED, BACK = "ended", "back"
#: That a queue is paused, in the place of a key.
PAUSE = -1


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
    #: Whether it still talks to the master that was replaced.
    old: bool = False


class World(NamedTuple):
    """All there is.

    Attributes:
        store: What Redis has; of two masters the one that stays.
        late: Commands under way that run once more: a script's name and its arguments.
        starts: How often each task's handler was started, if it must not run twice.
        accepted: Which calls were answered 202.
        told: The final state of each task that its client has read, with the token of the run whose result it is.
        ordered: What an operator was told to be done: the queue is paused (`PAUSE`), a task is replayed (its key).
        disk: What a Redis that dies now comes back with, if that is less than there is.
        old: What a master has that was replaced and lives on; it is thrown away in the end.
        cut: This is the world as those see it who still talk to that master: `store` is what it has.
    """

    store: Store
    processes: tuple[Process, ...]
    late: tuple[tuple[str, tuple[Any, ...]], ...]
    budget: tuple[int, ...]
    starts: tuple[int, ...]
    accepted: tuple[bool, ...]
    told: tuple[tuple[str, Token | None] | None, ...]
    disk: Store | None = None
    old: Store | None = None
    cut: bool = False
    ordered: frozenset[int] = frozenset()


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
        later: Tasks that are not to run yet when they come.
        off: The rules that are switched off.
        weak_disk: Redis answers before it has written to disk; what is acted upon is waited for.
        replica: Redis has a replica that takes over without its last writes. Nothing is waited for until the replica
            has it, but with `weak_disk` too: then all that would be waited for on a disk is.
        second: There is another replica, which goes on following a master that was replaced.
        reads: Clients read how their tasks ended, and operators rely on what they were told.
        incarnations: How many names there are; those of which nothing is left are given out again.
    """

    once: tuple[bool, ...]
    processes: int
    budget: Mapping[str, int]
    poison: frozenset[int] = frozenset()
    later: frozenset[int] = frozenset()
    off: frozenset[Rule] = frozenset()
    weak_disk: bool = False
    replica: bool = False
    second: bool = False
    reads: bool = False
    max_failures: int = 2
    max_crashes: int = 2
    incarnations: int = 4


def put(values: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*values[:place], value, *values[place + 1 :])


def put_process(world: World, place: int, process: Process) -> World:
    return world._replace(processes=put(world.processes, place, process))


def hold(world: World, place: int, changes: Mapping[int, Held | None]) -> World:
    process = world.processes[place]
    hand = tuple(changes.get(key, held) for key, held in enumerate(process.hand))
    return put_process(world, place, process._replace(hand=hand))
