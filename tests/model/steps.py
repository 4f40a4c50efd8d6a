"""The scripts as the model has them: one method for each Lua file, in its words and in its order.

Each takes a store and returns what it made of it and what it answers. A rule that is switched off is a line that the
script would lack.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from model.rules import Rule
from model.store import (
    ARRIVED,
    EVERY_RUN,
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
    Draft,
    Store,
    Task,
    There,
    Token,
)
from poste.domain.policy import SUSPECT_AFTER


class Done(NamedTuple):
    """What a step made of a store, what it answers, and what it did that must never be."""

    store: Store
    reply: Any
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Steps:
    """The scripts, for tasks of which some must not run twice (`once`)."""

    once: tuple[bool, ...]
    off: frozenset[Rule] = frozenset()
    #: Whether a reply does not prove that what it says is on disk.
    weak_disk: bool = False
    max_failures: int = 2
    max_crashes: int = 2
    rules: frozenset[Rule] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", frozenset(Rule) - self.off)

    # -- prelude.lua

    def has_not_begun(self, draft: Draft, task: Task) -> bool:
        if task.known_by is None:
            return False
        return task.known_by in (EVERY_RUN, draft.run) or Rule.CLAIM_KNOWN_BY not in self.rules

    def _unclaim(self, draft: Draft, key: int) -> None:
        draft.set(key, state="Q", token=self._cleared(draft, key), known_by=None)

    def _requeue(self, draft: Draft, key: int) -> None:
        self._unclaim(draft, key)
        draft.ready.append(key)

    def _cleared(self, draft: Draft, key: int) -> Token | None:
        return None if Rule.CLEAR_TOKEN in self.rules else draft.tasks[key].token

    def _expire(self, draft: Draft, key: int) -> None:
        if draft.tasks[key].failures:
            draft.end(key, "D", "attempts")
        else:
            draft.end(key, "E", unbegun=True)

    # -- clients

    def enqueue(self, store: Store, key: int, later: bool) -> Done:
        draft = Draft(store)
        task = store.tasks[key]
        if task.state not in (NONE, GONE) and Rule.ENQUEUE_ONCE in self.rules:
            return Done(store, "accepted")
        if task.state == GONE:
            if Rule.ENQUEUE_YOUNG in self.rules:
                return Done(store, "clock")
            draft.broken.append("what had ended, and whose record is gone, is accepted anew")
        draft.set(key, state="Q", early=later)
        if later and Rule.ENQUEUE_LATER in self.rules:
            draft.scheduled.add(key)
        else:
            draft.ready.insert(0, key)
        return _done(draft, "accepted")

    def cancel(self, store: Store, key: int) -> Done:
        draft = Draft(store)
        task = store.tasks[key]
        if task.state == "R" and (self.has_not_begun(draft, task) or Rule.CANCEL_BEGUN not in self.rules):
            self._unclaim(draft, key)
        if draft.tasks[key].state == "Q":
            draft.delayed.discard(key)
            draft.scheduled.discard(key)
            if task.overdue:
                self._expire(draft, key)
            else:
                draft.end(key, "C", unbegun=True)
        elif task.state == "R":
            draft.set(key, stop=True)
        return _done(draft, None)

    def read(self, store: Store, key: int) -> Done:
        """Settle what is overdue, as a read or a pass does."""
        draft = Draft(store)
        task = store.tasks[key]
        if task.overdue and self.has_not_begun(draft, task):
            self._unclaim(draft, key)
        if task.overdue and draft.tasks[key].state == "Q":
            draft.delayed.discard(key)
            self._expire(draft, key)
        return _done(draft, None)

    # -- a consumer's process

    def join(self, store: Store, me: int) -> Done:
        return _leased(store, me, HOLDS, None)

    def renew(self, store: Store, me: int) -> Done:
        if store.leases[me] not in (HOLDS, OVER) and Rule.RENEW_NEVER_ADDS in self.rules:
            return Done(store, 0)
        return _leased(store, me, HOLDS, 1)

    def take(self, store: Store, me: int, count: int = 1) -> Done:
        draft = Draft(store)
        keys = self._take(draft, me, count)
        return _done(draft, keys)

    def _take(self, draft: Draft, me: int, count: int) -> list[int]:
        keys = [draft.ready.pop() for _ in range(min(count, len(draft.ready)))]
        for key in keys:
            draft.taken[me].insert(0, key)
        return keys

    def take_lane(self, store: Store, me: int) -> Done:
        draft = Draft(store)
        keys = [draft.lane.pop() for _ in draft.lane[-1:]]
        draft.taken[me] = keys + draft.taken[me]
        return _done(draft, keys)

    def claim(
        self,
        store: Store,
        me: int,
        claims: Sequence[tuple[int, int]],
        *,
        alone: bool = False,
        take: int = 0,
        room: int | None = None,
    ) -> Done:
        """Answer for each claim, after the keys that were taken and not named; with a `room` what waits is parked."""
        if store.leases[me] not in (HOLDS, OVER) and Rule.CLAIM_LEASE in self.rules:
            return Done(store, ("fenced",))
        draft = Draft(store)
        named = [key for key, _ in claims]
        unnamed = tuple(key for key in self._take(draft, me, take) if key not in named)
        answers = tuple(
            (None if room is None else self._park(draft, me, key, room=room))
            or self._claim(draft, me, key, number, alone=alone)
            for key, number in claims
        )
        put_back = [key for (key, _), answer in zip(claims, answers, strict=True) if answer in ("paused", "back")]
        draft.ready += reversed(put_back)
        return _done(draft, (unnamed, *answers))

    def _park(self, draft: Draft, me: int, key: int, *, room: int) -> str | None:
        task = draft.tasks[key]
        waits = task.state == "Q" or (task.open and Rule.PARK_WAITING not in self.rules)
        if draft.paused or key not in draft.taken[me] or not waits:
            return None
        if room <= 0:
            draft.drop(me, key)
            return "back"
        if task.overdue:
            return None
        draft.drop(me, key)
        older = task.failures or task.alone or task.company
        draft.lane.insert(len(draft.lane) if older else 0, key)
        return "parked"

    def _claim(  # noqa: PLR0911 - one answer each, in the script's order
        self, draft: Draft, me: int, key: int, number: int, *, alone: bool
    ) -> str:
        task = draft.tasks[key]
        if key not in draft.taken[me] and Rule.CLAIM_POSSESSION in self.rules:
            return "drop"
        if not task.open and not (task.final and Rule.CLAIM_NOT_FINAL not in self.rules):
            draft.drop(me, key)
            return "drop"
        if task.state == "R":
            return self._claim_running(draft, me, key, number)
        if task.overdue and Rule.CLAIM_NOT_OVERDUE in self.rules:
            self._expire(draft, key)
            draft.drop(me, key)
            return "drop"
        if draft.paused and Rule.CLAIM_PAUSED in self.rules:
            draft.drop(me, key)
            return "paused"
        if task.company >= SUSPECT_AFTER and not alone and Rule.CLAIM_SUSPECT in self.rules:
            return "suspect"
        if task.overdue:
            draft.broken.append("what is overdue is started")
        if task.early:
            draft.broken.append("what is not to run yet is started")
        if draft.paused and not self.once[key]:
            draft.broken.append("something of a paused queue is started")
        self._own(draft, me, key, number)
        return "run"

    def _claim_running(self, draft: Draft, me: int, key: int, number: int) -> str:
        task, mine = draft.tasks[key], (me, number)
        if task.token == mine:
            return "run"
        owner, other = task.token or (None, 0)
        of_mine = owner == me
        if of_mine and other > number and Rule.CLAIM_LOWER_NUMBER in self.rules:
            return "drop"
        if task.stop:
            draft.end(key, "C")
            draft.drop(me, key)
            return "drop"
        unknown = not of_mine and self.once[key] and not self.has_not_begun(draft, task)
        if unknown and Rule.CLAIM_UNKNOWN in self.rules:
            draft.end(key, "D", "outcome-unknown")
            draft.drop(me, key)
            return "drop"
        self._own(draft, me, key, number)
        return "run"

    def _own(self, draft: Draft, me: int, key: int, number: int) -> None:
        known_by = None
        if self.once[key] and Rule.CLAIM_NOT_BEGUN in self.rules:
            known_by = draft.run if self.weak_disk else EVERY_RUN
        draft.set(key, state="R", token=(me, number), known_by=known_by)

    def begin(self, store: Store, me: int, key: int, token: Token) -> Done:
        if store.leases[me] not in (HOLDS, OVER) and Rule.BEGIN_LEASE in self.rules:
            return Done(store, "fenced")
        draft = Draft(store)
        task = store.tasks[key]
        if (task.state != "R" or task.token != token) and Rule.BEGIN_RUNNING in self.rules:
            if not task.open:
                draft.drop(me, key)
            return _done(draft, "drop")
        if task.known_by is None:
            return Done(store, "begun")
        if task.stop or (task.overdue and Rule.BEGIN_NOT_OVERDUE in self.rules):
            draft.drop(me, key)
            if task.stop:
                draft.end(key, "C", unbegun=True)
            else:
                self._unclaim(draft, key)
                self._expire(draft, key)
            return _done(draft, "drop")
        if task.overdue:
            draft.broken.append("what is overdue is started")
        if draft.paused:
            if Rule.BEGIN_PAUSED in self.rules:
                return Done(store, "paused")
            draft.broken.append("something of a paused queue is started")
        draft.set(key, known_by=None)
        return _done(draft, "begun")

    def complete(self, store: Store, key: int, token: Token, outcome: str) -> Done:
        """Store what a handler ended with; `outcome` is ok, cancelled, final, schema, retry or silent."""
        draft = Draft(store)
        task, me = store.tasks[key], token[0]
        if not task.open and (not task.final or Rule.COMPLETE_RUNNING in self.rules):
            draft.drop(me, key)
            return _done(draft, "replayed" if task.final and task.token == token else "refused")
        runs = task.state == "R" or Rule.COMPLETE_RUNNING not in self.rules
        if not runs or (task.token != token and Rule.COMPLETE_TOKEN in self.rules):
            return Done(store, "refused")
        draft.drop(me, key)
        if outcome in ("ok", "cancelled"):
            draft.end(key, "S" if outcome == "ok" else "C")
            return _done(draft, "succeeded" if outcome == "ok" else "cancelled")
        return _done(draft, self._fail(draft, key, outcome))

    def _fail(self, draft: Draft, key: int, outcome: str) -> str:
        task = draft.tasks[key]
        if outcome == "schema":
            draft.end(key, *(("C",) if task.stop else ("D", "schema-changed")))
            return "cancelled" if task.stop else "dead"
        if self.once[key] and outcome == "silent":
            draft.end(key, "D", "outcome-unknown")
            return "dead"
        if self.once[key] or outcome == "final":
            draft.end(key, "F")
            return "failed"
        if task.stop:
            draft.end(key, "C")
            return "cancelled"
        if task.failures + 1 >= self.max_failures or task.overdue:
            draft.set(key, failures=task.failures + 1)
            draft.end(key, "D", "attempts")
            return "dead"
        draft.set(key, state="Q", token=self._cleared(draft, key), failures=task.failures + 1)
        draft.delayed.add(key)
        return "retried"

    def give_back(self, store: Store, me: int, returned: Sequence[tuple[int, Token | None, bool]]) -> Done:
        draft, back = Draft(store), 0
        for key, token, started in returned:
            if draft.drop(me, key) or Rule.GIVE_BACK_POSSESSION not in self.rules:
                back += self._give_back(draft, key, token, started=started)
        return _done(draft, back)

    def _give_back(self, draft: Draft, key: int, token: Token | None, *, started: bool) -> bool:
        task = draft.tasks[key]
        if task.state == "R" and task.stop:
            draft.end(key, "C")
        elif task.state == "R" and self._may_have_run(key, task, token, started=started):
            draft.end(key, "D", "outcome-unknown")
        elif task.state == "R":
            self._requeue(draft, key)
            return True
        elif task.state == "Q":
            draft.ready.append(key)
            return True
        return False

    def _may_have_run(self, key: int, task: Task, token: Token | None, *, started: bool) -> bool:
        return self.once[key] and started and task.token == token and Rule.GIVE_BACK_UNKNOWN in self.rules

    def put_off(self, store: Store, key: int, token: Token) -> Done:
        draft = Draft(store)
        task, me = store.tasks[key], token[0]
        if (task.state == "R" and task.token == token) or (task.open and Rule.PUT_OFF_TOKEN not in self.rules):
            draft.drop(me, key)
            if task.stop:
                draft.end(key, "C")
                return _done(draft, 0)
            self._unclaim(draft, key)
            draft.delayed.add(key)
            return _done(draft, 1)
        if not task.open:
            draft.drop(me, key)
        return _done(draft, 0)

    def leave(self, store: Store, me: int) -> Done:
        if store.taken[me] and Rule.LEAVE_EMPTY in self.rules:
            return Done(store, 0)
        return _leased(store, me, self._after_lease(), 1)

    # -- the passes

    def _after_lease(self) -> int:
        return REAPED if Rule.REAP_MARK in self.rules else NO_LEASE

    def reap(self, store: Store, gone: int, keys: Sequence[int]) -> Done:
        if store.leases[gone] == HOLDS and Rule.REAP_LEASE in self.rules:
            return Done(store, ())
        draft = Draft(store)
        draft.leases[gone] = self._after_lease()
        ran = [key for key in keys if self._began_under(draft, key, gone)]
        alone = len(ran) == 1 and len(draft.taken[gone]) == len(keys)
        return _done(draft, tuple(self._reap(draft, gone, key, alone=alone) for key in keys))

    def _began_under(self, draft: Draft, key: int, gone: int) -> bool:
        task = draft.tasks[key]
        owned = task.state == "R" and task.token is not None and task.token[0] == gone
        return owned and not self.has_not_begun(draft, task)

    def _reap(  # noqa: PLR0911 - one answer each, in the script's order
        self, draft: Draft, gone: int, key: int, *, alone: bool
    ) -> str:
        if not draft.drop(gone, key) and Rule.REAP_POSSESSION in self.rules:
            return "gone"
        task = draft.tasks[key]
        if not task.open:
            return "dropped"
        if task.state == "Q" and Rule.REAP_UNCLAIMED in self.rules:
            draft.ready.append(key)
            return "requeued"
        if task.stop:
            draft.end(key, "C")
            return "cancelled"
        if self.has_not_begun(draft, task) and Rule.REAP_NOT_BEGUN in self.rules:
            self._requeue(draft, key)
            return "requeued"
        if self.once[key] and Rule.REAP_UNKNOWN in self.rules:
            draft.end(key, "D", "outcome-unknown")
            return "dead"
        return self._crash(draft, gone, key, alone=alone)

    def _crash(self, draft: Draft, gone: int, key: int, *, alone: bool) -> str:
        task = draft.tasks[key]
        if task.state == "R" and (task.token is None or task.token[0] != gone):
            self._requeue(draft, key)
            return "requeued"
        counts = alone or Rule.REAP_ALONE not in self.rules or Rule.REAP_UNCLAIMED not in self.rules
        draft.set(key, alone=task.alone + counts, company=task.company + (not counts))
        if counts and task.alone + 1 >= self.max_crashes:
            draft.end(key, "D", "crashes")
            return "dead"
        self._requeue(draft, key)
        return "crashed"

    def wake(self, store: Store, due: Iterable[int]) -> Done:
        draft, keys = Draft(store), sorted(due)
        for key in keys:
            if key in draft.scheduled:
                draft.scheduled.discard(key)
                draft.set(key, early=False)
                draft.ready.insert(0, key)
            else:
                draft.delayed.discard(key)
                draft.ready.append(key)
        return _done(draft, len(keys))

    def sweep(self, store: Store, keys: Sequence[int], *, lane: bool = False) -> Done:
        draft = Draft(store)
        listed = draft.lane if lane else draft.ready
        for key in keys:
            if draft.tasks[key].state == "Q" and draft.tasks[key].overdue:
                self._expire(draft, key)
            if not draft.tasks[key].open and key in listed:
                listed.reverse()
                listed.remove(key)
                listed.reverse()
        return _done(draft, None)

    # -- operators

    def pause(self, store: Store, *, paused: bool) -> Done:
        return Done(store._replace(paused=paused), None)

    def replay(self, store: Store, key: int) -> Done:
        draft = Draft(store)
        task = store.tasks[key]
        replayable = task.state == "F" or (task.state == "D" and not task.purged)
        if not replayable and (Rule.REPLAY_DEAD in self.rules or not task.final):
            return Done(store, self._not_replayed(task))
        if not replayable:
            draft.broken.append("what has ended, and not as DEAD or FAILED, waits again")
        company = SUSPECT_AFTER if task.reason == "crashes" else task.company
        draft.tasks[key] = Task("Q", company=company, ends=task.ends + "r")
        draft.ready.insert(0, key)
        return _done(draft, "done")

    @staticmethod
    def _not_replayed(task: Task) -> str:
        if task.open:
            return "done" if "r" in task.ends else "open"
        return "ended" if task.final and task.state != "D" else "gone"

    def purge(self, store: Store, key: int) -> Done:
        task = store.tasks[key]
        if task.state != "D":
            return Done(store, "ended" if task.state not in (NONE, GONE, MOVED) else "gone")
        draft = Draft(store)
        draft.set(key, purged=True, company=0)
        return _done(draft, "done")

    def forget(self, store: Store, key: int) -> Done:
        """Let the time of an ended record be over; or an operator has it dropped (purge_ended.lua)."""
        draft = Draft(store)
        draft.tasks[key] = Task(GONE, ends=store.tasks[key].ends)
        return _done(draft, None)

    # -- moving to another queue

    def move_out(self, store: Store, key: int) -> Done:
        draft = Draft(store)
        task = store.tasks[key]
        if task.state == MOVED:
            return Done(store, "moving" if task.was else "moved")
        moves = task.state in "QF" or (task.state == "D" and not task.purged)
        if not moves and not (task.state == "R" and Rule.MOVE_WAITING not in self.rules):
            return Done(store, _not_moved(task))
        draft.delayed.discard(key)
        draft.scheduled.discard(key)
        draft.set(key, state=MOVED, was="Q" if task.state == "R" else task.state)
        return _done(draft, "moving")

    def move_in(self, store: Store, key: int, was: str) -> Done:
        draft, there = Draft(store), store.there[key]
        if there.mark in (ARRIVED, SETTLED) and Rule.MOVE_MARK in self.rules:
            return Done(store, "there")
        if there.mark == FORGOTTEN and Rule.MOVE_YOUNG in self.rules:
            return Done(store, "late")
        if there.state not in (NONE, GONE):
            return Done(store, "taken" if there.state == OTHER and Rule.MOVE_TAKEN in self.rules else "there")
        if there.mark != NOT_ARRIVED:
            draft.broken.append("what had arrived in the other queue arrives once more")
        draft.there[key] = There(was, ARRIVED)
        return _done(draft, "there")

    def move_done(self, store: Store, key: int) -> Done:
        draft = Draft(store)
        task = store.tasks[key]
        if task.state == MOVED and task.was:
            draft.tasks[key] = Task(MOVED, ends=task.ends)
        return _done(draft, None)

    def move_settle(self, store: Store, key: int) -> Done:
        draft = Draft(store)
        if store.there[key].mark == ARRIVED:
            draft.there[key] = store.there[key]._replace(mark=SETTLED)
        return _done(draft, None)


def _not_moved(task: Task) -> str:
    if task.state == "R":
        return "runs"
    return "ended" if task.final and task.state != "D" else "gone"


def _done(draft: Draft, reply: Any) -> Done:
    return Done(draft.store(), reply, tuple(draft.broken))


def _leased(store: Store, me: int, lease: int, reply: Any) -> Done:
    return Done(store._replace(leases=(*store.leases[:me], lease, *store.leases[me + 1 :])), reply)
