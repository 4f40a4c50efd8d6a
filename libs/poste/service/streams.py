"""Streaming methods: gRPC runs their handlers itself, and is kept from what it can't bear of them.

Of what is no Exception (a cancellation of its own task, a KeyboardInterrupt, a Rust panic) gRPC's client would hear
nothing until its deadline, and of anything else it would be told the text, which is for nobody but the service's
own people. So they mean here what they mean in a unary handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
import grpc.aio

from poste.runtime import lifecycle, logs
from poste.service.outcome import unexpected

_log: Final = logs.get("handlers")
_Behaviour = Callable[[Any, Any], Any]


def guarded(service: str, name: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    """Return the handler of a streaming method, guarded."""
    guard = _Guard(service, name)
    make: Any
    if handler.request_streaming and handler.response_streaming:
        make, behaviour = grpc.stream_stream_rpc_method_handler, guard.streaming(handler.stream_stream)
    elif handler.response_streaming:
        make, behaviour = grpc.unary_stream_rpc_method_handler, guard.streaming(handler.unary_stream)
    else:
        make, behaviour = grpc.stream_unary_rpc_method_handler, guard.unary(handler.stream_unary)
    made: grpc.RpcMethodHandler[Any, Any] = make(behaviour, handler.request_deserializer, handler.response_serializer)
    return made


class _StreamFailedError(Exception):
    """What gRPC is told of a handler that failed: it makes a status UNKNOWN of it, with its text."""


class _Guard:
    """Guards one method's handler; what it makes of it is of the kind that it was, for gRPC goes by that."""

    def __init__(self, service: str, name: str) -> None:
        self._service = service
        self._name = name

    def unary(self, behaviour: Any) -> _Behaviour:
        """Return one that takes a stream and returns a message."""
        if inspect.iscoroutinefunction(behaviour):
            return self._coroutine(behaviour)

        def function(request: Any, context: Any) -> Any:
            try:
                return behaviour(request, context)
            except grpc.aio.AbortError:
                raise
            except BaseException as error:  # noqa: BLE001 - an author's code
                context.abort(grpc.StatusCode.UNKNOWN, self._failed(error))

        return function

    def streaming(self, behaviour: Any) -> _Behaviour:
        """Return one that makes a stream."""
        if inspect.iscoroutinefunction(behaviour):
            return self._coroutine(behaviour)
        if inspect.isasyncgenfunction(behaviour):

            async def write(request: Any, context: Any) -> None:
                async with contextlib.aclosing(behaviour(request, context)) as messages:
                    async for message in messages:
                        await context.write(message)

            return self._coroutine(write)

        def generator(request: Any, context: Any) -> Iterator[Any]:
            handed_out = False
            try:
                for message in behaviour(request, context):
                    handed_out = True
                    yield message
                    handed_out = False
            except grpc.aio.AbortError:
                raise
            except BaseException as error:
                if handed_out:
                    # It is closed: nobody wants more.
                    raise
                # Not by an abort: that would run into the message before, which may be on its way.
                raise _StreamFailedError(self._failed(error)) from None

        return generator

    def _coroutine(self, behaviour: _Behaviour) -> _Behaviour:
        async def coroutine(request: Any, context: Any) -> Any:
            # A task of its own: only so can a cancellation by gRPC be told from one by the handler itself.
            task = asyncio.create_task(_caught(behaviour, request, context))
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                lifecycle.cancel(task)
                raise
            answer, error = task.result()
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

    def _failed(self, error: BaseException) -> str:
        _log.error("handler failed", service=self._service, method=self._name, exc_info=error)
        return unexpected(error).details


async def _caught(behaviour: _Behaviour, request: Any, context: Any) -> tuple[Any, BaseException | None]:
    """Return what a handler returns, or what it raises: some of that would go past its task, to the loop."""
    try:
        return await behaviour(request, context), None
    except BaseException as error:  # noqa: BLE001 - an author's code
        return None, error
