"""Runs a handler: the one way through which both roads go, so that it behaves the same on both.

Bytes in, an `Outcome` out. Whatever the handler does (returns, aborts, sets a code, raises anything at all, calls
`sys.exit`, cancels its own task, returns rubbish) becomes an outcome. Only its owner's cancellation comes out as one.

At its deadline `_time_out` times the call out: its task is cancelled, and a handler that does not end then is left.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from typing import Any, Final, Literal, NamedTuple

from google.protobuf.message import DecodeError

from poste.domain.codes import Code
from poste.runtime import leaving, lifecycle, logs, metrics
from poste.runtime.deadlines import Deadlines
from poste.service import traced
from poste.service.call import REFUSAL_SECONDS, Call, Stage
from poste.service.context import AsyncContext, SyncContext
from poste.service.interception import Interception
from poste.service.isolation import Isolation
from poste.service.outcome import Outcome, answered
from poste.service.servicer import ServedMethod
from poste.service.threads import NoThread, Threads

_log = logs.get("handlers")
#: A plain dict: an enum's own `name` is a slower lookup.
_NAMES: Final = {code: code.name for code in Code}


class Stuck(NamedTuple):
    """A service that has lost all its threads on one road, for how long, and the names of what has them."""

    service: str
    road: str
    seconds: float
    handlers: list[str]


class Runner:
    """Runs the handlers of one road."""

    def __init__(
        self,
        road: Literal["direct", "queued"],
        *,
        threads: int,
        isolation: Isolation | None = None,
        interception: Interception | None = None,
    ) -> None:
        """Prepare.

        Args:
            road: What the metrics call it.
            threads: How many `def` handlers of a service may run at once. On the direct road more wait their turn, for
                as long as their callers have time; on the queued one they are not run.
            isolation: Has processes for some handlers; None if all are run here.
            interception: What calls go through; None if through nothing.
        """
        self._road = road
        self._interception = interception
        self._isolation = isolation
        self._loop = asyncio.get_running_loop()
        self._size = threads
        #: Those of each service: its handlers that hang take none of another's.
        self._threads: dict[str, Threads] = {}
        # A neighbour that blocks the loop must not cost the others an attempt.
        self._deadlines = Deadlines(self._time_out, fair=True)

    async def run(  # noqa: C901 - the one way of every call, all of which would pay for more steps
        self, method: ServedMethod, request: bytes, call: Call, *, timeout_seconds: float | None = None
    ) -> Outcome:
        """Run one handler.

        A `def` handler that is cancelled, or takes too long, goes on in its thread (`context.is_active()` is False
        then); its late answer is dropped. One that is `async def`, takes too long and ignores its cancellation too is
        left behind: `call.leave` is called with the outcome, and what this method returns or raises does not count.

        Args:
            method: Whose handler.
            request: The serialized request message.
            call: What the handler may know of the call.
            timeout_seconds: How long it may take; None if its caller sees to that.

        Raises:
            asyncio.CancelledError: The caller was cancelled (`lifecycle.cancel`), or was left behind. A cancellation
                of any other origin is the handler's own, and becomes an outcome.
        """
        placed = self._isolation is not None and method in self._isolation.methods
        if placed and (timeout_seconds := await self._take_place(call, timeout_seconds)) == 0:
            return Outcome(Code.RESOURCE_EXHAUSTED, "no process was free in time", not_run=True)
        who = (method.service, self._road)
        began, code, ran = time.monotonic(), Code.CANCELLED, True
        metrics.running_calls.add(who, 1)
        # For good: each call is run in an asyncio task of its own.
        logs.names.set(call.names)
        span = traced.begin(method, call, after_a_gap=self._road == "queued")
        # Not asking for the loop, which is a system call here.
        task: asyncio.Task[Any] = asyncio.current_task(self._loop)  # type: ignore[assignment]  # there is one: it runs this
        call.task, call.method, call.timeout_seconds = task, method, timeout_seconds
        if timeout_seconds is not None:
            self._deadlines.add(call, timeout_seconds)
        cancels = task.cancelling()
        try:
            try:
                if placed:
                    outcome = await self._isolation.run(method, request, call)  # type: ignore[union-attr]  # it placed it
                else:
                    outcome = await self._outcome(method, request, call)
            except BaseException as error:  # noqa: BLE001 - an author's code: what it raises is its answer
                outcome = self._answer_of(error, method, call)
            if task.cancelling() > cancels and not lifecycle.was_cancelled(task):
                await _forget_cancellations(task, cancels)
            # Nearly always None, and the lookup of an enum's member takes longer than all the rest of this.
            if call.stage is not None and call.stage is Stage.LEFT:
                raise asyncio.CancelledError
            code, ran = outcome.code, not outcome.not_run
            return outcome
        finally:
            self._deadlines.discard(call)
            if placed:
                self._isolation.leave_place()  # type: ignore[union-attr]  # a place is taken where there are some
            call.close()
            if span is not None:
                traced.end(span, method, code)
            metrics.running_calls.add(who, -1)
            if call.stage is not None and call.stage is Stage.LEFT:
                metrics.handlers_left_behind.add(who, -1)
            elif ran:
                metrics.handled_total.add((method.service, method.name, self._road, _NAMES[code]))
            metrics.handler_seconds.observe(who, time.monotonic() - began)

    def threads_of(self, service: str) -> Threads:
        """Return a service's threads."""
        threads = self._threads.get(service)
        if threads is None:
            lost = functools.partial(metrics.threads_lost.add, (service, self._road))
            threads = self._threads[service] = Threads(self._size, f"{self._road}-handler", lost)
        return threads

    def close(self) -> None:
        """Start no more threads, and let the idle ones end."""
        for threads in self._threads.values():
            threads.close()

    def calling(self) -> list[str]:
        """Return the names of the `def` handlers that go on."""
        return [name for threads in self._threads.values() for name in threads.calling()]

    def lost(self, service: str) -> int:
        """Return how many of a service's threads are lost to handlers that no caller waits for any more."""
        threads = self._threads.get(service)
        return 0 if threads is None else threads.lost

    def stuck(self) -> Stuck | None:
        """Return the service that has lost all its threads, the longest if there are several; None if there is none."""
        found = [
            Stuck(service, self._road, threads.lost_seconds, threads.calling())
            for service, threads in self._threads.items()
            if threads.all_lost
        ]
        return max(found, key=lambda one: one.seconds, default=None)

    async def _take_place(self, call: Call, timeout_seconds: float | None) -> float | None:
        """Wait for a process; returns how long the handler may take from now on, 0 if there was none in time.

        What waits in a queue may wait here too: its time begins with its start.
        """
        patience = None if self._road == "queued" else self._patience(call)
        call.stage = Stage.WAITING
        if not await self._isolation.take_place(patience):  # type: ignore[union-attr]  # there are some
            return 0.0
        call.stage = None
        if timeout_seconds is not None and self._road == "queued":
            call.deadline = time.monotonic() + timeout_seconds
        if timeout_seconds is not None and call.deadline is not None:
            return max(REFUSAL_SECONDS, call.deadline - time.monotonic())
        return timeout_seconds

    def _patience(self, call: Call) -> float | None:
        """How long a call may wait for a thread, in seconds."""
        return 0.0 if self._road == "queued" else call.patience_seconds()

    def _time_out(self, call: Call) -> None:
        task, method = call.task, call.method
        if call.stage is not Stage.OVERDUE:
            call.stage = Stage.OVERDUE
            task.cancel()
            self._deadlines.add(call, lifecycle.CLEANUP_SECONDS)
        elif call.leave is not None:
            call.stage = Stage.LEFT
            outcome = _late(call)
            labels = (method.service, self._road)
            metrics.handlers_left_behind.add(labels, 1)
            metrics.handled_total.add((method.service, method.name, self._road, _NAMES[outcome.code]))
            where = leaving.name_of(task)
            facts = {"service": method.service, "method": method.name, "where": where}
            _log.error("handler left behind", **call.names(), **facts)
            call.leave(call, outcome)

    async def _outcome(self, method: ServedMethod, request: bytes, call: Call) -> Outcome:
        """Return what the handler answers; raises whatever it raises."""
        try:
            message = method.parse(request)
        except DecodeError:
            return Outcome(Code.INVALID_ARGUMENT, "the request can't be decoded")
        if self._interception is not None:
            base = functools.partial(self._behave, method, call)
            try:
                answer = await self._interception.run(method, message, call, AsyncContext(call), base)
            except NoThread as error:
                return Outcome(Code.RESOURCE_EXHAUSTED, str(error), not_run=True)
        elif method.coroutine:
            answer = method.behaviour(message, AsyncContext(call))
            if inspect.isawaitable(answer):
                answer = await answer
        else:
            context = SyncContext(call, self._loop)
            function = functools.partial(method.behaviour, message, context)
            try:
                threads, patience_seconds = self.threads_of(method.service), self._patience(call)
                answer = await threads.run(function, patience_seconds=patience_seconds, begin=call.begin)
            except NoThread as error:
                return Outcome(Code.RESOURCE_EXHAUSTED, str(error), not_run=True)
        if call.aborted or call.code is not Code.OK:
            return call.failure()
        return answered(method.serialize(answer), call.trailing_metadata, call.initial_metadata)

    async def _behave(self, method: ServedMethod, call: Call, message: Any, context: Any) -> Any:
        """Call a handler behind interceptors; returns or raises what it does."""
        if not method.coroutine:
            function = functools.partial(method.behaviour, message, SyncContext(call, self._loop))
            threads, patience_seconds = self.threads_of(method.service), self._patience(call)
            return await threads.run(function, patience_seconds=patience_seconds, begin=call.begin)
        answer = method.behaviour(message, context)
        return await answer if inspect.isawaitable(answer) else answer

    def _answer_of(self, error: BaseException, method: ServedMethod, call: Call) -> Outcome:
        """Return the outcome of what a handler raised; raises CancelledError if there is none to report."""
        task = asyncio.current_task(self._loop)
        if task is None or task is not call.task:
            # It is thrown away together with its loop.
            raise error
        if call.aborted:
            return call.failure()
        if lifecycle.was_cancelled(task):
            # What a handler raises on its way out of a cancellation is not its answer.
            call.cancelled = True
            raise asyncio.CancelledError from error
        if call.stage is Stage.OVERDUE:
            call.cancelled = True
            return _late(call)
        return _failed(method, call, error)


async def _forget_cancellations(task: asyncio.Task[Any], cancels: int) -> None:
    """Take back cancellations that a handler brought upon itself, or that its deadline did: this task goes on."""
    while task.cancelling() > cancels:
        task.uncancel()
    try:
        # One that has not arrived yet would hit whatever is waited for next.
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        if lifecycle.was_cancelled(task):
            raise


def _late(call: Call) -> Outcome:
    words = f"the handler did not answer within {call.timeout_seconds:g} s"
    return Outcome(Code.DEADLINE_EXCEEDED, words, overdue=True)


def _failed(method: ServedMethod, call: Call, error: BaseException) -> Outcome:
    _log.error("handler failed", service=method.service, method=method.name, exc_info=error)
    return call.failed_by(error)
