"""What a run saw: the calls that were made, what came back, and what was broken when. Judged by `chaos.judge`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Wish:
    """One call as its client means it.

    Attributes:
        service: The kind of service: sum, subtraction, multiplication, ledger, foreign.
        method: The method's short name.
        path: Where it is posted.
        message: The body.
        expected: The response, but for the ledger's count of runs.
        repeatable: Its method is declared idempotent.
        prefer: The header; empty for none.
        wait_seconds: What `prefer` says on waiting.
        task_ttl: The header `Poste-Task-TTL`; None for none.
        result_ttl: The header `Poste-Result-TTL`; None for none.
        cancel_after: Cancel it so long after its acceptance, in seconds; None for never.
        fail_code: The handler is asked to fail with this code.
        raises: The handler is asked to raise.
        crashes: The handler is asked to kill its process.
        times: It goes wrong in the first so many runs only; 0 is every run.
        key: The header `Idempotency-Key`: its client repeats it until it is told what became of it; empty for none.
    """

    service: str
    method: str
    path: str
    message: dict[str, Any]
    expected: dict[str, Any]
    repeatable: bool = True
    prefer: str = ""
    wait_seconds: float = 0.0
    task_ttl: int | None = None
    result_ttl: int | None = None
    cancel_after: float | None = None
    fail_code: int = 0
    raises: bool = False
    crashes: bool = False
    times: int = 0
    key: str = ""

    @property
    def line(self) -> str:
        """What the ledger writes for it; empty if it is no call of the ledger."""
        return str(self.message.get("line", ""))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back to one request. Times are in seconds since the run began.

    Attributes:
        gateway: Whom it was sent to.
        begin: When it was sent.
        end: When the answer was there, or there was none.
        status: The HTTP status; 0 for none.
        problem: The last part of the problem's type; empty if it was no problem.
        body: The JSON.
        location: The header; empty if it was not there.
        missing: A header that the contract wants and that was not there.
        failure: Why there was no answer; `deadline` if the client gave up waiting.
    """

    gateway: str
    begin: float
    end: float
    status: int
    problem: str = ""
    body: Any = None
    location: str = ""
    missing: str = ""
    failure: str = ""


@dataclass(slots=True)
class Call:
    """One call, and all that was seen of it.

    Attributes:
        number: Which one it is.
        wish: What was asked.
        answer: What came back.
        place: The path of its task, if it may have one.
        repeats: Of a call with a key: what came back to its other requests, before `answer` and after it.
        cancel: What came back to its cancellation.
        looks: Answers to reads of its task that showed no task: refusals, failures.
        first_end: The task when it was first seen ended, and when that was.
        last: The last task that was seen, and when.
    """

    number: int
    wish: Wish
    answer: Answer | None = None
    place: str = ""
    repeats: list[Answer] = field(default_factory=list)
    cancel: Answer | None = None
    looks: list[Answer] = field(default_factory=list)
    first_end: tuple[float, dict[str, Any]] | None = None
    last: tuple[float, dict[str, Any]] | None = None

    @property
    def accepted(self) -> bool:
        """It was answered with 202, or its task was found at the path that the answer named."""
        return bool(self.place) and ((self.answer is not None and self.answer.status == 202) or self.last is not None)

    @property
    def not_kept(self) -> bool:
        """It was not known whether it was accepted, and then that it was not."""
        return any(look.problem == "not-kept" for look in self.looks)


@dataclass(slots=True)
class Trouble:
    """A time in which a part or a link was not well, in seconds since the run began; `end` is None while it lasts."""

    target: str
    what: str
    begin: float
    end: float | None = None

    def overlaps(self, begin: float, end: float) -> bool:
        """Return whether it touched an interval."""
        return self.begin <= end and (self.end is None or self.end >= begin)


@dataclass(slots=True)
class Observations:
    """All of a run.

    Attributes:
        calls: Every call.
        runs: How often each `(method, line)` stands in the ledger.
        troubles: What was broken when, by faults and by what they led to.
        stuck: What was left over in the end that should not be; in words.
        deaf: Parts that lived and did not serve in the end; in words.
        bloated: Parts that grew beyond bounds; in words.
        too_little: What the run was to do and did not, so that it proves nothing; in words.
    """

    calls: list[Call] = field(default_factory=list)
    runs: dict[tuple[str, str], int] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    deaf: list[str] = field(default_factory=list)
    bloated: list[str] = field(default_factory=list)
    too_little: list[str] = field(default_factory=list)
