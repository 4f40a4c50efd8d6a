"""Streaming methods: gRPC calls their handlers itself; what they raise means the same as in a unary handler.

Without this guard the client of a handler that raises what is no Exception (a cancellation of its own task, a
KeyboardInterrupt, a Rust panic) would get no answer until its deadline, and of any other exception it would get the
text, which may hold internals of the service.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
import grpc.aio

from poste.domain import input_rules
from poste.domain.codes import Code
from poste.runtime import lifecycle, logs, metrics
from poste.service import traced
from poste.service.admission_control import AdmissionControl
from poste.service.call import REQUEST_ID, Call
from poste.service.context import SyncContext
from poste.service.outcome import Outcome, answered, unexpected
from poste.service.threads import NoThread, Threads
from poste.service.wire import call_of, end

_log: Final = logs.get("handlers")
_NUMBERS: Final = frozenset(Code)
_Behaviour = Callable[[Any, Any], Any]
#: What an iterator that is at its end gives.
_END: Final = object()


def guarded(
    service: str,
    name: str,
    handler: grpc.RpcMethodHandler[Any, Any],
    *,
    threads: Threads,
    admission: AdmissionControl,
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return the handler of a streaming method, guarded.

    Args:
        service: Its service's full name.
        name: Its short name.
        handler: What the author's servicer has.
        threads: Run generators that are plain functions.
        admission: Counts the streams: of handlers that are plain functions and take a stream, which have a thread of
            gRPC's own each, it counts none.
    """
    guard = _Guard(service, name, threads, admission)
    make: Any
    if handler.request_streaming and handler.response_streaming:
        make, behaviour = grpc.stream_stream_rpc_method_handler, guard.streaming(handler.stream_stream, both=True)
    elif handler.response_streaming:
        make, behaviour = grpc.unary_stream_rpc_method_handler, guard.streaming(handler.unary_stream, both=False)
    else:
        make, behaviour = grpc.stream_unary_rpc_method_handler, guard.unary(handler.stream_unary)
    made: grpc.RpcMethodHandler[Any, Any] = make(behaviour, handler.request_deserializer, handler.response_serializer)
    return made


class _StreamFailedError(Exception):
    """Raised to gRPC for a handler that failed: gRPC makes a status UNKNOWN of it, with its text."""


class _Guard:
    """Guards one method's handler; what it makes of it is of the kind that it was, for gRPC goes by that.

    Attributes:
        service: The full name of its service.
        name: Its short name.
    """

    def __init__(self, service: str, name: str, threads: Threads, admission: AdmissionControl) -> None:
        self.service = service
        self.name = name
        self._threads = threads
        self._admission = admission
        self._loop = asyncio.get_running_loop()

    def unary(self, behaviour: Any) -> _Behaviour:
        """Return one that takes a stream and returns a message."""
        if inspect.iscoroutinefunction(behaviour):
            return self._coroutine(behaviour)

        def function(request: Any, context: Any) -> Any:
            return _context_of(context).run(called, request, context)

        def called(request: Any, context: Any) -> Any:
            code, noting = Code.UNKNOWN, _Noting(context)
            try:
                answer = behaviour(request, noting)
                code = _said(noting, Code.OK)
                return answer  # noqa: TRY300 - it is the `finally` that counts
            except grpc.aio.AbortError:
                code = _said(noting, Code.UNKNOWN)
                raise
            except BaseException as error:  # noqa: BLE001 - an author's code
                context.abort(grpc.StatusCode.UNKNOWN, self._failed(error))
            finally:
                self._loop.call_soon_threadsafe(self._count, code)

        return function

    def streaming(self, behaviour: Any, *, both: bool) -> _Behaviour:
        """Return one that makes a stream; it takes one too if `both`."""
        if inspect.iscoroutinefunction(behaviour):
            return self._coroutine(behaviour)
        if inspect.isasyncgenfunction(behaviour):

            async def write(request: Any, context: Any) -> None:
                async with contextlib.aclosing(behaviour(request, context)) as messages:
                    async for message in messages:
                        await context.write(message)

            return self._coroutine(write)
        if not both:
            return self._coroutine(functools.partial(self._write_from_threads, behaviour))
        return self._generator(behaviour)

    def _generator(self, behaviour: Any) -> _Behaviour:
        """Return a plain function that takes a stream and makes one: gRPC gives it a thread of its own."""

        def generator(request: Any, context: Any) -> Iterator[Any]:
            handed_out, code, noting = False, Code.UNKNOWN, _Noting(context)
            within = _context_of(context)
            try:
                messages = iter(within.run(behaviour, request, noting))
                while (message := within.run(next, messages, _END)) is not _END:
                    handed_out = True
                    yield message
                    handed_out = False
                code = _said(noting, Code.OK)
            except grpc.aio.AbortError:
                code = _said(noting, Code.UNKNOWN)
                raise
            except BaseException as error:
                if handed_out:
                    # It is closed: no client wants more.
                    code = Code.CANCELLED
                    raise
                # Not by an abort: that would run into the message before, which may be on its way.
                raise _StreamFailedError(within.run(self._failed, error)) from None
            finally:
                self._loop.call_soon_threadsafe(self._count, code)

        return generator

    async def _write_from_threads(self, behaviour: _Behaviour, request: Any, wire: Any) -> None:
        """Run a generator in threads, message by message: it has one while it makes a message, and none meanwhile.

        gRPC would keep a thread for it to the end, and go on asking it when its client has left.
        """
        call = call_of(wire)
        messages = _Generated(functools.partial(behaviour, request, SyncContext(call, self._loop)), call)
        task = asyncio.current_task()
        try:
            while (
                message := await self._threads.run(messages.next, patience_seconds=call.patience_seconds())
            ) is not _END:
                await wire.write(message)
            outcome = call.failure() if call.code is not Code.OK else answered(b"", call.trailing_metadata)
        except NoThread as error:
            # At once: to close what began takes a thread, too.
            await end(wire, Outcome(Code.RESOURCE_EXHAUSTED, str(error), not_run=not messages.begun))
            return
        except BaseException as error:
            if task is None or lifecycle.was_cancelled(task):
                raise
            if call.aborted:
                outcome = call.failure()
            else:
                self._failed(error)
                outcome = call.failed_by(error)
        finally:
            call.close()
            if messages.left():
                await self._threads.run(messages.close)
        await end(wire, outcome)

    def _coroutine(self, behaviour: _Behaviour) -> _Behaviour:
        async def coroutine(request: Any, context: Any) -> Any:
            if (refusal := self._admission.refusal()) is not None:
                return await end(context, refusal)
            self._admission.begin()
            try:
                return await counted(request, context)
            finally:
                self._admission.end()

        async def counted(request: Any, context: Any) -> Any:
            # gRPC runs each call in an asyncio task of its own.
            _bind(context)
            span, code = traced.begin(self, call_of(context), after_a_gap=False), Code.CANCELLED
            # A task of its own: without it a cancellation by gRPC could not be distinguished from one by the handler.
            task = asyncio.create_task(_caught(behaviour, request, context))
            try:
                await asyncio.wait([task])
                answer, error = task.result()
                code = _said(context, Code.OK if error is None else Code.UNKNOWN)
            except asyncio.CancelledError:
                lifecycle.cancel(task)
                raise
            finally:
                self._count(code)
                if span is not None:
                    traced.end(span, self, code)
            if isinstance(error, grpc.aio.AbortError):
                raise error
            if error is not None and not context.done():
                await self._abort(error, context)
            return answer

        return coroutine

    async def _abort(self, error: BaseException, context: Any) -> None:
        said = context.code() not in (None, 0, grpc.StatusCode.OK)
        words = self._failed(error)
        # It may have said what went wrong before it raised: that counts.
        code = context.code() if said else grpc.StatusCode.UNKNOWN
        await context.abort(code, (said and context.details()) or words)

    def _count(self, code: Code) -> None:
        # Who streams speaks to the service itself.
        metrics.handled_total.add((self.service, self.name, "direct", code.name))

    def _failed(self, error: BaseException) -> str:
        _log.error("handler failed", service=self.service, method=self.name, exc_info=error)
        return unexpected(error).details


class _Generated:
    """The messages of a generator that is a plain function: one thread at a time makes one, or closes it.

    Whichever comes last, the end of the call or that of the message that is being made, closes it.
    """

    def __init__(self, begin: Callable[[], Any], call: Call) -> None:
        self._begin = begin
        self._call = call
        self._messages: Iterator[Any] | None = None
        self._busy = False
        self._closing = threading.Lock()

    def next(self) -> Any:
        """Make a message; `_END` if there are no more. In a thread."""
        self._busy = True
        try:
            if self._messages is None:
                self._messages = iter(self._begin())
            return next(self._messages, _END)
        finally:
            self._busy = False
            if self._call.over and self._closing.acquire(blocking=False):
                self.close()

    @property
    def begun(self) -> bool:
        """Whether the generator was made: before, nothing of its handler has run."""
        return self._messages is not None

    def left(self) -> bool:
        """Return whether it is to be closed now that the call is over."""
        return self.begun and not self._busy and self._closing.acquire(blocking=False)

    def close(self) -> None:
        """Close it. In a thread: it is an author's code."""
        close = getattr(self._messages, "close", None)
        if close is not None:
            close()


def _bind(context: Any) -> None:
    """Have every line of the log say which request the running code serves."""
    given = next((value for key, value in context.invocation_metadata() or () if key == REQUEST_ID), "")
    if input_rules.is_request_id(given):
        logs.names.set(lambda: {"request_id": given})


def _context_of(context: Any) -> contextvars.Context:
    """Return a context for one call that runs in a thread of gRPC's, which has others before and after it."""
    within = contextvars.copy_context()
    within.run(_bind, context)
    return within


class _Noting:
    """The context of a `def` handler, noting the status that is set: gRPC's own does not show it."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._code: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_code(self, code: Any) -> None:
        self._code = code
        self._context.set_code(code)

    def abort(self, code: Any, *more: Any, **named: Any) -> None:
        self._code = code
        self._context.abort(code, *more, **named)

    def code(self) -> Any:
        return self._code


def _said(context: Any, otherwise: Code) -> Code:
    """Return the status that a handler has set, if it has set one."""
    said = context.code()
    number = said.value[0] if isinstance(said, grpc.StatusCode) else said
    return Code(number) if number in _NUMBERS and number else otherwise


async def _caught(behaviour: _Behaviour, request: Any, context: Any) -> tuple[Any, BaseException | None]:
    """Return what a handler returns, or what it raises: some of that would go past its task, to the loop."""
    try:
        return await behaviour(request, context), None
    except BaseException as error:  # noqa: BLE001 - an author's code
        return None, error
