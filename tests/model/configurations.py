"""What is explored: small worlds in which everything must hold, and mutants, each of which must be caught."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from model.rules import Rule
from model.world import Rules

#: May run twice; must not.
AGAIN, ONCE = False, True


class Configuration(NamedTuple):
    """One world, by a name; `rules` has some rules switched off if it is a mutant's."""

    name: str
    rules: Rules


def _world(name: str, *once: bool, processes: int = 2, **rest: Any) -> Configuration:
    names = {field for field in Rules.__dataclass_fields__ if field != "budget"}
    rules = {field: value for field, value in rest.items() if field in names}
    budget = {fault: count for fault, count in rest.items() if fault not in names}
    return Configuration(name, Rules(once, processes, budget, **rules))


#: The old master lives on beside the replica that took over, and all that is waited for on a disk is waited for there.
_SPLIT: Final = {"replica": True, "weak_disk": True, "reads": True, "lag": 1, "lives_on": 1}


def _waits(name: str, once: bool, **rest: Any) -> Configuration:
    return _world(
        f"an old master lives on, and the replica is waited for: {name}", once, **{"processes": 1, **_SPLIT, **rest}
    )


#: The first task is not to run yet when it comes.
_LATER: Final = {"later": frozenset({0})}
_ONE: Final = [
    ("kill, stop", {"kill": 1, "freeze": 1}),
    ("stop, late, failure", {"freeze": 1, "late": 1, "retry": 1}),
    ("kill, lost, failure, store away", {"kill": 1, "lost": 1, "retry": 1, "outage": 1}),
    ("stop, cancel, overdue", {"freeze": 1, "cancel": 1, "overdue": 1}),
    ("late, record over, cancel", {"late": 1, "forget": 1, "cancel": 1}),
    ("deploy, lost, cancel", {"deploy": 1, "lost": 1, "cancel": 1}),
    ("deploy, late, refused", {"deploy": 1, "late": 1, "refuse": 1}),
    ("pause, kill, lost", {"pause": 1, "kill": 1, "lost": 1}),
    ("silent, replay, purge, lost", {"silent": 1, "replay": 1, "purge": 1, "lost": 1}),
]
#: Each must hold; a minute in all, at most.
SHORT: Final = [
    *(_world(f"one repeatable task: {name}", AGAIN, **faults) for name, faults in _ONE),
    *(_world(f"one task that must not run twice: {name}", ONCE, **faults) for name, faults in _ONE),
    _world("no process at all: overdue, cancel", AGAIN, ONCE, processes=0, overdue=2, cancel=1),
    _world("two that must not run twice: kill", ONCE, ONCE, processes=1, kill=1),
    _world("one of each: kill", AGAIN, ONCE, processes=1, kill=1),
    _world("one that kills its process, and one that does not", AGAIN, AGAIN, processes=1, poison=frozenset({0})),
    _world("a lane, one repeatable task: kill, lost, failure", AGAIN, processes=1, park=2, kill=1, lost=1, retry=1),
    _world("a lane, one that must not run twice: lost, late", ONCE, processes=1, park=1, lost=1, late=1),
    _world("a lane, two processes: cancel, overdue", AGAIN, park=1, cancel=1, overdue=1),
    _world("a lane, two tasks: pause", AGAIN, ONCE, processes=1, park=1, pause=1),
    _world(
        "moved, one that must not run twice: kill, late, record over",
        ONCE,
        processes=1,
        move=1,
        kill=1,
        late=1,
        forget=1,
    ),
    _world("moved, one repeatable task: lost, failure, late", AGAIN, processes=1, move=1, lost=1, retry=1, late=1),
    _world("moved, two tasks: cancel", AGAIN, ONCE, processes=1, move=1, cancel=1),
    _world("moved, another call has its key: late, lost", ONCE, processes=1, move=1, taken=1, late=1, lost=1),
    _world(
        "for later, one repeatable task: cancel, overdue, late",
        AGAIN,
        processes=1,
        cancel=1,
        overdue=1,
        late=1,
        **_LATER,
    ),
    _world("for later, one that must not run twice: lost, move", ONCE, processes=1, lost=1, move=1, **_LATER),
    _world("moved, a disk that lags", ONCE, processes=1, weak_disk=True, lag=1, move=1, forget=1),
    _world("a disk that lags: kill", ONCE, processes=1, weak_disk=True, lag=1, reads=True, kill=1),
    _world("a disk that lags twice", ONCE, processes=1, weak_disk=True, lag=2),
    _world("a disk that lags: deploy", ONCE, processes=1, weak_disk=True, lag=1, reads=True, deploy=1),
    _world("a disk that lags, repeatable: kill", AGAIN, processes=1, weak_disk=True, lag=1, reads=True, kill=1),
    _world("a disk that lags, repeatable: pause", AGAIN, processes=1, weak_disk=True, lag=1, reads=True, pause=1),
    _world("a disk that lags, two processes", ONCE, weak_disk=True, lag=1, cancel=1),
    _waits("one that must not run twice", ONCE),
    _waits("one that must not run twice: cancel", ONCE, cancel=1),
    _waits("one that must not run twice: lost, another replica that follows the old master", ONCE, lost=1, second=True),
    _waits("one that must not run twice: silent, replay", ONCE, silent=1, replay=1),
    _waits("one repeatable task: cancel", AGAIN, cancel=1),
]
#: Each must hold too; what takes longer.
LONG: Final = [
    _world("one repeatable task: kill, stop, lost, late", AGAIN, kill=1, freeze=1, lost=1, late=1),
    _world("one that must not run twice: kill, stop, lost, late", ONCE, kill=1, freeze=1, lost=1, late=1),
    _world("one repeatable task: late twice, lost, failure", AGAIN, processes=1, late=2, lost=1, retry=1),
    _world("one that must not run twice: stop, late, cancel, deploy", ONCE, freeze=1, late=1, cancel=1, deploy=1),
    _waits("one that must not run twice: kill", ONCE, kill=1),
    _waits("one that must not run twice: kill, replay", ONCE, kill=1, replay=1),
    _waits("one that must not run twice: pause", ONCE, pause=1),
    _waits("one that must not run twice: stop", ONCE, freeze=1),
    _waits("one that must not run twice: deploy", ONCE, deploy=1),
    _waits("one that must not run twice, two replicas that take over", ONCE, lag=2),
    _waits("one that must not run twice, two processes", ONCE, processes=2),
    _waits("one repeatable task: pause", AGAIN, pause=1),
    _waits("one repeatable task: kill, failure", AGAIN, kill=1, retry=1),
]


class Loss(NamedTuple):
    """A world in which some promises are not kept: `what` has those, and no others."""

    name: str
    what: frozenset[str]
    rules: Rules


class Mutant(NamedTuple):
    """The scripts without some rules, in a world in which that does harm."""

    off: tuple[Rule, ...]
    what: str
    rules: Rules


_UNKEPT: Final = "a call was accepted, and there is no record"
_TWO_PLACES: Final = "an open task stands in two places"
_NOWHERE: Final = "an open task is in no place that is ever read"
_TWICE: Final = "what must not run twice runs twice"
_NEVER: Final = "a task never ends, though nothing goes wrong any more"
_LEFT: Final = "a final state is left for another"
_PAUSED: Final = "something of a paused queue is started"
_OVERDUE: Final = "what is overdue is started"
_TAKEN_ALONG: Final = "a process that dies takes more than one task along that it had not started"
_STARTS: Final = "something starts of a queue of which its operator was told that it is paused"
_DEAD: Final = "a dead letter of which its operator was told that it runs again is as it was"
_ARRIVES: Final = "what had arrived in the other queue arrives once more"
_OTHERWISE: Final = "a client that was told how its task ended is told otherwise"
_UNBEGUN: Final = "what was reported as never begun runs"


def _loss(name: str, *what: str, once: bool, **rest: Any) -> Loss:
    world = _world(f"a replica takes over: {name}", once, replica=True, lag=1, reads=True, **rest)
    return Loss(world.name, frozenset({_UNKEPT, _OTHERWISE, *what}), world.rules)


#: Each must come to exactly what it says: nothing that Poste does waits for a replica.
LOSSES: Final = [
    _loss("kill, failure", once=AGAIN, processes=1, kill=1, retry=1),
    _loss("cancel, pause", _STARTS, once=AGAIN, processes=1, cancel=1, pause=1),
    _loss("kill, replay", _TWICE, _DEAD, once=ONCE, processes=1, kill=1, replay=1),
    _loss("kill", _TWICE, once=ONCE, processes=1, kill=1),
    _loss("two processes", _TWICE, once=ONCE),
    _loss("cancel", _TWICE, _UNBEGUN, once=ONCE, processes=1, cancel=1),
    _loss("the old master lives on, failure", once=AGAIN, processes=1, lives_on=1, retry=1),
    _loss("the old master lives on", _TWICE, once=ONCE, processes=1, lives_on=1),
    _loss("the old master lives on, cancel", _TWICE, _UNBEGUN, once=ONCE, processes=1, lives_on=1, cancel=1),
]


def _mutant(*off: Rule, what: str, once: tuple[bool, ...], **rest: Any) -> Mutant:
    return Mutant(off, what, _world("", *once, off=frozenset(off), **rest).rules)


_R, _O = (AGAIN,), (ONCE,)
#: Each must be caught, by what it says.
MUTANTS: Final = [
    _mutant(Rule.ENQUEUE_ONCE, what=_TWO_PLACES, once=_R, processes=1, late=1),
    _mutant(
        Rule.ENQUEUE_YOUNG,
        what="what had ended, and whose record is gone, is accepted anew",
        once=_R,
        processes=1,
        late=1,
        forget=1,
    ),
    _mutant(Rule.ENQUEUE_LATER, what="what is not to run yet is started", once=_R, processes=1, **_LATER),
    _mutant(Rule.CLAIM_POSSESSION, what="a task runs, and waits in the queue", once=(AGAIN, AGAIN), processes=1),
    _mutant(Rule.CLAIM_NOT_FINAL, what=_LEFT, once=_R, processes=1, cancel=1),
    _mutant(Rule.CLAIM_NOT_OVERDUE, what=_OVERDUE, once=_R, processes=1, overdue=1),
    _mutant(Rule.CLAIM_LOWER_NUMBER, what=_TWICE, once=_O, processes=1, late=1, lost=1),
    _mutant(
        Rule.CLAIM_SUSPECT,
        what="what kills no process suffers more crashes than make it a suspect",
        once=(AGAIN, AGAIN),
        processes=1,
        poison=frozenset({0}),
    ),
    _mutant(Rule.CLAIM_PAUSED, what=_PAUSED, once=_R, processes=1, pause=1),
    _mutant(Rule.CLAIM_NOT_BEGUN, what=_TAKEN_ALONG, once=(ONCE, ONCE), processes=1, kill=1),
    _mutant(Rule.CLAIM_KNOWN_BY, what=_TWICE, once=_O, processes=1, weak_disk=True, lag=1, kill=1),
    _mutant(Rule.PARK_WAITING, what="a task runs, and waits in the queue", once=_R, processes=1, park=1, lost=1),
    _mutant(Rule.LANES, what=_NEVER, once=_R, processes=1, park=1),
    _mutant(Rule.BEGIN_RUNNING, what=_UNBEGUN, once=_O, processes=1, cancel=1),
    _mutant(Rule.BEGIN_NOT_OVERDUE, what=_OVERDUE, once=_O, processes=1, overdue=1),
    _mutant(Rule.BEGIN_PAUSED, what=_PAUSED, once=_O, processes=1, pause=1),
    _mutant(Rule.BEGIN_IN_TURN, what=_TAKEN_ALONG, once=(ONCE, ONCE), processes=1, kill=1),
    _mutant(Rule.BEGIN_ON_DISK, what=_TWICE, once=_O, processes=1, weak_disk=True, lag=1, kill=1),
    _mutant(Rule.COMPLETE_TOKEN, what=_TWO_PLACES, once=_R, freeze=1, retry=1),
    _mutant(Rule.COMPLETE_RUNNING, what=_LEFT, once=_R, processes=1, late=1),
    _mutant(
        Rule.TOLD_ON_DISK,
        what=_UNKEPT,
        once=_R,
        processes=1,
        weak_disk=True,
        lag=1,
    ),
    _mutant(Rule.BARRIER, what=_UNKEPT, once=_R, processes=1, weak_disk=True, lag=1),
    _mutant(Rule.READ_ON_DISK, what=_OTHERWISE, once=_R, processes=1, weak_disk=True, lag=1, reads=True),
    _mutant(Rule.ORDER_ON_DISK, what=_STARTS, once=_R, processes=1, weak_disk=True, lag=1, reads=True, pause=1),
    _mutant(Rule.ACK_NAMED, what=_UNKEPT, once=_O, processes=1, second=True, **_SPLIT),
    _mutant(Rule.READ_NAMED, what=_OTHERWISE, once=_O, processes=1, **_SPLIT),
    _mutant(Rule.REAP_LEASE, what="an owner is reaped that never stalled", once=_R, processes=1, late=1),
    _mutant(Rule.REAP_POSSESSION, what=_TWO_PLACES, once=_R, kill=1, late=1),
    _mutant(Rule.REAP_MARK, Rule.ORPHANS, what=_NOWHERE, once=_R, kill=1, late=1),
    _mutant(Rule.REAP_NOT_BEGUN, what=_TAKEN_ALONG, once=(ONCE, ONCE), processes=1, kill=1),
    _mutant(Rule.REAP_UNKNOWN, what=_TWICE, once=_O, kill=1),
    _mutant(
        Rule.REAP_ALONE,
        what="what kills no process suffers more crashes than make it a suspect",
        once=(AGAIN, AGAIN),
        processes=1,
        poison=frozenset({0}),
    ),
    _mutant(
        Rule.REAP_UNCLAIMED,
        what="what kills no process suffers more crashes than make it a suspect",
        once=(AGAIN, AGAIN),
        processes=1,
        poison=frozenset({0}),
    ),
    _mutant(Rule.ORPHANS, what=_NOWHERE, once=_R, processes=1, weak_disk=True, lag=1, kill=1),
    _mutant(Rule.CLOCK, what="an owner is reaped that never stalled", once=_R, outage=1),
    _mutant(Rule.CANCEL_BEGUN, what=_UNBEGUN, once=_O, processes=1, cancel=1),
    _mutant(Rule.GIVE_BACK_POSSESSION, what=_TWO_PLACES, once=_R, deploy=1, late=1),
    _mutant(Rule.GIVE_BACK_UNKNOWN, what=_TWICE, once=_O, deploy=1),
    _mutant(Rule.PUT_OFF_TOKEN, what=_TWO_PLACES, once=_R, refuse=1, late=1),
    _mutant(Rule.LEAVE_EMPTY, Rule.REAP_MARK, Rule.ORPHANS, what=_NOWHERE, once=_R, processes=1, deploy=1, late=1),
    _mutant(
        Rule.REPLAY_DEAD, what="what has ended, and not as DEAD or FAILED, waits again", once=_R, processes=1, replay=1
    ),
    _mutant(Rule.MOVE_WAITING, what=_TWICE, once=_O, processes=1, move=1),
    _mutant(Rule.MOVE_MARK, what=_ARRIVES, once=_O, processes=0, move=1, forget=1),
    _mutant(Rule.MOVE_YOUNG, what=_ARRIVES, once=_O, processes=0, move=1, forget=1, late=1),
    _mutant(Rule.MOVE_TAKEN, what=_UNKEPT, once=_O, processes=0, move=1, taken=1),
    _mutant(Rule.MOVE_DONE, what=_UNKEPT, once=_O, processes=0, move=1),
    _mutant(Rule.MOVE_SETTLED, Rule.MOVE_YOUNG, what=_ARRIVES, once=_O, processes=0, move=1, forget=1),
    _mutant(Rule.MOVE_ON_DISK, what=_TWO_PLACES, once=_O, processes=0, weak_disk=True, lag=1, move=1),
    _mutant(Rule.MOVE_RESUMED, what=_NEVER, once=_O, processes=0, move=1),
    _mutant(Rule.AUDIT, what=_NEVER, once=_R, processes=1, lost=1),
    _mutant(Rule.WAKE, what=_NEVER, once=_R, processes=1, retry=1),
    _mutant(Rule.WAKE, what=_NEVER, once=_R, processes=1, **_LATER),
    _mutant(Rule.SWEEP, what=_NEVER, once=_R, processes=0, overdue=1),
]


class Reserve(NamedTuple):
    """A rule whose absence alone does no harm in these worlds: what it would let through, another stops."""

    rule: Rule
    worlds: tuple[Rules, ...]


def _reserve(rule: Rule) -> Reserve:
    faults: tuple[dict[str, Any], ...] = (
        {"kill": 1, "late": 1},
        {"deploy": 1, "late": 1, "retry": 1},
    )
    return Reserve(
        rule, tuple(_world("", kind, off=frozenset({rule}), **some).rules for kind in (AGAIN, ONCE) for some in faults)
    )


RESERVES: Final = [
    _reserve(rule)
    for rule in (Rule.CLAIM_LEASE, Rule.BEGIN_LEASE, Rule.RENEW_NEVER_ADDS, Rule.CLAIM_UNKNOWN, Rule.CLEAR_TOKEN)
]
