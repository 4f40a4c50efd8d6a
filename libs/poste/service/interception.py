"""An author's gRPC interceptors: each call goes through them, whichever road it came by.

gRPC's own server calls interceptors itself, and knows nothing of a call that came in company, or from the queue. So
here they are asked where all roads meet; by gRPC's server only for methods that stream.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio

from poste.service.call import Call
from poste.service.outcome import Metadata
from poste.service.servicer import ServedMethod

Behaviour = Callable[[Any, Any], Awaitable[Any]]


class CallDetails(NamedTuple):
    """What an interceptor gets of a call."""

    method: str
    invocation_metadata: Metadata


class Interception:
    """Interceptors, the first one outermost."""

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        self._interceptors = tuple(interceptors)

    async def run(self, method: ServedMethod, message: Any, call: Call, context: Any, base: Behaviour) -> Any:
        """Return what a handler answers through them.

        Args:
            method: Whose.
            message: The request.
            call: The call.
            context: What the handler is given.
            base: The handler itself.
        """

        async def last(_: Any) -> grpc.RpcMethodHandler[Any, Any]:
            untyped: Any = base
            return grpc.unary_unary_rpc_method_handler(untyped, method.parse, method.serialize)

        ask: Any = last
        for interceptor in reversed(self._interceptors):
            ask = functools.partial(interceptor.intercept_service, ask)
        handler = await ask(CallDetails(f"/{method.service}/{method.name}", call.metadata()))
        if handler is None or handler.unary_unary is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no interceptor has a handler for it")
        answer: Any = handler.unary_unary(message, context)
        return await answer if isinstance(answer, Awaitable) else answer


class OfStreams(grpc.aio.ServerInterceptor):
    """An interceptor as gRPC's own server asks it: of methods that stream, and of no others."""

    def __init__(self, interceptor: grpc.aio.ServerInterceptor, methods: frozenset[str]) -> None:
        self._interceptor = interceptor
        self._methods = methods

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Pass a call on, through the interceptor if its method streams."""
        if handler_call_details.method in self._methods:
            return await self._interceptor.intercept_service(continuation, handler_call_details)
        return await continuation(handler_call_details)
