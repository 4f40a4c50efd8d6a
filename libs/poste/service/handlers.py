"""Runs a handler: the one way through which both roads go, so that it behaves the same on both.

Bytes in, an `Outcome` out. Whatever the handler does (returns, aborts, sets a code, raises, calls `sys.exit`, lets a
CancelledError escape, returns rubbish) becomes an outcome. Only a cancellation from outside comes out as one.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from typing import Any, Final, Literal

from google.protobuf.message import DecodeError

from poste.domain import sizes
from poste.domain.codes import Code
from poste.runtime import logs, metrics
from poste.runtime.deadlines import Deadlines
from poste.service import traced
from poste.service.context import AsyncContext, Call, SyncContext
from poste.service.outcome import Outcome, unexpected
from poste.service.servicer import ServedMethod
from poste.service.threads import Threads

_log = logs.get("handlers")
#: Looked up at once, which an enum's own `name` is not.
_NAMES: Final = {code: code.name for code in Code}


class Runner:
    """Runs the handlers of one road."""

    def __init__(self, road: Literal["direct", "durable"], *, threads: int) -> None:
        """Prepare.

        Args:
            road: What the metrics call it.
            threads: How many `def` handlers may run at once; more wait their turn.
        """
        self._road = road
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(threads, f"{road}-handler")
        # A neighbour that blocks the loop must not cost the others an attempt.
        self._deadlines = Deadlines(self._expire, fair=True)
        #: Tasks that were cancelled for their deadline, and how many cancellations each had before.
        self._overdue: dict[asyncio.Task[Any], int] = {}

    async def run(
        self, method: ServedMethod, request: bytes, call: Call, *, timeout_seconds: float | None = None
    ) -> Outcome:
        """Run one handler.

        A `def` handler that is cancelled, or takes too long, goes on in its thread (`context.is_active()` tells it);
        its late answer is dropped.

        Args:
            method: Whose handler.
            request: The serialized request message.
            call: What the handler may know of the call.
            timeout_seconds: How long it may take; None if somebody else sees to that.

        Raises:
            asyncio.CancelledError: The caller was cancelled, not just something within the handler.
        """
        who = (method.service, self._road)
        began, code = time.monotonic(), Code.CANCELLED
        metrics.running_calls.add(who, 1)
        bound = logs.request_id.set(call.request_id) if call.request_id else None
        span = traced.begin(method, call, after_a_gap=self._road == "durable")
        # Not asking for the loop, which is a system call here.
        task: asyncio.Task[Any] = asyncio.current_task(self._loop)  # type: ignore[assignment]  # there is one: it runs this
        if timeout_seconds is not None:
            self._deadlines.add(task, timeout_seconds)
        try:
            outcome = await self._outcome(method, request, call, task)
            code = outcome.code
        except asyncio.CancelledError:
            call.cancelled = True
            if not self._is_overdue(task):
                raise
            code = Code.DEADLINE_EXCEEDED
            return Outcome(code, f"the handler did not answer within {timeout_seconds:g} s", overdue=True)
        else:
            if self._overdue:
                self._is_overdue(task)
            return outcome
        finally:
            self._deadlines.discard(task)
            call.close()
            if bound is not None:
                logs.request_id.reset(bound)
            if span is not None:
                traced.end(span, method, code)
            metrics.running_calls.add(who, -1)
            metrics.handled_total.add((method.service, method.name, self._road, _NAMES[code]))
            metrics.handler_seconds.observe(who, time.monotonic() - began)

    def close(self) -> None:
        """Start no more threads, and let the idle ones end."""
        self._threads.close()

    def _expire(self, task: asyncio.Task[Any]) -> None:
        self._overdue[task] = task.cancelling()
        task.cancel()

    def _is_overdue(self, task: asyncio.Task[Any]) -> bool:
        """Tell whether it was its deadline that a task was cancelled for, and nothing else; take that back."""
        cancels = self._overdue.pop(task, None)
        return cancels is not None and task.uncancel() <= cancels

    async def _outcome(self, method: ServedMethod, request: bytes, call: Call, task: asyncio.Task[Any]) -> Outcome:
        try:
            message = method.parse(request)
        except DecodeError:
            return Outcome(Code.INVALID_ARGUMENT, "the request can't be decoded")
        cancels = task.cancelling()
        try:
            if method.coroutine:
                answer = method.behaviour(message, AsyncContext(call))
                if inspect.isawaitable(answer):
                    answer = await answer
            else:
                context = SyncContext(call, self._loop)
                answer = await self._threads.run(functools.partial(method.behaviour, message, context))
            if call.aborted or call.code is not Code.OK:
                return call.failure()
            response = method.serialize(answer)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if call.aborted:
                return call.failure()
            if task.cancelling() > cancels:
                # What a handler raises on its way out of a cancellation is not its answer.
                raise asyncio.CancelledError from error
            return _failed(method, call, error)
        if len(response) > sizes.MAX_PAYLOAD:
            # Final on both roads: it would be as large the next time.
            return Outcome(
                Code.OUT_OF_RANGE, f"the response has {len(response)} bytes: a message carries {sizes.MAX_PAYLOAD}"
            )
        return Outcome(Code.OK, response=response, trailing_metadata=call.trailing_metadata)


def _failed(method: ServedMethod, call: Call, error: BaseException) -> Outcome:
    _log.error("handler failed", service=method.service, method=method.name, exc_info=error)
    if call.code is Code.OK:
        return unexpected(error)
    # It had said what went wrong before it raised, as the generated base class does: those words count.
    said = call.failure()
    return said if said.details else said._replace(details=unexpected(error).details)
