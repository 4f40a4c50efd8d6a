"""The direct road: the service as an ordinary gRPC server, with health and reflection.

A call that is not run (too many run already, or the process is stopping) says so in its trailers, so that the gateway
may queue it whatever its method. Streaming methods are served as gRPC serves them, and end when the server stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Never

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection

from poste.domain.codes import Code
from poste.rpc.channels import NOT_RUN
from poste.rpc.servers import Health, bind, new_server
from poste.service.context import Call
from poste.service.handlers import Runner
from poste.service.outcome import STATUS_CODES, Metadata, Metadatum
from poste.service.servicer import ServedMethod, ServedService

#: A draining server answers at least this long, in seconds: calls that were on their way when the gateways heard
#: NOT_SERVING (it takes milliseconds) are answered with the proof that they did not run.
_LINGER_SECONDS: Final = 0.2
#: How long the last answers may take to leave once the server stops, in seconds.
_FLUSH_SECONDS: Final = 0.1
#: Metadata that tells a handler which try this is; 1 unless the caller says otherwise.
ATTEMPT: Final = "poste-attempt"
#: Metadata that tells a handler which queued task it runs; nobody else may say so.
TASK_KEY: Final = "poste-task-key"

Wire = grpc.aio.ServicerContext[Any, Any]


class DirectRoad:
    """The gRPC server of one process."""

    def __init__(self, services: Sequence[ServedService], runner: Runner, *, max_calls: int) -> None:
        """Prepare; `listen` begins.

        Args:
            services: What is served.
            runner: Runs the handlers.
            max_calls: How many unary calls may run at once.
        """
        self._runner = runner
        self._max_calls = max_calls
        self._running = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._server = new_server()
        names = [service.name for service in services]
        for service in services:
            handlers = {name: self._serve(method) for name, method in service.methods.items()}
            generic = grpc.method_handlers_generic_handler(service.name, {**service.streaming, **handlers})
            self._server.add_generic_rpc_handlers((generic,))
        self._health = Health(self._server, *names)
        reflection.enable_server_reflection([*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], self._server)

    async def listen(self, host: str, port: int) -> int:
        """Serve from now on; returns the port.

        Raises:
            StartError: The port is taken, or the address is not this host's.
        """
        bound = bind(self._server, host, port)
        await self._server.start()
        await self._health.serving()
        return bound

    async def drain(self, grace_seconds: float) -> None:
        """Run no more calls, and wait for those that run, as long as the grace goes.

        Those that come in meanwhile are refused with the proof that they did not run.
        """
        self._draining = True
        await self._health.not_serving()
        await asyncio.sleep(min(_LINGER_SECONDS, grace_seconds))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_seconds)

    async def close(self) -> None:
        """Stop serving; what still runs is cancelled."""
        # A stop waits for streams, and every gateway keeps one open (health): so the grace ends here.
        await self._server.stop(_FLUSH_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), 1.0)

    def _serve(self, method: ServedMethod) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def behaviour(request: bytes, wire: Wire) -> bytes:
            if self._draining:
                await _refuse(wire, Code.UNAVAILABLE, "the service is stopping")
            if self._running >= self._max_calls:
                await _refuse(wire, Code.RESOURCE_EXHAUSTED, f"{self._max_calls} calls run already")
            self._begin(wire)
            outcome = await self._runner.run(method, request, _call(wire))
            if outcome.code is not Code.OK:
                await wire.abort(STATUS_CODES[outcome.code], outcome.details, outcome.trailing_metadata)
            if outcome.trailing_metadata:
                wire.set_trailing_metadata(outcome.trailing_metadata)
            return outcome.response

        # Bytes in, bytes out: parsing is the runner's, for it must go wrong in the same way on both roads.
        return grpc.unary_unary_rpc_method_handler(_untyped(behaviour))

    def _begin(self, wire: Wire) -> None:
        self._running += 1
        self._idle.clear()
        # Counted until the answer has left, not only until the handler has ended.
        wire.add_done_callback(self._ended)  # type: ignore[arg-type]  # its protocol wants another name

    def _ended(self, _: Wire) -> None:
        self._running -= 1
        if self._running == 0:
            self._idle.set()


def _untyped(behaviour: Callable[[bytes, Wire], Awaitable[bytes]]) -> Any:
    """Hide from the type checker that gRPC's stubs know synchronous handlers only."""
    return behaviour


async def _refuse(wire: Wire, code: Code, details: str) -> Never:
    await wire.abort(STATUS_CODES[code], details, ((NOT_RUN, "1"),))


def _call(wire: Wire) -> Call:
    # Read now: once the call is over its context leads nowhere, and a `def` handler may ask late.
    remaining: float | None = wire.time_remaining()
    return Call(
        metadata=_metadata(wire),
        peer=wire.peer(),
        deadline=None if remaining is None else time.monotonic() + remaining,
        wire=wire,
    )


def _metadata(wire: Wire) -> Metadata:
    pairs = [Metadatum(key, value) for key, value in wire.invocation_metadata() or () if key != TASK_KEY]
    if all(pair.key != ATTEMPT for pair in pairs):
        pairs.append(Metadatum(ATTEMPT, "1"))
    return tuple(pairs)
