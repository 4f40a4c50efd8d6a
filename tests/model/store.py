"""What stands in Redis, as far as the promises depend on it."""

from __future__ import annotations

from typing import NamedTuple

#: An incarnation and the number of its claim.
Token = tuple[int, int]
#: States that are in no record: it was never accepted; its record's time is over, or an operator dropped it.
NONE, GONE = "-", "X"
#: It goes to another queue, or went there.
MOVED = "M"
#: In the other queue another call, which has the task's idempotency key, has the record.
OTHER = "O"
#: What the other queue has noted: nothing yet; that it arrived; that this is to be forgotten soon; it is forgotten.
NOT_ARRIVED, ARRIVED, SETTLED, FORGOTTEN = range(4)
#: Who would know if a claimed task had begun: whatever server there is.
EVERY_RUN = 0
#: A lease: there is none; it holds; it is over; its owner was reaped, or left.
NO_LEASE, HOLDS, OVER, REAPED = range(4)


class Task(NamedTuple):
    """One task's record. `known_by` is the field h: None if it has begun, or may run twice."""

    state: str = NONE
    token: Token | None = None
    known_by: int | None = None
    stop: bool = False
    overdue: bool = False
    #: Its client wants it not to run yet.
    early: bool = False
    failures: int = 0
    alone: int = 0
    company: int = 0
    reason: str = ""
    purged: bool = False
    #: The state that it had before it was to go to another queue, for as long as its record is whole.
    was: str = ""
    #: How it ended, each time: a replay (r) lies between, or something is broken. A small letter if it was
    #: reported as never begun.
    ends: str = ""

    @property
    def open(self) -> bool:
        return self.state in ("Q", "R")

    @property
    def final(self) -> bool:
        return self.state in ("S", "F", "C", "E", "D")


class There(NamedTuple):
    """A task in the other queue: the state of its record, and what is noted of its arrival (`Rule.MOVE_MARK`)."""

    state: str = NONE
    mark: int = NOT_ARRIVED


class Store(NamedTuple):
    """One queue, and what came from it to another. Lists have their front at the end, as Redis has it at the right."""

    tasks: tuple[Task, ...]
    ready: tuple[int, ...]
    delayed: frozenset[int]
    scheduled: frozenset[int]
    leases: tuple[int, ...]
    taken: tuple[tuple[int, ...], ...]
    #: What waits apart, for its method's turn: all are of one method here.
    lane: tuple[int, ...] = ()
    paused: bool = False
    #: Which run of the server this is.
    run: int = 1
    #: The other queue, which is on another server.
    there: tuple[There, ...] = ()


def empty(tasks: int, incarnations: int) -> Store:
    lists: tuple[tuple[int, ...], ...] = ((),) * incarnations
    return Store(
        (Task(),) * tasks, (), frozenset(), frozenset(), (NO_LEASE,) * incarnations, lists, there=(There(),) * tasks
    )


class Draft:
    """A store that a step changes."""

    def __init__(self, store: Store) -> None:
        self.tasks = list(store.tasks)
        self.ready = list(store.ready)
        self.delayed, self.scheduled = set(store.delayed), set(store.scheduled)
        self.leases = list(store.leases)
        self.taken = [list(listed) for listed in store.taken]
        self.lane = list(store.lane)
        self.paused = store.paused
        self.run = store.run
        self.there = list(store.there)
        #: What must never be, and was done.
        self.broken: list[str] = []

    def store(self) -> Store:
        return Store(
            tuple(self.tasks),
            tuple(self.ready),
            frozenset(self.delayed),
            frozenset(self.scheduled),
            tuple(self.leases),
            tuple(map(tuple, self.taken)),
            tuple(self.lane),
            self.paused,
            self.run,
            tuple(self.there),
        )

    def set(self, key: int, **changes: object) -> None:
        self.tasks[key] = self.tasks[key]._replace(**changes)  # type: ignore[arg-type]

    def end(self, key: int, state: str, reason: str = "", *, unbegun: bool = False) -> None:
        task = self.tasks[key]
        if task.ends and task.ends[-1] != "r":
            self.broken.append("a final state is left for another")
        letter = state.lower() if unbegun else state
        self.set(key, state=state, reason=reason, known_by=None, ends=task.ends + letter)

    def drop(self, incarnation: int, key: int) -> bool:
        """LREM: from the right, one."""
        listed = self.taken[incarnation]
        for place in reversed(range(len(listed))):
            if listed[place] == key:
                del listed[place]
                return True
        return False
