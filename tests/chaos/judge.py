"""The verdict: from what a run saw to what of it breaks a promise. Uses nothing else, so it can be tested."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from chaos import contract
from chaos.load import FINAL
from chaos.observations import Answer, Call, Observations, Trouble
from chaos.parts import REDIS, runners_of

#: How long a gateway may take for a call, beside what its client asked it to wait, in seconds: two tries on the direct
#: road and one to have it kept.
CALL_SECONDS: Final = 20.0
#: How long a read may take, in seconds.
LOOK_SECONDS: Final = 10.0
#: The longest wait that a read asks for, in seconds.
_LOOK_WAIT_SECONDS: Final = 5.0
#: What a fault may still be felt after its end, in seconds.
_SLACK_SECONDS: Final = 1.5
#: The same for a refusal for want of memory, in seconds: a middleware measures Redis' once a second, and then when it
#: gets to it.
_MEASURED_SECONDS: Final = 3.0
#: The same for any other refusal, in seconds: circuits are open for as long as ten.
_REFUSING_SECONDS: Final = 12.0
#: As many deaths of its service's processes must have come before an innocent task is taken for a poison.
_CRASHES: Final = 3
#: Reads that say of an accepted task that there is none.
_LOSSES: Final = ("record-lost", "no-such-task", "gone", "not-kept")
#: Answers to a call with a key that name its task.
_NAMES_TASK: Final = ((202, ""), (409, "idempotency-key-in-use"))
#: What counts, and must be 0.
CATEGORIES: Final = (
    "lost", "two results", "wrong", "ran twice", "dishonest", "off contract", "hung", "unexplained", "stuck", "deaf",
    "bloated", "too little",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: which, how, and the call's number if it was one call's."""

    category: str
    text: str
    call: int | None = None


@dataclass(slots=True)
class Verdict:
    """What was broken, and what there was to break."""

    violations: list[Violation] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """How many of each category there are."""
        counted = Counter(one.category for one in self.violations)
        return {name: counted[name] for name in CATEGORIES}


def judge(seen: Observations) -> Verdict:
    """Judge a run."""
    verdict = Verdict()
    for call in seen.calls:
        # One of a kind for each call: what is counted is calls, not how often they were read.
        broken = dict(reversed(list(_of_call(call, seen))))
        verdict.violations += [Violation(category, text, call.number) for category, text in broken.items()]
    for category, texts in (
        ("stuck", seen.stuck), ("deaf", seen.deaf), ("bloated", seen.bloated), ("too little", seen.too_little),
    ):  # fmt: skip
        verdict.violations += [Violation(category, text) for text in texts]
    verdict.figures = _figures(seen)
    return verdict


def _of_call(call: Call, seen: Observations) -> Iterator[tuple[str, str]]:
    answer = call.answer
    if answer is None:
        yield "hung", "the client never heard anything, not even that it should give up"
        return
    bound = CALL_SECONDS + call.wish.wait_seconds
    yield from _of_answer(answer, contract.answers(call.wish), bound, seen.troubles)
    yield from _of_repeats(call, answer, bound, seen.troubles)
    yield from _of_looks(call, seen.troubles, doubtful=answer.problem == "acceptance-unknown")
    if answer.status == 200:
        yield from _of_response(call, answer.body)
    if call.accepted:
        yield from _of_task(call, seen)
    elif answer.problem == "acceptance-unknown" and not call.not_kept:
        yield "lost", "it was never decided whether it is kept"
    yield from _of_excuses(call, answer, seen.troubles)
    if call.wish.line:
        yield from _of_runs(call, seen.runs.get((call.wish.method, call.wish.line), 0))


def _of_repeats(call: Call, answer: Answer, bound: float, troubles: list[Trouble]) -> Iterator[tuple[str, str]]:
    """Judge the other requests of a call with a key: each is answered as the call is, and names the same task."""
    for one in call.repeats:
        for category, text in _of_answer(one, contract.answers(call.wish), bound, troubles):
            yield category, f"a request with its key: {text}"
        if one.status == 200:
            yield from _of_response(call, one.body)
            last = call.last[1] if call.last is not None else {}
            known = answer.body if answer.status == 200 else last.get("response")
            if known is not None and known != one.body:
                yield "two results", f"answered {one.body!r:.300} with its key, and it is {known!r:.300}"
        elif one.status == 202 and answer.status == 200 and one.begin > answer.end:
            yield "two results", f"answered, and then with its key as a task: {one.body!r:.300}"
    told = [one for one in (*call.repeats, answer) if (one.status, one.problem) in _NAMES_TASK]
    if call.wish.key and len({one.location for one in told}) > 1:
        yield "two results", f"its key names several tasks: {sorted({one.location for one in told})}"


def _of_looks(call: Call, troubles: list[Trouble], *, doubtful: bool) -> Iterator[tuple[str, str]]:
    """Judge what was said of the task when it was not shown, and of its cancellation."""
    looks = contract.LOOKS | (contract.DOUBTS if doubtful else frozenset())
    for look in call.looks:
        lost = look.problem in _LOSSES and (look.status, look.problem) not in looks
        for category, text in _of_answer(look, looks, LOOK_SECONDS + _LOOK_WAIT_SECONDS, troubles):
            yield "lost" if lost else category, f"a look at the task: {text}"
    if call.cancel is not None:
        for category, text in _of_answer(call.cancel, contract.CANCELS | looks, LOOK_SECONDS, troubles):
            yield category, f"its cancellation: {text}"
    if call.accepted and call.not_kept:
        yield "dishonest", f"its task's path said that it was not kept, and it is: {call.last!r:.300}"


def _of_answer(
    answer: Answer, allowed: set[contract.Pair] | frozenset[contract.Pair], bound: float, troubles: list[Trouble]
) -> Iterator[tuple[str, str]]:
    """Judge one answer by itself."""
    excuses = [
        trouble
        for trouble in troubles
        if trouble.target in (answer.gateway, f"clients>{answer.gateway}")
        and trouble.overlaps(answer.begin - _SLACK_SECONDS, answer.end + _SLACK_SECONDS)
        and not trouble.what.startswith("clock")
    ]
    took = answer.end - answer.begin
    if answer.status:
        if (answer.status, answer.problem) not in allowed:
            yield "off contract", f"{answer.status} {answer.problem} {answer.body!r:.300}"
        if answer.missing:
            yield "off contract", f"{answer.status} {answer.problem} without {answer.missing}"
        if took > bound and not excuses:
            yield "hung", f"the answer took {took:.1f} s, may take {bound:g} s"
    elif not excuses:
        what = "hung" if answer.failure == "deadline" else "unexplained"
        yield (
            what,
            f"no answer from {answer.gateway} after {took:.1f} s ({answer.failure}), and nothing was wrong with it",
        )


def _of_response(call: Call, response: Any) -> Iterator[tuple[str, str]]:
    """Judge what the handler is said to have answered."""
    wish = call.wish
    if not isinstance(response, dict):
        yield "wrong", f"answered {response!r:.200}"
        return
    got = {name: value for name, value in response.items() if name != "run"}
    if got != wish.expected or ("run" in response and not response["run"] >= 1):
        yield "wrong", f"answered {response!r:.200}, expected {wish.expected!r:.200}"


def _of_task(call: Call, seen: Observations) -> Iterator[tuple[str, str]]:
    """Judge what became of a call that was accepted."""
    if call.last is None or call.last[1].get("state") not in FINAL:
        yield "lost", f"accepted, and never seen to end; last seen as {call.last and call.last[1]!r:.300}"
        return
    assert call.first_end is not None
    first, last = call.first_end[1], call.last[1]
    if first != last:
        yield "two results", f"seen as {first!r:.400} and later as {last!r:.400}"
    state = str(last["state"])
    named = f"DEAD {last.get('reason')}" if state == "DEAD" else state
    if named not in contract.states(call.wish) and not _struck(call, named, seen.troubles):
        yield "wrong", f"ended as {named}: {last!r:.400}"
    if state == "SUCCEEDED":
        yield from _of_response(call, last.get("response"))
    code = contract.told_code(call.wish)
    if state == "FAILED" and code is not None and last.get("error", {}).get("code") != code.name:
        yield "wrong", f"failed with {last.get('error')!r:.300}, was told to fail with {code.name}"
    if call.cancel is not None and call.cancel.status == 200:
        said = call.cancel.body.get("state")
        if said == "CANCELLED" and state != "CANCELLED":
            yield "two results", f"its cancellation was confirmed, and it ended as {named}"
    if call.cancel is not None and call.cancel.status == 409 and state == "CANCELLED":
        yield "dishonest", "its cancellation was refused, for it had ended; and it ended as CANCELLED"


def _struck(call: Call, named: str, troubles: list[Trouble]) -> bool:
    """Return whether an innocent task had such a run of ill luck that it was rightly given up."""
    if named not in ("DEAD crashes", "DEAD attempts") or not call.wish.repeatable:
        return False
    replicas = runners_of(call.wish.service)
    assert call.answer is not None
    assert call.first_end is not None
    # A process that dies, is stopped or cut off loses its tasks.
    hits = [
        trouble
        for trouble in troubles
        if any(trouble.target == name or trouble.target.startswith(f"{name}>") for name in replicas)
        and trouble.what not in ("down", "SIGTERM", "delay")
        and trouble.overlaps(call.answer.begin, call.first_end[0])
    ]
    return len(hits) >= _CRASHES


def _of_excuses(call: Call, answer: Answer, troubles: list[Trouble]) -> Iterator[tuple[str, str]]:
    """Judge what was said to be unknown, and what was refused: where nothing was wrong, neither is honest."""
    replicas = runners_of(call.wish.service)
    asked_for = answer.problem == "service-away" and contract.asked_to_be_away(call.wish)
    if (answer.status, answer.problem) in contract.REFUSALS and not (
        asked_for or any(trouble.overlaps(answer.begin - _REFUSING_SECONDS, answer.end) for trouble in troubles)
    ):
        yield "unexplained", f"{answer.status} {answer.problem}, and nothing was wrong anywhere"
    measured = answer.begin - _MEASURED_SECONDS
    if answer.problem == "queue-budget-spent" and not _troubled((REDIS,), troubles, measured, answer.end):
        yield "unexplained", "was refused for want of memory, and nothing was wrong with Redis"
    if contract.leaves_unknown(call.wish):
        return
    # A request with its key may have been kept before the one that is known to be.
    begin = min(one.begin for one in (answer, *call.repeats))
    if answer.problem == "outcome-unknown" and not _troubled(
        (*replicas, answer.gateway), troubles, answer.begin, answer.end
    ):
        yield "dishonest", "said that its outcome is unknown, and nothing was wrong with its service or its gateway"
    ended = call.first_end
    if (
        call.accepted
        and ended is not None
        and ended[1].get("reason") == "outcome-unknown"
        and not _troubled((*replicas, REDIS), troubles, begin, ended[0])
    ):
        yield "dishonest", "ended as DEAD outcome-unknown, and nothing was wrong with its service or Redis"


def _troubled(parts: tuple[str, ...], troubles: list[Trouble], begin: float, end: float) -> bool:
    """Return whether something was wrong with one of these parts, or a link of one, in an interval."""
    return any(
        not {*trouble.target.split(">")}.isdisjoint(parts)
        and trouble.overlaps(begin - _SLACK_SECONDS, end + _SLACK_SECONDS)
        for trouble in troubles
    )


def _of_runs(call: Call, runs: int) -> Iterator[tuple[str, str]]:
    """Judge how often the handler ran, by the ledger."""
    least, most, why = 0, math.inf, ""
    answer = call.answer
    assert answer is not None
    handled = answer.status == 200 or answer.problem.startswith("status-")
    state = call.last[1] if call.accepted and call.last is not None else {}
    if not call.wish.repeatable:
        most, why = 1, "must never run twice"
        # Another request with its key may have been accepted, and its answer lost.
        if (answer.status, answer.problem) in contract.REFUSALS and not call.repeats:
            most, why = 0, f"was refused ({answer.problem})"
        if state.get("state") == "EXPIRED" or (state.get("state") == "CANCELLED" and not state.get("attempt")):
            most, why = 0, f"ended as {state['state']} without having run"
        if answer.problem == "acceptance-unknown" and not call.accepted:
            most, why = 0, "was not accepted, as its task's path says"
    if handled or state.get("state") in ("SUCCEEDED", "FAILED"):
        least, why = 1, why or f"its handler's answer is known ({state.get('state') or answer.status})"
    if runs > most:
        yield "ran twice" if most == 1 else "dishonest", f"{call.wish.method} ran {runs} times: {why}"
    elif runs < least:
        yield "dishonest", f"{call.wish.method} never ran: {why}"


def _figures(seen: Observations) -> dict[str, Any]:
    answers = [call.answer for call in seen.calls if call.answer is not None]
    accepted = [call for call in seen.calls if call.accepted]
    statuses = _answered(answers)
    states: Counter[str] = Counter()
    for call in accepted:
        task = call.last[1] if call.last else {}
        states[f"{task.get('state', 'unseen')} {task.get('reason', '')}".strip()] += 1
    answered = [one for one in answers if one.status]
    server_errors = sum(one.status >= 500 for one in answered)
    longest = max(answered, key=lambda one: one.end - one.begin, default=None)
    calm = [one for one in answered if not any(_of_gateway(trouble, one) for trouble in seen.troubles)]
    return {
        "calls": len(seen.calls),
        "accepted": len(accepted),
        "direct": sum(one.status == 200 for one in answers),
        "calls with a key": sum(bool(call.wish.key) for call in seen.calls),
        "their repeats": dict(_answered([one for call in seen.calls for one in call.repeats]).most_common()),
        "runs written by the ledger": sum(seen.runs.values()),
        "share of 5xx": round(server_errors / max(1, len(answered)), 4),
        "longest answer, s": round(longest.end - longest.begin, 2) if longest else 0,
        "longest answer of an undisturbed gateway, s": round(max((one.end - one.begin for one in calm), default=0), 2),
        "answers": dict(statuses.most_common()),
        "ends": dict(states.most_common()),
    }


def _answered(answers: list[Answer]) -> Counter[str]:
    return Counter(f"{one.status or 'none'} {one.problem or one.failure.partition(':')[0]}".strip() for one in answers)


def _of_gateway(trouble: Trouble, answer: Answer) -> bool:
    return trouble.target in (answer.gateway, f"clients>{answer.gateway}") and trouble.overlaps(
        answer.begin - _SLACK_SECONDS, answer.end + _SLACK_SECONDS
    )
