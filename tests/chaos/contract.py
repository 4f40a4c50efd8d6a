"""What the contract allows: answers by the kind of call, and ends by what the handler was asked to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from chaos.observations import Wish
from poste.domain.codes import PASSING, UNFORESEEN, Code
from poste_gateway.http.problem_types import OF_CODE

#: An answer's status, and the last part of its problem's type.
Pair = tuple[int, str]

LOOKS: Final = frozenset({(200, ""), (503, "lookup-away"), (503, "not-ready")})
#: What a read may say beside that if it was not known whether the call was accepted: not decided yet, and not kept.
DOUBTS: Final = frozenset({(502, "acceptance-unknown"), (404, "not-kept")})
CANCELS: Final = LOOKS | {(409, "task-ended")}
#: What an answer says that promises that nothing was accepted, and nothing run that must not run twice.
REFUSALS: Final = frozenset(
    {(503, "not-accepted"), (503, "not-ready"), (503, "service-away"), (503, "queue-budget-spent")}
)
#: What says nothing of what became of a call with a key, beside no answer at all: its client repeats it.
UNTOLD: Final = REFUSALS | {(502, "acceptance-unknown"), (409, "idempotency-key-in-use"), (503, "lookup-away")}


def answers(wish: Wish) -> set[Pair]:
    """Return what a call may be answered with."""
    queued_first = bool(wish.key or wish.prefer == "respond-async" or (wish.wait_seconds > 0 and not wish.repeatable))
    allowed: set[Pair] = {(503, "not-ready")}
    if wish.prefer != "respond-async":
        allowed |= set(_handled(wish))
    if wish.prefer == "no-queue":
        allowed.add((503, "service-away"))
    else:
        # The queues' budgets are what Redis has free.
        allowed |= {(202, ""), (503, "not-accepted"), (503, "queue-budget-spent"), (502, "acceptance-unknown")}
        if wish.service == "foreign":
            # While no courier is there.
            allowed.add((503, "service-away"))
    if wish.key:
        # What became of the first request with the key, if it can be read now.
        allowed |= {*_handled(wish), (409, "idempotency-key-in-use"), (503, "lookup-away")}
    if not wish.repeatable and not queued_first:
        allowed.add((502, "outcome-unknown"))
    return allowed


def _handled(wish: Wish) -> Iterator[Pair]:
    """What the handler itself may answer."""
    if wish.times or not goes_wrong(wish):
        yield 200, ""
    code = told_code(wish)
    # UNAVAILABLE proves nothing: the gateway takes it as a loss, never as an answer.
    if code is not None and code is not Code.UNAVAILABLE:
        kind = OF_CODE[code]
        yield int(kind.status), kind.name


def states(wish: Wish) -> set[str]:
    """Return the ends that a kept call may come to; DEAD ones with their reason."""
    allowed: set[str] = set()
    code = told_code(wish)
    final = code is not None and code not in PASSING | UNFORESEEN
    if not goes_wrong(wish):
        allowed.add("SUCCEEDED")
    elif final:
        # A later run than those that go wrong may be the one that counts, if an earlier one was lost.
        allowed |= {"FAILED"} | ({"SUCCEEDED"} if wish.times and wish.repeatable else set())
    elif wish.repeatable:
        allowed.add("SUCCEEDED" if wish.times else f"DEAD {'crashes' if wish.crashes else 'attempts'}")
    elif code is not None and code is not Code.UNAVAILABLE:
        allowed.add("FAILED")
    if not wish.repeatable:
        allowed.add("DEAD outcome-unknown")
    if wish.cancel_after is not None:
        allowed.add("CANCELLED")
    if wish.task_ttl is not None:
        allowed.add("EXPIRED")
        if goes_wrong(wish) and wish.repeatable:
            # It failed until its time was over.
            allowed.add("DEAD attempts")
    return allowed


def goes_wrong(wish: Wish) -> bool:
    """Return whether the handler was asked to go wrong."""
    return bool(wish.fail_code or wish.raises or wish.crashes)


def leaves_unknown(wish: Wish) -> bool:
    """Return whether the handler was asked to do what leaves its outcome unknown by itself."""
    return wish.crashes or told_code(wish) is Code.UNAVAILABLE


def asked_to_be_away(wish: Wish) -> bool:
    """Return whether the handler was asked for the answer of a service that is away, of a call that can't be kept."""
    return wish.prefer == "no-queue" and told_code(wish) is Code.UNAVAILABLE


def told_code(wish: Wish) -> Code | None:
    """Return the code that the handler was asked to end with, if any."""
    if wish.fail_code:
        return Code(wish.fail_code)
    return Code.UNKNOWN if wish.raises else None
