"""The queued road: runs a claimed task's handler, and reports its outcome."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from poste.domain import traceparents
from poste.domain.codes import Code
from poste.queue.consumer import ClaimedTask, NotRun
from poste.rpc.schemas.schema import MethodSchema
from poste.runtime import lifecycle, logs, metrics
from poste.service.call import Call, Stage
from poste.service.handlers import Runner
from poste.service.outcome import Outcome
from poste.service.report import Reporter, Result
from poste.service.schemas import Schemas
from poste.service.servicer import ServedService
from poste.service.terms import Terms
from poste.v1 import mom_service_pb2

#: How long a task waits that no thread was free for, in seconds.
_NOT_RUN_SECONDS: Final = 1.0
#: One whose method is not here waits so much of the time that it has waited already; and how long at most, in seconds.
_ELSEWHERE_SHARE: Final = 0.1
_ELSEWHERE_SECONDS: Final = 60.0
#: And how long at least: there may be a process beside this one that has it, and some more that do not.
_BESIDE_SECONDS: Final = 0.2
#: Answers that say that the task has ended by this report.
_ENDED: Final = (mom_service_pb2.COMPLETE_RESULT_STORED, mom_service_pb2.COMPLETE_RESULT_DEAD)
_event_log: Final = logs.EventLog("queued", "task")
_RESULTS: Final = {
    number: name.removeprefix("COMPLETE_RESULT_").lower() for name, number in mom_service_pb2.CompleteResult.items()
}

#: Returns the schemas by one of which a task would run here; none if it would not run.
SchemasOf: TypeAlias = Callable[[ClaimedTask], Sequence[MethodSchema]]
#: Runs a claimed task to its outcome; raises `NotRun` if it did not begin. Its call's stage is WAITING until it has.
Run: TypeAlias = Callable[[ClaimedTask, Call], Awaitable[Outcome]]


class QueuedRoad:
    """Has the tasks of one queue run, and reports what they ended with."""

    def __init__(
        self,
        run: Run,
        reporter: Reporter,
        schemas: Schemas,
        schemas_of: SchemasOf,
        count: Callable[[], object] = lambda: None,
    ) -> None:
        """Connect the parts.

        Args:
            run: Runs a task.
            reporter: Reports what tasks ended with.
            schemas: Judges what was accepted under another schema.
            schemas_of: Returns the schemas by one of which a task would run here.
            count: Called for each task whose handler has ended.
        """
        self._run = run
        self._reporter = reporter
        self._count = count
        self._schemas = schemas
        self._schemas_of = schemas_of

    async def handle(self, task: ClaimedTask) -> None:
        """Run a task and report its outcome; returns once the report is answered.

        Raises:
            asyncio.CancelledError: The task is no longer this process' to run: nothing was reported.
            NotRun: No thread was free, this process has no such method, or it has it with a schema that is not the
                task's: its handler was not called.
        """
        began = time.monotonic()
        call = Call(queued=task, attempt=task.attempt, traceparent=task.traceparent, headers=task.headers)
        call.leave = functools.partial(self._leave, task, began)
        outcome: Outcome | None
        try:
            outcome = None
            served = self._schemas_of(task) if task.schema else ()
            if served and served[0].fingerprint != task.schema:
                outcome = await self._held(task, call, served)
            if outcome is None:
                outcome = await self._run(task, call)
        except asyncio.CancelledError:
            task.unstarted = call.stage is Stage.WAITING
            if call.stage is Stage.LEFT or not task.cancel_requested:
                raise
            _uncancel()
            outcome = None
        if outcome is not None and outcome.not_run:
            raise NotRun(outcome.details, delay_seconds=_NOT_RUN_SECONDS)
        concluding = self._conclude(task, call, began, outcome)
        del outcome
        await concluding

    async def _held(self, task: ClaimedTask, call: Call, served: Sequence[MethodSchema]) -> Outcome | None:
        """Return the outcome of a task that can't run here, for its schema is not that of its method; None if it can.

        Raises:
            NotRun: It may run at another replica, or it is not known yet.
        """
        if any(self._schemas.fits(task.schema, one) for one in served):
            return None
        call.stage = Stage.WAITING
        held: Outcome | None = None
        for one in served:
            held = await self._schemas.differing(task, one, elsewhere_seconds(task))
            if held is None:
                call.stage = None
                break
        return held

    def _leave(self, task: ClaimedTask, began: float, call: Call, outcome: Outcome) -> None:
        """Have another asyncio task go on, for the handler does not give this one back."""
        outcome = _naming_the_setting(task, outcome)
        task.go_on(functools.partial(self._conclude, task, call, began, outcome))

    async def _conclude(self, task: ClaimedTask, call: Call, began: float, outcome: Outcome | None) -> None:
        """Report an outcome: None if the task was cancelled, as its client wished."""
        waited = max(0.0, time.time() - (time.monotonic() - began) - task.create_time)
        # Field by field: as arguments they cost twice as much.
        completion = mom_service_pb2.Completion()
        completion.service, completion.key, completion.token = task.queue, task.key, task.token
        if outcome is None:
            completion.cancelled, code = True, Code.CANCELLED
        else:
            code = outcome.code
            _fill(completion, outcome, task.method)
        asked = outcome is None
        # An answer is held once until its report is answered, and its request no longer: it is not run again here.
        del outcome
        task.request = b""
        task.handled()
        self._count()
        result = await self._report(task, completion, asked=asked)
        if result in _ENDED:
            metrics.task_attempts.observe((task.queue,), task.attempt)
        facts = {
            "service": task.queue,
            "method": task.method,
            "attempt": task.attempt,
            "code": code.name,
            # To be cut is cheap, to be rounded is not.
            "seconds": int((time.monotonic() - began) * 1e6) / 1e6,
            "waited_seconds": int(waited * 1e3) / 1e3,
            "result": _RESULTS[result],
        }
        facts.update(task.names())
        if call.trace_id:
            facts["trace_id"] = call.trace_id
        if task.traceparent and call.trace_id != (asked_in := traceparents.trace_id(task.traceparent)):
            # Its span began a trace of its own, on this side of the queue's gap.
            facts["client_trace_id"] = asked_in
        _event_log.write(facts)

    async def _report(self, task: ClaimedTask, completion: mom_service_pb2.Completion, *, asked: bool) -> Result:
        while True:
            try:
                # A cancellation withdraws it if it was not sent yet.
                return await self._reporter.report(completion, task)
            except asyncio.CancelledError:
                # The same is reported again: under one token it is answered the same. The client's wish comes too late
                # once, for the handler has ended; and what the handler left running may cancel this, which is nothing.
                if _was_cancelled():
                    if asked or not task.cancel_requested:
                        raise
                    asked = True
                _uncancel()


class QueuedHandlers:
    """Runs tasks by this process' own handlers of their service."""

    def __init__(self, service: ServedService, runner: Runner, terms: Terms) -> None:
        self._service = service
        self._runner = runner
        self._terms = terms

    def schemas_of(self, task: ClaimedTask) -> Sequence[MethodSchema]:
        """Return the schema that a task's method has here; none if it is not here."""
        served = self._service.methods.get(task.method)
        return () if served is None else (served.schema,)

    async def run(self, task: ClaimedTask, call: Call) -> Outcome:
        """Run a task's handler.

        Raises:
            NotRun: This process has no such method.
        """
        method = self._service.methods.get(task.method)
        if method is None:
            # Another process, of another version, may have it; or one that is still to come.
            words = f"{self._service.name} has no method {task.method} here"
            raise NotRun(words, delay_seconds=elsewhere_seconds(task))
        timeout_seconds = self._terms.of(task.method).queued_timeout_seconds
        call.deadline = time.monotonic() + timeout_seconds
        if method.coroutine:
            # Its first step is a part of this one.
            if task.began is not None:
                task.begin()
        else:
            call.begin = task.begin
        outcome = await self._runner.run(method, task.request, call, timeout_seconds=timeout_seconds)
        if not (outcome.overdue and call.stage is Stage.OVERDUE):
            # It answered, or it was cut off by something else than this time.
            return outcome
        return _naming_the_setting(task, outcome)


def elsewhere_seconds(task: ClaimedTask) -> float:
    """Return how long a task waits for a process that has its method: longer, the longer it has waited already."""
    waited = time.time() - task.create_time
    return min(max(_BESIDE_SECONDS, waited * _ELSEWHERE_SHARE), _ELSEWHERE_SECONDS)


def _naming_the_setting(task: ClaimedTask, outcome: Outcome) -> Outcome:
    """Say whose time it was that is over: who can give it more, in code or in the catalogue, must know where."""
    return outcome._replace(details=f"{outcome.details}, the queued_timeout_seconds of {task.queue}/{task.method}")


def _fill(completion: mom_service_pb2.Completion, outcome: Outcome, method: str) -> None:
    if outcome.code is Code.OK:
        completion.response = outcome.response
        return
    completion.method, completion.overdue, completion.held = method, outcome.overdue, outcome.held
    completion.error.CopyFrom(outcome.status())


def _was_cancelled() -> bool:
    current = asyncio.current_task()
    return current is None or lifecycle.was_cancelled(current)


def _uncancel() -> None:
    """Take back the cancellation that was just caught: this asyncio task goes on."""
    current = asyncio.current_task()
    if current is not None:
        current.uncancel()
