"""The direct road: the service as an ordinary gRPC server, with health and reflection.

A call that is not run (too many run already, or the process is stopping) says so in its trailers, so that the gateway
may queue it whatever its method. Streams are counted apart from other calls, for they may last for hours: a stop waits
for both, as long as the grace goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection

from poste.rpc.credentials import Credentials
from poste.rpc.servers import Health, bind, bind_socket, new_server
from poste.runtime import lifecycle
from poste.service.admission_control import AdmissionControl
from poste.service.call import Call
from poste.service.handlers import Runner
from poste.service.interception import OfStreams
from poste.service.link_servicer import LinkServicer
from poste.service.outcome import Outcome, not_here
from poste.service.servicer import ServedMethod, ServedService
from poste.service.streams import guarded
from poste.service.wire import Wire, call_of, end
from poste.v1.link_service_pb2_grpc import add_LinkServiceServicer_to_server

#: A draining server answers at least this long, in seconds: calls that were on their way when the gateways heard
#: NOT_SERVING (it takes milliseconds) are answered with the proof that they did not run.
_LINGER_SECONDS: Final = 0.2
#: How long the links may take to end, in seconds: a gateway that reads sees it in milliseconds.
_LINKS_SECONDS: Final = 0.5
#: How long a stream may go on over a connection that has reached its age, in seconds: its own time may be longer than
#: other calls'.
_STREAM_SECONDS: Final = 86_400
#: How long the last answers may take to leave once the server stops, in seconds.
_FLUSH_SECONDS: Final = 0.1


class DirectRoad:
    """The gRPC server of one process."""

    def __init__(
        self,
        services: Sequence[ServedService],
        runner: Runner,
        *,
        max_calls: int,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        credentials: Credentials | None = None,
    ) -> None:
        """Prepare; `listen` begins.

        Args:
            services: What is served.
            runner: Runs the handlers.
            max_calls: How many unary calls may run at once, and how many streams beside them.
            interceptors: What calls of streaming methods go through; all others do in `runner`.
            credentials: What connections are secured by; they are not unless given.
        """
        self._credentials = credentials
        self._runner = runner
        self._admission, self._streams = AdmissionControl(max_calls), AdmissionControl(max_calls)
        streaming_paths = frozenset(f"/{one.name}/{name}" for one in services for name in one.streaming)
        self._server = new_server(
            [OfStreams(one, streaming_paths) for one in interceptors] if streaming_paths else (),
            call_seconds=_STREAM_SECONDS,
        )
        names = [service.name for service in services]
        for service in services:
            handlers = {name: self._serve(method) for name, method in service.methods.items()}
            threads = runner.threads_of(service.name)
            streaming = {
                name: guarded(service.name, name, one, threads=threads, admission=self._streams)
                for name, one in service.streaming.items()
            }
            generic = grpc.method_handlers_generic_handler(service.name, {**streaming, **handlers})
            self._server.add_generic_rpc_handlers((generic,))
        by_path = {f"/{one.name}/{name}": method for one in services for name, method in one.methods.items()}
        self._links = LinkServicer(by_path, runner, self._admission, gateways_only=credentials is not None)
        add_LinkServiceServicer_to_server(self._links, self._server)
        self._health = Health(self._server, *names)
        reflection.enable_server_reflection([*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], self._server)
        # The last one: they are asked in turn.
        self._server.add_generic_rpc_handlers((_NotHere(),))

    async def listen(self, host: str, port: int) -> int:
        """Serve from now on; returns the port.

        Raises:
            StartError: The port is taken, or the address is not this host's.
        """
        bound = bind(self._server, host, port, self._credentials)
        await self._begin()
        return bound

    async def listen_at(self, path: Path) -> None:
        """Serve from now on, at a socket in the file system.

        Raises:
            StartError: It can't be made there.
        """
        bind_socket(self._server, path, self._credentials)
        await self._begin()

    async def _begin(self) -> None:
        await self._server.start()
        await self._health.serving()

    def live(self) -> bool:
        """Return whether direct calls come in."""
        return self._admission.live()

    async def drain(self, grace_seconds: float) -> None:
        """Run no more calls, and wait for those that run, as long as the grace goes.

        Those that come in meanwhile are refused with the proof that they did not run.
        """
        self._admission.close()
        self._streams.close()
        await self._health.not_serving()
        await asyncio.sleep(min(_LINGER_SECONDS, grace_seconds))
        await asyncio.gather(self._admission.drained(grace_seconds), self._streams.drained(grace_seconds))

    async def close(self) -> None:
        """Stop serving; what still runs is cancelled."""
        await self._links.close(_LINKS_SECONDS)
        # A stop waits for streams, and every gateway keeps one open (health): so the grace ends here.
        await self._server.stop(_FLUSH_SECONDS)
        await self._admission.drained(1.0)

    def _serve(self, method: ServedMethod) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def behaviour(request: bytes, wire: Wire) -> bytes:
            if (refusal := self._admission.refusal()) is not None:
                return await end(wire, refusal)
            self._admission.begin()
            call = call_of(wire)
            # A task of its own: gRPC cancels its task when the client has left, and without it that could not be
            # distinguished from a handler that cancels itself.
            over: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
            call.leave = lambda _, outcome: over.set_result(outcome)
            task = asyncio.create_task(self._run(method, request, call, over))
            # Counted until the answer has left and the handler has ended.
            wire.add_done_callback(lambda _: over.add_done_callback(self._ended))  # type: ignore[arg-type]  # its protocol wants another name
            try:
                outcome = await asyncio.shield(over)
            except asyncio.CancelledError:
                lifecycle.cancel(task)
                raise
            if outcome is None:
                raise asyncio.CancelledError
            return await end(wire, outcome)

        # Bytes in, bytes out: parsing is the runner's, for it must go wrong in the same way on both roads.
        return grpc.unary_unary_rpc_method_handler(_untyped(behaviour))

    async def _run(
        self, method: ServedMethod, request: bytes, call: Call, over: asyncio.Future[Outcome | None]
    ) -> None:
        """Run a handler and say what it ended with: None if its client has left."""
        outcome = None
        try:
            outcome = await self._runner.run(method, request, call, timeout_seconds=call.remaining_seconds())
        except asyncio.CancelledError:
            return
        finally:
            if not over.done():
                over.set_result(outcome)

    def _ended(self, _: object) -> None:
        self._admission.end()


class _NotHere(grpc.GenericRpcHandler):
    """Asked last: answers calls of methods that this process does not have with the proof that they did not run."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        outcome = not_here(details.method)

        async def refuse(_: object, wire: Wire) -> None:
            await end(wire, outcome)

        # Whatever the method's kind is: nothing is read.
        return grpc.stream_stream_rpc_method_handler(_untyped(refuse))


def _untyped(behaviour: Callable[[Any, Wire], Awaitable[bytes | None]]) -> Any:
    """Hide from the type checker that gRPC's stubs know synchronous handlers only."""
    return behaviour
