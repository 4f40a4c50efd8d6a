"""The judge of `nox -s chaos` finds what it is there for: a judge that never finds a fault proves nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from chaos.judge import judge
from chaos.observations import Answer, Call, Observations, Trouble, Wish

RECORD = Wish(
    "ledger", "Record", "/testing.v1.LedgerService/Record", {"line": "one"}, {"line": "one"}, repeatable=False,
    prefer="respond-async",
)  # fmt: skip
KEYED = dataclasses.replace(RECORD, prefer="", key="key")
STORE = dataclasses.replace(RECORD, method="Store", path="/testing.v1.LedgerService/Store", repeatable=True)
DIRECT = dataclasses.replace(STORE, method="Look", prefer="no-queue")
SUM = Wish("sum", "Add", "/v1/sum", {"a": 2, "b": 3}, {"result": 5})
PLACE = "/v1/tasks/id"


def answer(status: int, problem: str = "", *, begin: float = 10, took: float = 1, **more: Any) -> Answer:
    return Answer("gateway-1", begin, begin + took, status, problem, **more)


def task(state: str, **more: Any) -> dict[str, Any]:
    return {"id": "id", "state": state, "attempt": 1, **more}


def kept(wish: Wish, first: dict[str, Any], last: dict[str, Any] | None = None, **more: Any) -> Call:
    """A call that was accepted, and whose task was seen twice."""
    fields = {"answer": answer(202, body=task("QUEUED")), "place": PLACE, **more}
    return Call(0, wish, first_end=(20, first), last=(60, last or first), **fields)


def done(line: str = "one", run: int = 1) -> dict[str, Any]:
    return task("SUCCEEDED", response={"line": line, "run": run})


def told(run: int = 1) -> Answer:
    """An answer with what the handler of `RECORD` returned."""
    return answer(200, body={"line": "one", "run": run})


def found(call: Call, *, runs: int = 1, troubles: tuple[Trouble, ...] = ()) -> list[str]:
    """Return the categories of what is found against one call."""
    written = {(call.wish.method, call.wish.line): runs} if call.wish.line and runs else {}
    verdict = judge(Observations(calls=[call], runs=written, troubles=list(troubles)))
    return [violation.category for violation in verdict.violations]


@pytest.mark.parametrize(
    ("call", "runs"),
    [
        (kept(RECORD, done()), 1),
        (kept(STORE, done(run=2)), 2),
        (kept(RECORD, task("DEAD", reason="outcome-unknown")), 0),
        (kept(RECORD, task("DEAD", reason="outcome-unknown")), 1),
        (Call(0, SUM, answer(200, body={"result": 5})), 0),
        (Call(0, SUM, answer(503, "not-accepted")), 0),
        (Call(0, dataclasses.replace(RECORD, prefer=""), answer(502, "outcome-unknown")), 1),
        (kept(dataclasses.replace(RECORD, task_ttl=1), task("EXPIRED", attempt=0)), 0),
        (kept(dataclasses.replace(RECORD, fail_code=5), task("FAILED", error={"code": "NOT_FOUND"})), 1),
        (kept(dataclasses.replace(STORE, fail_code=8, times=2), done(run=3)), 3),
        (kept(dataclasses.replace(STORE, crashes=True), task("DEAD", reason="crashes")), 3),
        (Call(0, RECORD, answer(502, "acceptance-unknown"), PLACE, looks=[answer(404, "not-kept")]), 0),
        (kept(RECORD, done(), answer=answer(502, "acceptance-unknown")), 1),
        (kept(KEYED, done(), repeats=[answer(409, "idempotency-key-in-use"), answer(202), told()]), 1),
        (Call(0, KEYED, told(), repeats=[answer(503, "not-accepted"), told()]), 1),
    ],
)
def test_what_keeps_the_promises_is_not_accused(call: Call, runs: int) -> None:
    """A judge that cries wolf is switched off."""
    assert found(call, runs=runs, troubles=(Trouble("ledger-1", "SIGKILL", 9, 12),)) == []


def test_a_handler_that_was_asked_to_say_that_its_service_is_away_is_believed() -> None:
    """UNAVAILABLE proves nothing, so the gateway says the same of it as of a service that is away; nothing is wrong."""
    assert found(Call(0, dataclasses.replace(DIRECT, fail_code=14, times=2), answer(503, "service-away")), runs=2) == []


@pytest.mark.parametrize(
    ("call", "runs", "category"),
    [
        pytest.param(Call(0, RECORD, answer(202), PLACE), 0, "lost", id="never seen again"),
        pytest.param(
            Call(0, RECORD, answer(202), PLACE, last=(60, task("RUNNING"))), 1, "lost", id="never seen to end"
        ),
        pytest.param(kept(RECORD, done(), looks=[answer(500, "record-lost")]), 1, "lost", id="lost for a while"),
        pytest.param(
            Call(0, RECORD, answer(502, "acceptance-unknown"), PLACE, looks=[answer(502, "acceptance-unknown")]),
            0, "lost", id="never decided",
        ),
        pytest.param(kept(STORE, done(run=1), done(run=2)), 2, "two results", id="another result"),
        pytest.param(kept(RECORD, done(), task("DEAD", reason="crashes")), 1, "two results", id="another end"),
        pytest.param(
            kept(dataclasses.replace(STORE, cancel_after=0), done(), cancel=answer(200, body=task("CANCELLED"))),
            1, "two results", id="a cancel that did not stick",
        ),
        pytest.param(Call(0, SUM, answer(200, body={"result": 6})), 0, "wrong", id="a wrong sum"),
        pytest.param(kept(STORE, done(line="two")), 1, "wrong", id="another call's result"),
        pytest.param(kept(STORE, task("EXPIRED")), 1, "wrong", id="expired long before its time"),
        pytest.param(kept(STORE, task("DEAD", reason="crashes")), 1, "wrong", id="taken for poison"),
        pytest.param(
            kept(dataclasses.replace(STORE, fail_code=5), task("FAILED", error={"code": "INTERNAL"})),
            1, "wrong", id="another error",
        ),
        pytest.param(kept(RECORD, done()), 2, "ran twice", id="ran twice, queued"),
        pytest.param(
            Call(0, dataclasses.replace(RECORD, prefer=""), answer(502, "outcome-unknown")),
            2, "ran twice", id="ran twice, direct",
        ),
        pytest.param(Call(0, RECORD, answer(0, failure="deadline"), ""), 2, "ran twice", id="ran twice, not known"),
        pytest.param(kept(KEYED, done(), repeats=[told(run=2)]), 1, "two results", id="a key with two answers"),
        pytest.param(
            kept(KEYED, done(), repeats=[answer(202, location="/v1/tasks/other")]),
            1, "two results", id="a key with two tasks",
        ),
        pytest.param(
            Call(0, KEYED, told(), repeats=[answer(202, begin=20)]), 1, "two results", id="an answer that is forgotten",
        ),
        pytest.param(Call(0, KEYED, told(), repeats=[told()]), 2, "ran twice", id="ran twice, with a key"),
        pytest.param(
            Call(0, KEYED, answer(502, "outcome-unknown")), 1, "off contract", id="unknown though it has a key"
        ),
        pytest.param(kept(RECORD, done()), 0, "dishonest", id="succeeded without having run"),
        pytest.param(Call(0, RECORD, answer(503, "not-accepted")), 1, "dishonest", id="refused, and ran"),
        pytest.param(
            kept(dataclasses.replace(RECORD, task_ttl=1), task("EXPIRED")), 1, "dishonest", id="expired, and ran"
        ),
        pytest.param(
            Call(0, RECORD, answer(502, "acceptance-unknown"), PLACE, looks=[answer(404, "not-kept")]),
            1, "dishonest", id="not kept, and ran",
        ),
        pytest.param(
            kept(RECORD, done(), answer=answer(502, "acceptance-unknown"), looks=[answer(404, "not-kept")]),
            1, "dishonest", id="not kept, and kept",
        ),
        pytest.param(Call(0, SUM, answer(500, "internal")), 0, "off contract", id="500"),
        pytest.param(Call(0, SUM, answer(503, "not-accepted", missing="Retry-After")), 0, "off contract", id="header"),
        pytest.param(
            Call(0, dataclasses.replace(SUM, prefer="no-queue"), answer(202)), 0, "off contract", id="queued unasked"
        ),
        pytest.param(kept(STORE, done(), looks=[answer(500, "internal")]), 1, "off contract", id="a look that fails"),
        pytest.param(Call(0, SUM, answer(200, body={"result": 5}, took=40)), 0, "hung", id="slow"),
        pytest.param(Call(0, SUM, answer(0, failure="deadline", took=30)), 0, "hung", id="no answer"),
        pytest.param(Call(0, SUM), 0, "hung", id="no end of waiting"),
        pytest.param(Call(0, SUM, answer(0, failure="reset")), 0, "unexplained", id="connection reset"),
        pytest.param(Call(0, SUM, answer(503, "not-accepted")), 0, "unexplained", id="refused for nothing"),
        pytest.param(Call(0, DIRECT, answer(503, "service-away")), 0, "unexplained", id="away for nothing"),
        pytest.param(
            Call(0, dataclasses.replace(DIRECT, fail_code=14), answer(503, "not-ready")), 0, "unexplained",
            id="not what it was asked for",
        ),
        pytest.param(
            Call(0, dataclasses.replace(RECORD, prefer=""), answer(502, "outcome-unknown")),
            1, "dishonest", id="unknown for nothing, direct",
        ),
        pytest.param(
            kept(RECORD, task("DEAD", reason="outcome-unknown")), 1, "dishonest", id="unknown for nothing, queued"
        ),
    ],
)  # fmt: skip
def test_what_breaks_a_promise_is_found(call: Call, runs: int, category: str) -> None:
    """Each of these is what the run is there to find."""
    assert category in found(call, runs=runs)


def test_only_a_fault_of_its_own_gateway_excuses_a_lost_connection() -> None:
    """Else any fault anywhere would excuse everything."""
    lost = Call(0, SUM, answer(0, failure="reset"))

    assert found(lost, troubles=(Trouble("gateway-1", "SIGKILL", 10.5, 12),)) == []
    assert found(lost, troubles=(Trouble("clients>gateway-1", "cut", 5, None),)) == []
    assert found(lost, troubles=(Trouble("gateway-2", "SIGKILL", 10.5, 12),)) == ["unexplained"]
    assert found(lost, troubles=(Trouble("gateway-1", "SIGKILL", 20, 22),)) == ["unexplained"]
    assert found(lost, troubles=(Trouble("gateway-1", "clock off by 7 s", 10, 12),)) == ["unexplained"]


def test_only_a_fault_of_redis_excuses_that_a_budget_is_spent() -> None:
    """Budgets are what Redis has free: a run in which one is spent for nothing accepts nothing, and says so."""
    refused = Call(0, SUM, answer(503, "queue-budget-spent"))

    assert found(refused, troubles=(Trouble("redis", "maxmemory", 10.5, 12),)) == []
    assert found(refused, troubles=(Trouble("mom-1", "SIGKILL", 10.5, 12),)) == ["unexplained"]


def test_only_a_fault_of_its_own_service_leaves_an_outcome_unknown() -> None:
    """Else any fault anywhere would excuse everything; but a handler that says UNAVAILABLE needs no excuse."""
    unknown = kept(RECORD, task("DEAD", reason="outcome-unknown"))
    told = kept(dataclasses.replace(RECORD, fail_code=14), task("DEAD", reason="outcome-unknown"))

    assert found(unknown, troubles=(Trouble("ledger-2>redis", "cut", 11, 12),)) == []
    assert found(unknown, troubles=(Trouble("sum-1", "SIGKILL", 11, 12),)) == ["dishonest"]
    assert found(unknown, troubles=(Trouble("ledger-1", "SIGKILL", 30, 31),)) == ["dishonest"]
    assert found(told) == []


def test_an_innocent_task_may_be_given_up_after_three_deaths_of_its_service() -> None:
    """Poste can't distinguish it from a poison; without the deaths it must not be."""
    given_up = kept(STORE, task("DEAD", reason="crashes"))
    deaths = [Trouble("ledger-1", "SIGKILL", at, at + 1) for at in (11, 13, 15)]

    assert found(given_up, troubles=tuple(deaths)) == []
    assert found(given_up, troubles=tuple(deaths[:2])) == ["wrong"]


def test_what_is_left_over_is_found() -> None:
    """Tasks may all be well, and a list, a counter or a process be stuck for ever."""
    verdict = judge(Observations(stuck=["a list"], deaf=["mom-1"], bloated=["gateway-1"]))

    assert {"stuck": 1, "deaf": 1, "bloated": 1}.items() <= verdict.counts.items()
