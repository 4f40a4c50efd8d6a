"""What the queue should do, in plain Python: the small model that the real one is compared with, step by step.

Written from the rules, not from the scripts. Time is two flags: a task is overdue, a lease is over. A list has its
front at the end, as Redis has it at the right.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MAX_WAITING = 5
MAX_BYTES = 12
MAX_FAILURES = 3
#: Of them, those that the model does not expect.
MAX_DEFECTS = 2
MAX_CRASHES = 3
#: So many crashes in company make a task one that runs alone.
SUSPECT_AFTER = 2
#: As good as none, in bytes.
NO_BUDGET = 1 << 40
#: How much of the queue's front a claim returns.
FRONT = 2

#: A task's key, and the number under which it is claimed.
Claim = tuple[str, int]
#: A task's key, its token if its claim's answer came ('' if not), and whether its handler had started.
Returned = tuple[str, str, bool]


@dataclass
class Claimed:
    """What a claim says: of each key, what it took and was not named, and what stands at the queue's front."""

    answers: list[str]
    unnamed: list[str] = field(default_factory=list)
    front: list[str] = field(default_factory=list)


@dataclass
class Task:
    """One accepted call."""

    repeatable: bool
    size: int
    state: str = "Q"
    token: str | None = None
    attempts: int = 0
    failures: int = 0
    defects: int = 0
    crashes_alone: int = 0
    crashes_in_company: int = 0
    #: It is claimed, must not run twice, and has not begun.
    waits_in_hand: bool = False
    stop: bool = False
    overdue: bool = False
    reason: str | None = None
    response: bytes | None = None
    purged: bool = False
    replayed: bool = False

    @property
    def final(self) -> bool:
        return self.state not in "QR"

    def end(self, state: str, reason: str | None = None) -> None:
        self.state, self.reason = state, reason

    def unclaim(self) -> None:
        self.state, self.token, self.attempts, self.waits_in_hand = "Q", None, self.attempts - 1, False

    def be_over(self) -> None:
        """It waited for too long: for its service, unless its handler failed until now."""
        self.end(*(("D", "attempts") if self.failures else ("E",)))


@dataclass
class Report:
    """What one pass did."""

    reaped: Counter[str] = field(default_factory=Counter)
    woken: int = 0


class QueueModel:
    """One queue."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.ready: list[str] = []
        #: Whether each retry is due.
        self.delayed: dict[str, bool] = {}
        self.taken: defaultdict[str, list[str]] = defaultdict(list)
        #: Whether each lease is over.
        self.leases: dict[str, bool] = {}
        self.reaped: set[str] = set()
        self.paused = False
        #: What ended takes so many bytes, and may take so many.
        self.ended_bytes, self.budget = 0, NO_BUDGET

    @property
    def stands_still(self) -> bool:
        return self.paused or self.ended_bytes >= self.budget

    def waiting(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.state == "Q"]

    def open(self) -> list[str]:
        return [key for key, task in self.tasks.items() if not task.final]

    def dead(self) -> list[str]:
        return [key for key, task in self.tasks.items() if task.state == "D" and not task.purged]

    def replayable(self) -> list[str]:
        return [*self.dead(), *(key for key, task in self.tasks.items() if task.state == "F")]

    # -- the middleware

    def enqueue(self, key: str, *, repeatable: bool, size: int, late: bool) -> str:
        if key in self.tasks:
            return "accepted"
        if late:
            return "clock"
        waiting = self.waiting()
        if len(waiting) >= MAX_WAITING or sum(task.size for task in waiting) + size > MAX_BYTES:
            return "full"
        if self.ended_bytes >= self.budget:
            return "spent"
        self.tasks[key] = Task(repeatable, size)
        self.ready.insert(0, key)
        return "accepted"

    def settle(self, key: str) -> None:
        """A read of a waiting task that is overdue ends it."""
        task = self.tasks.get(key)
        if task and task.waits_in_hand and task.overdue:
            task.unclaim()
        if task and task.state == "Q" and task.overdue:
            task.be_over()
            self.delayed.pop(key, None)

    def cancel(self, key: str) -> None:
        self.settle(key)
        task = self.tasks.get(key)
        if task and task.waits_in_hand:
            task.unclaim()
        if task and task.state == "Q":
            task.end("C")
            self.delayed.pop(key, None)
        elif task and task.state == "R":
            task.stop = True

    def complete(self, key: str, token: str, ending: str, response: bytes) -> str:
        task = self.tasks.get(key)
        owner = _owner(token)
        if task is None or task.final:
            self._drop(owner, key)
            return "replayed" if task and task.token == token else "refused"
        if task.state != "R" or task.token != token:
            return "refused"
        self._drop(owner, key)
        if ending == "ok":
            task.end("S")
            task.response = response
            return "succeeded"
        if ending == "cancelled":
            task.end("C")
            return "cancelled"
        return self._fail(key, task, ending)

    def _fail(self, key: str, task: Task, ending: str) -> str:
        if ending == "schema":
            task.attempts -= 1
            task.end(*(("C",) if task.stop else ("D", "schema-changed")))
            return "cancelled" if task.stop else "dead"
        if ending in ("silent", "overdue") and not task.repeatable:
            task.end("D", "outcome-unknown")
            return "dead"
        if ending == "final" or not task.repeatable:
            task.end("F")
            return "failed"
        if task.stop:
            task.end("C")
            return "cancelled"
        task.failures += 1
        task.defects += ending in ("defect", "overdue")
        if task.failures == MAX_FAILURES or task.defects == MAX_DEFECTS or task.overdue:
            task.end("D", "attempts")
            return "dead"
        task.state, task.token = "Q", None
        self.delayed[key] = False
        return "retried"

    # -- a consumer

    def join(self, name: str) -> None:
        self.leases[name] = False

    def renew(self, name: str) -> int:
        if name not in self.leases:
            return 0
        self.leases[name] = False
        return 1

    def take(self, name: str, count: int) -> list[str]:
        keys = [self.ready.pop() for _ in range(min(count, len(self.ready)))]
        for key in keys:
            self.taken[name].insert(0, key)
        return keys

    def claim(self, name: str, claims: Sequence[Claim], *, alone: bool, take: int = 0) -> Claimed:
        if name not in self.leases:
            return Claimed(["fenced"])
        taken = self.take(name, take)
        unnamed = [key for key in taken if key not in [named for named, _ in claims]]
        front = self.ready[-FRONT:]
        answers = [self._claim(name, key, number, alone=alone) for key, number in claims]
        paused = [key for (key, _), answer in zip(claims, answers, strict=True) if answer == "paused"]
        self.ready += reversed(paused)
        return Claimed(answers, unnamed, front)

    def _claim(self, name: str, key: str, number: int, *, alone: bool) -> str:
        if key not in self.taken[name]:
            return "drop"
        task, token = self.tasks.get(key), f"{name}:{number}"
        if task and task.state == "R":
            return self._claim_running(name, key, task, number)
        if task and task.state == "Q" and task.overdue:
            task.be_over()
        if task is None or task.final:
            self._drop(name, key)
            return "drop"
        if self.stands_still:
            self._drop(name, key)
            return "paused"
        if task.crashes_in_company >= SUSPECT_AFTER and not alone:
            return "suspect"
        task.state, task.token, task.attempts = "R", token, task.attempts + 1
        task.waits_in_hand = not task.repeatable
        return "run"

    def _claim_running(self, name: str, key: str, task: Task, number: int) -> str:
        token = f"{name}:{number}"
        mine = _owner(task.token) == name
        if mine and _number(task.token) > number:
            return "drop"
        if task.token == token:
            return "run"
        if task.stop or not (mine or task.repeatable or task.waits_in_hand):
            self._drop(name, key)
            task.end(*(("C",) if task.stop else ("D", "outcome-unknown")))
            return "drop"
        # If it is noted as begun, its owner knows better: it did not hear that it may.
        task.token, task.waits_in_hand = token, not task.repeatable
        return "run"

    def begin(self, name: str, key: str, token: str) -> str:
        """What must not run twice is about to start."""
        if name not in self.leases:
            return "fenced"
        task = self.tasks.get(key)
        if task is None or task.state != "R" or task.token != token:
            if task is None or task.final:
                self._drop(name, key)
            return "drop"
        if not task.waits_in_hand:
            return "begun"
        if task.overdue:
            self._drop(name, key)
            task.unclaim()
            task.be_over()
            return "drop"
        if self.stands_still:
            return "paused"
        task.waits_in_hand = False
        return "begun"

    def give_back(self, name: str, returned: Iterable[Returned]) -> int:
        back = 0
        for key, token, started in returned:
            if key not in self.taken[name]:
                continue
            self._drop(name, key)
            task = self.tasks.get(key)
            if task is None or task.final:
                continue
            if task.state == "R":
                if task.stop:
                    task.end("C")
                    continue
                if not task.repeatable and started and task.token == token:
                    task.end("D", "outcome-unknown")
                    continue
                task.attempts -= 1
            self._requeue(key, task)
            back += 1
        return back

    def put_off(self, name: str, key: str, token: str) -> int:
        """What was claimed under this token and not run waits a while."""
        task = self.tasks.get(key)
        if task is None or task.final:
            self._drop(name, key)
            return 0
        if task.state != "R" or task.token != token:
            return 0
        self._drop(name, key)
        if task.stop:
            task.end("C")
            return 0
        task.unclaim()
        # What is overdue waits no longer: it is settled.
        self.delayed[key] = task.overdue
        return 1

    def leave(self, name: str) -> int:
        if self.taken[name]:
            return 0
        self.leases.pop(name, None)
        self.reaped.add(name)
        return 1

    # -- the passes

    def look_after(self, reaped: Iterable[str]) -> Report:
        """Make one pass; `reaped` in the order in which they are swept."""
        report = Report()
        over = sorted(name for name, is_over in self.leases.items() if is_over)
        for name in (*over, *reaped):
            report.reaped.update(self.reap(name, list(self.taken[name])))
        for key in sorted(key for key, due in self.delayed.items() if due):
            del self.delayed[key]
            self.ready.append(key)
            report.woken += 1
        for key in list(self.ready):
            task = self.tasks.get(key)
            if task and task.state == "Q" and task.overdue:
                task.be_over()
            if task is None or task.final:
                self.ready.remove(key)
        return report

    def reap(self, name: str, keys: Sequence[str]) -> list[str]:
        if self.leases.get(name) is False:
            return []
        self.leases.pop(name, None)
        self.reaped.add(name)
        ran = [key for key in keys if self._ran_under(key, name)]
        alone = len(ran) == 1 and len(self.taken[name]) == len(keys)
        return [self._reap(name, key, alone=alone) for key in keys]

    def _ran_under(self, key: str, name: str) -> bool:
        task = self.tasks.get(key)
        ran = task is not None and task.state == "R" and not task.waits_in_hand
        return task is not None and ran and _owner(task.token) == name

    def _reap(self, name: str, key: str, *, alone: bool) -> str:
        if key not in self.taken[name]:
            return "gone"
        self._drop(name, key)
        task = self.tasks.get(key)
        if task is None or task.final:
            return "dropped"
        if task.state == "R" and task.stop:
            task.end("C")
            return "cancelled"
        if task.waits_in_hand:
            task.unclaim()
        if task.state == "R" and not task.repeatable:
            task.end("D", "outcome-unknown")
            return "dead"
        crashed = self._ran_under(key, name)
        if crashed:
            task.crashes_alone += alone
            task.crashes_in_company += not alone
            if alone and task.crashes_alone >= MAX_CRASHES:
                task.end("D", "crashes")
                return "dead"
        self._requeue(key, task)
        return "crashed" if crashed else "requeued"

    # -- operators

    def replay(self, key: str) -> str:
        task = self.tasks.get(key)
        if task is None or task.purged:
            return "gone"
        if task.state not in "DF":
            return "ended" if task.final else "done" if task.replayed else "open"
        if task.reason == "crashes":
            task.crashes_in_company = SUSPECT_AFTER
        task.state, task.token, task.reason, task.replayed = "Q", None, None, True
        task.failures = task.defects = task.crashes_alone = 0
        task.stop = task.overdue = False
        self.ready.insert(0, key)
        return "done"

    def purge(self, key: str) -> str:
        task = self.tasks.get(key)
        if task is None:
            return "gone"
        if task.state != "D":
            return "ended"
        if not task.purged:
            task.purged, task.size, task.crashes_in_company = True, 0, 0
        return "done"

    # -- what they share

    def _drop(self, name: str, key: str) -> None:
        if key in self.taken[name]:
            self.taken[name].remove(key)

    def _requeue(self, key: str, task: Task) -> None:
        task.state, task.token, task.waits_in_hand = "Q", None, False
        self.ready.append(key)


def _owner(token: str | None) -> str:
    return (token or "").rpartition(":")[0]


def _number(token: str | None) -> int:
    return int((token or "").rpartition(":")[2])
