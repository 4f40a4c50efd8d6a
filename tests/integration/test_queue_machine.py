"""The real queue against a small model, in any order of commands: late ones, repeated ones, those of the dead.

Hypothesis plays clients, consumers, the middleware, operators and their deaths, and shrinks what goes wrong to the few
steps that it takes. A command whose answer is not heard was executed, and may be executed again at any later time. To
look further than a test may take: `POSTE_X_EXAMPLES=20000 nox -s tests -- tests/integration/test_queue_machine.py`.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from support import queue_model
from support.client_account import ANN, Account
from support.driven_queue import QUEUE, DrivenQueue, Seen
from support.queue_model import FRONT, Claim, QueueModel, Returned
from support.redis_server import running

from poste.domain.task import TaskState
from poste.queue.connection import texts
from poste.queue.record import RECORD_BYTES
from poste.queue.steps.maintenance import Budget
from poste.queue.steps.task import Ending, Report

T = TypeVar("T")

EXAMPLES: Final = "POSTE_X_EXAMPLES"
KEYS: Final = [f"t{number:015}" for number in range(8)]
#: Those that a client with a quota enqueues.
COUNTED: Final = frozenset(KEYS[::2])
#: How many processes may be alive at once, and how many there may be in all.
LIVING: Final = 2
#: How many tasks are open for most of the time.
OPEN: Final = 4
MAX_PROCESSES: Final = 12
#: How long one step may take.
DEADLINE_SECONDS: Final = 30.0
#: Claims are numbered from here on; two figures come soon, and are to be compared as numbers.
FIRST_NUMBER: Final = 8
ENDS: Final = ("succeeded", "failed", "cancelled", "dead")


@dataclass(eq=False)
class ClaimCommand:
    """A claim as it was sent."""

    name: str
    claims: list[Claim]
    alone: bool
    take: int = 0
    on_disk: bool = True
    heard: bool = False


@dataclass
class Process:
    """A consumer's process, as far as it knows itself."""

    name: str
    alive: bool = True
    stopping: bool = False
    number: int = FIRST_NUMBER
    last_claim: ClaimCommand | None = None
    #: The tokens of the handlers that it started and whose reports were not answered yet.
    started: dict[str, str] = field(default_factory=dict)
    #: The tokens of what it claimed and must not run twice, until it begins.
    to_begin: dict[str, str] = field(default_factory=dict)

    @property
    def hand(self) -> dict[str, str]:
        return self.started | self.to_begin

    def die(self) -> None:
        self.alive = False
        self.started.clear()
        self.to_begin.clear()


class QueueMachine(RuleBasedStateMachine):
    """Every step that a client, a consumer or a pass can take, each on the real queue and on the model."""

    def __init__(self, runner: asyncio.Runner, queue: DrivenQueue) -> None:
        super().__init__()
        self.runner, self.queue, self.model = runner, queue, QueueModel()
        self.draw: Any = None
        self.processes: dict[str, Process] = {}
        #: What was sent, and may be executed again.
        self.claims: list[ClaimCommand] = []
        self.begins: list[tuple[str, str, str]] = []
        self.reports: list[Report] = []
        self.returns: list[tuple[str, list[Returned]]] = []
        self.put_offs: list[tuple[str, str, str]] = []
        #: Ids whose record's time is over: they are too old to be enqueued.
        self.forgotten: set[str] = set()
        #: How often a handler was started, how often a task ended, and how: since an operator had it run again, if so.
        self.starts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.finals: dict[str, Any] = {}
        #: What is still counted as kept though its time is over: how many, and their bytes.
        self.outdated = (0, 0)
        self.sound = True
        self.do(queue.clear())
        self.join()
        self.join()
        self.look_after()
        for number, key in enumerate(KEYS[:3]):
            self._enqueue(key, repeatable=key != KEYS[1], size=number, late=False)

    def do(self, step: Coroutine[Any, Any, T]) -> T:
        try:
            return self.runner.run(asyncio.wait_for(step, DEADLINE_SECONDS))
        except BaseException:
            self.sound = False
            raise

    def agree(self, expected: object, actual: object) -> None:
        self.sound = self.sound and expected == actual
        assert expected == actual

    def hold(self, truth: bool, what: str) -> None:
        self.sound = self.sound and truth
        assert truth, what

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """Take one step of any kind. One rule for all: given many, hypothesis leaves most of them out of a run."""
        self.draw = data.draw
        action = self.draw(st.sampled_from(self._possible()), label="step")
        getattr(self, action)()

    def _possible(self) -> list[str]:
        """What can happen now; what drives tasks forward more often than what disturbs them."""
        model, living, processes = self.model, self.living(), self.processes
        weights = {
            self.report: 5 if self._reportable() else 0,
            self.begin: 6 if self._to_begin() else 0,
            self.claim: 6 if self._claimable() else 0,
            self.take: 3 if living and model.ready else 0,
            self.claim_front: 4 if living and model.ready else 0,
            self.look_after: 2,
            self.replay: 2 if model.replayable() else 0,
            self.enqueue: 3 if len(model.open()) < OPEN else 1,
            self.join: 5 if len(living) < LIVING and len(processes) < MAX_PROCESSES else 0,
            self.end_wait: 2 if False in model.delayed.values() else 0,
            self.claim_again: 2 if self.claims else 0,
            self.begin_again: 1 if self.begins else 0,
            self.report_again: 1 if self.reports else 0,
            self.give_back_again: 1 if self.returns else 0,
            self.put_off: 1 if self._unreported() else 0,
            self.put_off_again: 1 if self.put_offs else 0,
            self.die: 2 if living else 0,
            self.end_lease: 2 if False in model.leases.values() else 0,
            self.stop: 2 if self._alive() else 0,
            self.take_late: 1 if model.ready else 0,
            self.reap_late: 1,
            self.cancel: 2 if model.open() else 0,
            self.become_overdue: 1 if model.open() else 0,
            self.renew: 1 if living else 0,
            self.reap_orphans: 1 if model.reaped else 0,
            self.report_a_lie: 1 if self._running() else 0,
            self.read: 1,
            self.be_away: 1,
            self.pause: 1,
            self.change_budget: 1,
            self.forget: 1 if self._ended() else 0,
            self.purge: 1 if model.dead() else 0,
            self.purge_ended: 1 if self._ended() else 0,
        }
        return [action.__name__ for action, weight in weights.items() for _ in range(weight)]

    def _any(self, options: Iterable[T]) -> T:
        return self.draw(st.sampled_from(list(options)))

    def _odd(self) -> bool:
        """Decide on what happens now and then."""
        return self.draw(st.integers(0, 2)) == 2

    # -- clients

    def enqueue(self) -> None:
        """A call is sent, or sent again; one that was long under way is too old."""
        late = self._odd()
        fresh = [key for key in KEYS if key not in self.model.tasks and key not in self.forgotten]
        key = self._any(KEYS if late or not fresh else fresh)
        late = late or key in self.forgotten
        self._enqueue(key, repeatable=self.draw(st.booleans()), size=self.draw(st.integers(0, 4)), late=late)

    def _enqueue(self, key: str, *, repeatable: bool, size: int, late: bool) -> None:
        said = self.do(
            self.queue.enqueue(key, repeatable=repeatable, size=size, late=late, quota=ANN if key in COUNTED else None)
        )
        self.agree(self.model.enqueue(key, repeatable=repeatable, size=size, late=late), said)

    def read(self) -> None:
        self._read(self._any(KEYS))

    def _read(self, key: str) -> None:
        self.model.settle(key)
        self._compare(key, self.do(self.queue.tasks.read(QUEUE, key)).record)

    def cancel(self) -> None:
        key = self._any(KEYS if self._odd() else self.model.open())
        self.model.cancel(key)
        self._compare(key, self.do(self.queue.tasks.cancel(QUEUE, key)).record)

    def _compare(self, key: str, record: Any) -> None:
        """Compare what a client is told."""
        task = self.model.tasks.get(key)
        self.agree(task is None, record is None)
        if task is not None:
            # What has not begun waits, whichever process has claimed it.
            state, attempts = ("Q", task.attempts - 1) if task.waits_in_hand else (task.state, task.attempts)
            self.agree(TaskState(state), record.state)
            self.agree((attempts, task.response), (record.attempt, record.response))
            self.agree(task.stop and not task.final, record.cancel_requested)
            self.agree(task.reason, record.dead_reason and record.dead_reason.value)

    # -- consumers

    def join(self) -> None:
        name = f"w{len(self.processes)}"
        self.do(self.queue.join(name))
        self.model.join(name)
        self.processes[name] = Process(name)

    def take(self) -> None:
        name, count = self._any(self.living()), self.draw(st.integers(1, 3))
        self.agree(self.model.take(name, count), self.do(self.queue.take(name, count)))

    def take_late(self) -> None:
        """A pop that was long under way, of a process that may be dead by now."""
        name = self._any(self.processes)
        at = self.queue.keys
        moved = self.do(self.queue.client.lmove(at.ready, at.taken(name), "RIGHT", "LEFT"))
        self.agree(self.model.take(name, 1), texts([moved]))

    def claim(self) -> None:
        """A process claims what stands in its list and is not in hand."""
        found = self._claimable()
        name = self._any(found)
        some = self.draw(st.lists(st.sampled_from(found[name]), min_size=1, unique=True))
        process = self.processes[name]
        alone = len(some) == 1 and not process.hand and self.draw(st.booleans())
        self._send_claim(process, some, alone=alone, take=0)

    def claim_front(self) -> None:
        """A process takes and claims what it saw at the queue's front; now and then that is long ago."""
        name = self._any(self.living())
        process = self.processes[name]
        seen = KEYS if self._odd() else dict.fromkeys(reversed(self.model.ready))
        if free := [key for key in seen if key not in process.hand]:
            some = self.draw(st.lists(st.sampled_from(free), unique=True)) if self._odd() else free[:FRONT]
            some = some or free[:1]
            self._send_claim(process, some, alone=False, take=self._any([len(some), 1]))

    def _send_claim(self, process: Process, some: list[str], *, alone: bool, take: int) -> None:
        numbers = range(process.number + 1, process.number + 1 + len(some))
        process.number += len(some)
        claims = list(zip(some, numbers, strict=True))
        process.last_claim = ClaimCommand(process.name, claims, alone, take, self.draw(st.booleans()))
        self.claims.append(process.last_claim)
        self._claim(process.last_claim, heard=not self._odd())

    def _claimable(self) -> dict[str, list[str]]:
        found = {}
        for name in self.living():
            if free := [key for key in self.model.taken[name] if key not in self.processes[name].hand]:
                found[name] = free
        return found

    def _claim(self, command: ClaimCommand, *, heard: bool) -> None:
        name, claims, alone = command.name, command.claims, command.alone
        claimed = self.do(self.queue.claim(name, claims, alone=alone, take=command.take, on_disk=command.on_disk))
        self.agree(self.model.claim(name, claims, alone=alone, take=command.take), claimed)
        answers = claimed.answers
        if not heard:
            return
        command.heard = True
        process = self.processes[name]
        if answers == ["fenced"]:
            process.die()
            return
        for (key, number), answer in zip(claims, answers, strict=True):
            if answer == "run" and self.model.tasks[key].repeatable:
                process.started[key] = f"{name}:{number}"
                self.starts[key] += 1
            elif answer == "run":
                process.to_begin[key] = f"{name}:{number}"

    def begin(self) -> None:
        """A process has one begin that must not run twice; if it does not hear that it may, it claims it anew."""
        name, key = self._any(self._to_begin())
        process = self.processes[name]
        token = process.to_begin.pop(key)
        self.begins.append((name, key, token))
        said = self._begin(name, key, token)
        if self._odd():
            return
        if said == "begun":
            process.started[key] = token
            self.starts[key] += 1
            self.hold(self.starts[key] == 1, f"{key} must not run twice, and did")
        elif said == "fenced":
            process.die()

    def _to_begin(self) -> list[tuple[str, str]]:
        return [(name, key) for name in self.living() for key in self.processes[name].to_begin]

    def _begin(self, name: str, key: str, token: str) -> str:
        said = self.do(self.queue.begin(name, key, token))
        self.agree(self.model.begin(name, key, token), said)
        return said

    def report(self) -> None:
        """A handler ends, and its process reports it: the same again until it hears the answer."""
        name, key = self._any(self._reportable())
        process = self.processes[name]
        token = process.started[key]
        report = next((one for one in self.reports if (one.key, one.token) == (key, token)), None)
        if report is None:
            task = self.model.tasks.get(key)
            endings: list[Ending] = [
                "retry",
                "ok",
                "defect",
                "final",
                "silent",
                "overdue",
                "schema",
                *(["cancelled"] if task and task.stop else []),
            ]
            report = Report(key, token, self._any(endings), f"of {token}".encode())
            self.reports.append(report)
        self._complete(report)
        if not self._odd():
            del process.started[key]

    def _reportable(self) -> list[tuple[str, str]]:
        return [(name, key) for name in self.living() for key in self.processes[name].started]

    def _complete(self, report: Report) -> None:
        said = self.do(self.queue.complete(report))
        self.agree(self.model.complete(report.key, report.token, report.ending, report.payload), said)
        if said in ENDS:
            self.ends[report.key] += 1
            self.hold(self.ends[report.key] == 1, f"{report.key} ended twice")

    def put_off(self) -> None:
        """A process can't run what it has claimed, and says so before it has started it."""
        name, key = self._any(self._unreported())
        process = self.processes[name]
        token = process.started.pop(key)
        self.starts[key] -= 1
        self.put_offs.append((name, key, token))
        self._put_off(name, key, token)

    def _unreported(self) -> list[tuple[str, str]]:
        reported = {(report.key, report.token) for report in self.reports}
        return [
            (name, key) for name, key in self._reportable() if (key, self.processes[name].started[key]) not in reported
        ]

    def _put_off(self, name: str, key: str, token: str) -> None:
        self.agree(self.model.put_off(name, key, token), self.do(self.queue.put_off(name, key, token)))

    def renew(self) -> None:
        name = self._any(self.living())
        kept = self.do(self.queue.renew(name))
        self.agree(self.model.renew(name), kept)
        if not kept:
            self.processes[name].die()

    def die(self) -> None:
        """A process is killed; its lease is over, and the next pass sees it at once or later."""
        name = self._any(self.living())
        self.processes[name].die()
        noticed = self.draw(st.booleans())
        if noticed and self.model.leases.get(name) is False:
            self._end_lease(name)
            self.look_after()

    def stop(self) -> None:
        """A process that stops gives back what it has, again if the answer was lost, and leaves."""
        process = self.processes[self._any(self._alive())]
        process.stopping = True
        listed = self.model.taken[process.name]
        part = self._any(["all of it", "the beginning", "the end"])
        if listed and part != "the end":
            returned = [(key, process.hand.get(key, ""), key in process.started) for key in listed]
            self.returns.append((process.name, returned))
            self._give_back(process.name, returned)
        if part != "the beginning":
            left = self.do(self.queue.leave(process.name))
            self.agree(self.model.leave(process.name), left)
            if left:
                process.die()

    def _give_back(self, name: str, returned: list[Returned]) -> None:
        back = self.do(self.queue.give_back(name, returned))
        self.agree(self.model.give_back(name, returned), back)

    def living(self) -> list[str]:
        """The processes that take tasks."""
        return [process.name for process in self.processes.values() if process.alive and not process.stopping]

    def _alive(self) -> list[str]:
        return [process.name for process in self.processes.values() if process.alive]

    # -- what is executed again, or late, or was never right

    def claim_again(self) -> None:
        """Late; or because the process asked again for an answer that it had not heard."""
        command = self._any(reversed(self.claims))
        process = self.processes[command.name]
        awaited = process.alive and not process.stopping and process.last_claim is command and not command.heard
        self._claim(command, heard=awaited and self.draw(st.booleans()))

    def begin_again(self) -> None:
        self._begin(*self._any(reversed(self.begins)))

    def report_again(self) -> None:
        self._complete(self._any(reversed(self.reports)))

    def report_a_lie(self) -> None:
        """A report of what runs, under a token that is not its own."""
        key = self._any(self._running())
        name = self._any(self.processes)
        self._complete(Report(key, f"{name}:{FIRST_NUMBER}", "ok", b"of somebody else"))

    def give_back_again(self) -> None:
        self._give_back(*self._any(reversed(self.returns)))

    def put_off_again(self) -> None:
        self._put_off(*self._any(self.put_offs))

    def reap_late(self) -> None:
        """One step of a pass that was long under way: its list of keys is of another time."""
        name, some = self._any(self.processes), self.draw(st.lists(st.sampled_from(KEYS), unique=True))
        said = self.do(self.queue.reap(name, some))
        self.agree(self.model.reap(name, some), said)

    # -- the middleware

    def look_after(self) -> None:
        """One whole pass."""
        reaped = texts(self.do(self.queue.client.zrange(self.queue.keys.reaped, 0, -1)))
        budget = Budget(self.model.budget)
        report = self.do(self.queue.maintenance.run_pass(QUEUE, max_crashes=queue_model.MAX_CRASHES, budget=budget))
        expected = self.model.look_after(reaped)
        self.outdated = (0, 0)
        self.agree(expected.reaped, report.reaped)
        self.agree(expected.woken, report.woken)

    def reap_orphans(self) -> None:
        """Lists without a lease are found, also those that were forgotten an hour after they were reaped."""
        if self.draw(st.booleans()):
            name = self._any(sorted(self.model.reaped))
            self.do(self.queue.client.zrem(self.queue.keys.reaped, name))
            self.model.reaped.discard(name)
        known = {*self.model.leases, *self.model.reaped}
        orphans = {name for name, listed in self.model.taken.items() if listed and name not in known}
        self.agree(len(orphans), self.do(self.queue.maintenance.reap_orphans()))
        self.model.reaped |= orphans

    # -- time

    def end_lease(self) -> None:
        self._end_lease(self._any(name for name, over in self.model.leases.items() if not over))

    def _end_lease(self, name: str) -> None:
        self.do(self.queue.end_lease(name))
        self.model.leases[name] = True

    def end_wait(self) -> None:
        key = self._any(key for key, due in self.model.delayed.items() if not due)
        self.do(self.queue.end_wait(key))
        self.model.delayed[key] = True

    def become_overdue(self) -> None:
        """A task has waited for too long; it is read at once, or later."""
        key = self._any([*self.model.delayed, *self.model.open()])
        self.do(self.queue.end_time(key))
        self.model.tasks[key].overdue = True
        if self.draw(st.booleans()):
            self._read(key)

    def forget(self) -> None:
        """The time of an ended task's record is over."""
        key = self._any(self._ended())
        count, size = self.do(self.queue.kept.drop(key))
        self.outdated = (self.outdated[0] + count, self.outdated[1] + size)
        self._forget(key)

    def _forget(self, key: str) -> None:
        del self.model.tasks[key], self.finals[key]
        self.forgotten.add(key)

    def _running(self) -> list[str]:
        return [key for key, task in self.model.tasks.items() if task.state == "R"]

    def _ended(self) -> list[str]:
        return [key for key, task in self.model.tasks.items() if task.final and (task.state != "D" or task.purged)]

    def be_away(self) -> None:
        """No pass is made for longer than any lease: that ends no lease."""
        if self._odd():
            self.do(self.queue.client.hset(self.queue.keys.counts, "pass", 1))

    # -- operators

    def pause(self) -> None:
        """A queue is paused, or resumed."""
        self.model.paused = not self.model.paused and self._odd()
        self.do(self.queue.operators.pause(QUEUE, paused=self.model.paused))

    def change_budget(self) -> None:
        """What ended may take less, or more: now and then as much as it takes, or nothing at all."""
        took = self.model.ended_bytes
        some = [queue_model.NO_BUDGET] * 3 + [0, took, took + 1, took + RECORD_BYTES]
        self.model.budget = self._any(some)
        self.look_after()

    def replay(self) -> None:
        key = self._any(KEYS if self._odd() else self.model.replayable())
        if key in self.model.replayable():
            del self.starts[key], self.ends[key], self.finals[key]
        self.agree([self.model.replay(key)], self.do(self.queue.operators.replay(QUEUE, [key])))

    def purge(self) -> None:
        key = self._any(KEYS if self._odd() else self.model.dead())
        self.agree([self.model.purge(key)], self.do(self.queue.operators.purge(QUEUE, [key])))

    def purge_ended(self) -> None:
        """What ended long ago is dropped."""
        some = self.draw(st.lists(st.sampled_from(self._ended()), unique=True))
        for key in some:
            self.do(self.queue.kept.age(key))
        self.agree(len(some), self.do(self.queue.purge_ended()))
        for key in some:
            self._forget(key)

    # -- what always holds

    @invariant()
    def holds(self) -> None:
        seen = self.do(self.queue.seen(KEYS, list(self.processes)))
        self._is_in_one_place(seen)
        self._counts_right(seen)
        self._counts_what_is_kept(seen)
        self._counts_what_its_client_has(seen)
        self._changes_no_end(seen)
        self._is_as_in_the_model(seen)

    def _is_in_one_place(self, seen: Seen) -> None:
        """An open task stands in one place; an ended one may have been left in one, to be found there."""
        places = Counter(seen.places)
        for key in KEYS:
            state, token = seen.records.get(key, (None, None))[:2]
            is_open = state in ("Q", "R")
            self.hold(places[key] == 1 if is_open else places[key] <= 1, f"{key} stands in {places[key]} places")
            self.hold(is_open or key not in seen.delayed, f"{key} has ended, and waits to be tried again")
            if state == "R":
                owner = token.rpartition(":")[0]
                self.hold(key in seen.taken[owner], f"{key} runs under {token}, and is not in its list")

    def _counts_right(self, seen: Seen) -> None:
        states = [record[0] for record in seen.records.values()]
        self.agree([states.count("Q"), states.count("R")], [seen.counts[0], seen.counts[2]])

    def _counts_what_is_kept(self, seen: Seen) -> None:
        kept = [key for key, (state, *_) in seen.records.items() if state not in ("Q", "R") and key not in seen.dead]
        size = sum(RECORD_BYTES + sum(seen.sizes[key]) for key in kept)
        outdated, outdated_size = self.outdated
        self.agree((len(kept) + outdated, size + outdated_size), seen.kept)
        self.agree(sum(RECORD_BYTES + sum(seen.sizes[key]) for key in seen.dead), seen.dead_bytes)
        self.agree(seen.kept[1] + seen.dead_bytes, seen.ended_bytes)
        self.model.ended_bytes = seen.ended_bytes

    def _counts_what_its_client_has(self, seen: Seen) -> None:
        states = {key: record[0] for key, record in seen.records.items() if key in COUNTED}
        ended = {key: RECORD_BYTES + sum(seen.sizes[key]) for key, state in states.items() if state not in ("Q", "R")}
        waiting = [seen.sizes[key][0] for key, state in states.items() if state == "Q"]
        dead = sum(size for key, size in ended.items() if key in seen.dead)
        self.agree(Account(len(waiting), sum(waiting), dead, sum(ended.values()) - dead), seen.account)

    def _changes_no_end(self, seen: Seen) -> None:
        for key, (state, *_, reason, response) in seen.records.items():
            forever = state in ("Q", "R") or key in seen.dead
            self.agree(forever, seen.ttls[key] == -1)
            if state not in ("Q", "R"):
                self.agree(self.finals.setdefault(key, (state, reason, response)), (state, reason, response))

    def _is_as_in_the_model(self, seen: Seen) -> None:
        model = self.model
        self.agree(model.ready, seen.ready)
        self.agree(set(model.delayed), seen.delayed)
        self.agree({name: model.taken[name] for name in self.processes}, seen.taken)
        self.agree((set(model.leases), model.reaped), (seen.leases, seen.reaped))
        self.agree(set(model.dead()), seen.dead)
        self.agree(sum(task.size for task in model.waiting()), seen.counts[1])
        self.agree({key: _record(task) for key, task in model.tasks.items()}, seen.records)

    # -- the end

    def teardown(self) -> None:
        """Nothing goes wrong any more: everything that was accepted must end, and nothing may be left over."""
        if self.sound:
            self.do(self._drain())

    async def _drain(self) -> None:
        queue, names = self.queue, list(self.processes)
        await queue.operators.pause(QUEUE, paused=False)
        for life in range(2):
            name = f"drain{life}"
            names.append(name)
            await queue.join(name)
            no_budget = Budget(queue_model.NO_BUDGET)
            await queue.maintenance.run_pass(QUEUE, max_crashes=queue_model.MAX_CRASHES, budget=no_budget)
            await queue.maintenance.reap_orphans()
            await _each(
                queue.end_lease,
                [one for one in texts(await queue.client.zrange(queue.keys.leases, 0, -1)) if one != name],
            )
            await _each(queue.end_wait, texts(await queue.client.zrange(queue.keys.delayed, 0, -1)))
            await queue.maintenance.run_pass(QUEUE, max_crashes=queue_model.MAX_CRASHES)
            for number, key in enumerate(await queue.take(name, len(KEYS)), 1):
                if (await queue.claim(name, [(key, number)], alone=True)).answers == ["run"]:
                    assert await queue.complete(Report(key, f"{name}:{number}", "ok")) == "succeeded"
        seen = await queue.seen(KEYS, names)

        assert [key for key, record in seen.records.items() if record[0] in ("Q", "R")] == []
        assert seen.places == []
        assert seen.counts == [0, 0, 0]


async def _each(do: Any, names: Iterable[str]) -> None:
    for name in names:
        await do(name)


def _record(task: queue_model.Task) -> tuple[Any, ...]:
    return (
        *(task.state, task.token, task.attempts, task.failures, task.crashes_alone, task.crashes_in_company),
        *(task.stop, task.reason, task.response),
    )


def test_no_order_of_steps_breaks_the_queue(tmp_path: Path) -> None:
    """Faults come in orders that no test lists; each rule of the queue is there for one of them."""
    examples = os.environ.get(EXAMPLES)
    # Nothing is killed here, so nothing needs the disk.
    with running(tmp_path, appendonly="no") as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        queue = DrivenQueue(server.url)
        try:
            run_state_machine_as_test(
                functools.partial(QueueMachine, runner, queue),
                settings=settings(
                    max_examples=int(examples or 150),
                    derandomize=examples is None,
                    database=None,
                    stateful_step_count=50,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(queue.client.aclose())
