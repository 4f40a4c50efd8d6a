"""The queued road: runs a claimed task's handler, and reports what it ended with."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from poste.domain import traceparents
from poste.domain.codes import Code
from poste.queue.consumer import ClaimedTask
from poste.runtime import logs, metrics
from poste.service.context import Call
from poste.service.handlers import Runner
from poste.service.outcome import Outcome
from poste.service.report import Reporter, Result
from poste.service.servicer import ServedService
from poste.service.terms import Terms
from poste.v1 import mom_service_pb2

_journal: Final = logs.Journal("queued", "task")
_RESULTS: Final = {
    number: name.removeprefix("COMPLETE_RESULT_").lower() for name, number in mom_service_pb2.CompleteResult.items()
}


class QueuedRoad:
    """Runs the tasks of one service's queue."""

    def __init__(self, service: ServedService, runner: Runner, reporter: Reporter, terms: Terms) -> None:
        self._service = service
        self._runner = runner
        self._reporter = reporter
        self._terms = terms

    async def handle(self, task: ClaimedTask) -> None:
        """Run a task and report its outcome; returns once the report is answered.

        Raises:
            asyncio.CancelledError: The task is no longer this process' to run: nothing was reported.
        """
        began, waited = time.monotonic(), max(0.0, time.time() - task.create_time)
        completion = mom_service_pb2.Completion(service=task.queue, key=task.key, token=task.token)
        call = Call(task_key=task.key, attempt=task.attempt, traceparent=task.traceparent)
        asked = False
        try:
            outcome = await self._run(task, call)
        except asyncio.CancelledError:
            if not task.cancel_requested:
                raise
            asked = True
            _stay()
            completion.cancelled, code = True, Code.CANCELLED
        else:
            code = outcome.code
            _fill(completion, outcome, task.method)
        task.handled()
        result = await self._report(task, completion, asked=asked)
        if result == mom_service_pb2.COMPLETE_RESULT_STORED:
            metrics.task_attempts.observe((task.queue,), task.attempt)
        facts = {
            "key": task.key,
            "service": task.queue,
            "method": task.method,
            "attempt": task.attempt,
            "code": code.name,
            "seconds": round(time.monotonic() - began, 6),
            "waited_seconds": round(waited, 3),
            "result": _RESULTS[result],
        }
        if call.trace_id:
            facts["trace_id"] = call.trace_id
        if task.traceparent and call.trace_id != (asked_in := traceparents.trace_id(task.traceparent)):
            # Its span began a trace of its own, on this side of the queue's gap.
            facts["client_trace_id"] = asked_in
        _journal.write(facts)

    async def _run(self, task: ClaimedTask, call: Call) -> Outcome:
        method = self._service.methods.get(task.method)
        if method is None:
            return Outcome(Code.UNIMPLEMENTED, f"{self._service.name} has no method {task.method} here")
        timeout_seconds = self._terms.of(task.method).queued_timeout_seconds
        call.deadline = time.monotonic() + timeout_seconds
        return await self._runner.run(method, task.request, call, timeout_seconds=timeout_seconds)

    async def _report(self, task: ClaimedTask, completion: mom_service_pb2.Completion, *, asked: bool) -> Result:
        while True:
            try:
                # A cancellation withdraws it if it was not sent yet.
                return await self._reporter.report(completion)
            except asyncio.CancelledError:
                # The client's wish comes too late once, for the handler has ended; any other cancellation is an order.
                # The same is reported again: under one token it is answered the same.
                if asked or not task.cancel_requested:
                    raise
                asked = True
                _stay()


def _fill(completion: mom_service_pb2.Completion, outcome: Outcome, method: str) -> None:
    if outcome.code is Code.OK:
        completion.response = outcome.response
        return
    completion.method, completion.overdue = method, outcome.overdue
    completion.error.CopyFrom(outcome.status())


def _stay() -> None:
    """Take back the cancellation that was just caught: this asyncio task goes on."""
    current = asyncio.current_task()
    if current is not None:
        current.uncancel()
