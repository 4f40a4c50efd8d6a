"""A channel to a server of ours that leads to all its replicas: each has a connection, and a pulse, of its own.

gRPC's round robin would do it over one channel, but for a replica that hangs: every other call would go to it, and its
connection is ended only by a keepalive that takes a server which is late, or its own halt, for dead. Here calls go to
replicas that live; what a silent one was asked is lost to its caller if another could be asked, and goes on otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final, Self, TypeAlias

import grpc
import grpc.aio

from poste.rpc.channels import NOT_RUN, connect
from poste.rpc.credentials import Credentials, Secured
from poste.rpc.peer_names import MOM
from poste.rpc.pulse import Pulse
from poste.rpc.resolving import Resolver
from poste.runtime import logs

#: How often the target is resolved while all that it led to are connected, in seconds; and otherwise.
_RESOLVE_SECONDS: Final = 5.0
_SOON_SECONDS: Final = 0.5

_READY: Final = grpc.ChannelConnectivity.READY
_FAILED: Final = grpc.ChannelConnectivity.TRANSIENT_FAILURE

_log: Final = logs.get("replicated")
# gRPC's stubs for multi-callables are not what its channels return.
_Callable = Any
_Call = Any
_Key: TypeAlias = tuple[str, Secured | None]


class _Replica:
    """One replica."""

    def __init__(self, address: str, secured: Secured | None, changed: Callable[[], None]) -> None:
        self.address = address
        self.channel = connect(address, library=True, secured=secured)
        self.pulse = Pulse(self._turned)
        self.listed = True
        #: Another connection leads to it by now.
        self.superseded = False
        #: What is under way, and what of it was given up because another replica can be asked.
        self.calls: set[_Call] = set()
        self.left: set[_Call] = set()
        self._changed = changed
        self._callables: dict[str, _Callable] = {}

    @property
    def state(self) -> grpc.ChannelConnectivity:
        return self.channel.get_state(try_to_connect=True)

    async def watch(self) -> None:
        """Keep it connecting, and feel its pulse, for ever."""
        async with asyncio.TaskGroup() as duties:
            duties.create_task(self.pulse.follow(self.channel))
            while True:
                state = self.state
                self._changed()
                await self.channel.wait_for_state_change(state)

    def _turned(self) -> None:
        if self.pulse.silent:
            _log.warning("replica silent", address=self.address)
        else:
            _log.info("replica no longer silent", address=self.address)
        self._changed()

    def multi(self, kind: str, path: str, codecs: dict[str, Any]) -> _Callable:
        """Return the callable of a method."""
        made = self._callables.get(path)
        if made is None:
            made = self._callables[path] = getattr(self.channel, kind)(path, **codecs)
        return made

    @contextlib.contextmanager
    def carrying(self, call: _Call) -> Iterator[None]:
        """Count a call as under way here; turns its being given up into an error like any lost call's."""
        self.calls.add(call)
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call in self.left and not (task and task.cancelling()):
                raise _error(grpc.StatusCode.UNAVAILABLE, f"{self.address} is silent") from None
            raise
        finally:
            self.calls.discard(call)
            self.left.discard(call)

    def leave(self) -> None:
        """Give up what is under way."""
        for call in self.calls - self.left:
            self.left.add(call)
            call.cancel()


class Replicated(grpc.aio.Channel):
    """The channel. `run` keeps it going."""

    def __init__(self, target: str, credentials: Credentials | None = None) -> None:
        """Know no replica yet.

        Args:
            target: A gRPC target, e.g. `dns:///tasks.mom:50051`, or `ipv4:` and several addresses.
            credentials: What its connections are secured by, to replicas of the middleware; they are not unless given.
        """
        self._target = target
        self._credentials = credentials
        self._resolver = Resolver()
        #: By address, and how it is secured: after a renewal of the certificate a replica is connected anew.
        self._replicas: dict[_Key, tuple[_Replica, asyncio.Task[None]]] = {}
        self._rotation = 0
        self._changes = asyncio.Event()

    async def run(self) -> None:
        """Resolve the target and watch its replicas, for ever."""
        async with asyncio.TaskGroup() as watches:
            while True:
                await self._list(await self._resolver.resolve((self._target,)), watches)
                well = bool(self._replicas) and all(one.state is _READY for one, _ in self._replicas.values())
                await asyncio.sleep(_RESOLVE_SECONDS if well else _SOON_SECONDS)

    async def _list(self, addresses: frozenset[str], watches: asyncio.TaskGroup) -> None:
        secured = None if self._credentials is None else self._credentials.towards(MOM)
        for address in addresses:
            if (address, secured) not in self._replicas:
                replica = _Replica(address, secured, self._changed)
                self._replicas[address, secured] = replica, watches.create_task(replica.watch())
        for key, (replica, watch) in list(self._replicas.items()):
            replica.listed = key[0] in addresses and key[1] == secured
            successor = None if replica.listed else self._replicas.get((key[0], secured))
            replica.superseded = successor is not None and successor[0].state is _READY
            # One that is still connected may only have fallen out of a stale answer.
            well = replica.state is _READY and not (replica.superseded or replica.pulse.silent)
            if not (replica.listed or replica.calls or well):
                del self._replicas[key]
                watch.cancel()
                await asyncio.wait([watch])
                await replica.channel.close()
        self._changed()

    def _changed(self) -> None:
        self._changes.set()
        self._changes = asyncio.Event()
        if self._living():
            for replica, _ in self._replicas.values():
                if replica.pulse.silent:
                    replica.leave()

    def _ready(self) -> list[_Replica]:
        return [replica for replica, _ in self._replicas.values() if replica.state is _READY]

    def _living(self) -> list[_Replica]:
        return [replica for replica in self._ready() if not (replica.pulse.silent or replica.superseded)]

    def _pick(self) -> _Replica | None:
        """Choose in turn among those that live; else among those that are silent; else one that is being connected."""
        choice = (
            self._living()
            or self._ready()
            or [replica for replica, _ in self._replicas.values() if replica.state is not _FAILED]
        )
        if not choice:
            return None
        self._rotation += 1
        return choice[self._rotation % len(choice)]

    async def _choose(self, timeout: float | None, wait_for_ready: bool | None) -> tuple[_Replica, float | None]:  # noqa: ASYNC109 - gRPC's name
        """Choose the replica for a call; returns it, and what is left of the call's time."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        if wait_for_ready and not self._ready():
            try:
                async with asyncio.timeout(timeout):
                    while not self._ready():
                        await self._changes.wait()
            except TimeoutError:
                raise _error(grpc.StatusCode.DEADLINE_EXCEEDED, "no replica was reached", (NOT_RUN, "1")) from None
        replica = self._pick()
        if replica is None:
            raise _error(grpc.StatusCode.UNAVAILABLE, "no replica is reached", (NOT_RUN, "1"))
        return replica, None if timeout is None else max(0.0, timeout - (loop.time() - begin))

    async def _send(
        self,
        kind: str,
        method: str,
        codecs: dict[str, Any],
        request: Any,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - gRPC's name
        metadata: Any = None,
        wait_for_ready: bool | None = None,
    ) -> tuple[_Replica, _Call]:
        """Send a call to one of the replicas; returns that, and the call."""
        replica, left = await self._choose(timeout, wait_for_ready)
        callable_ = replica.multi(kind, method, codecs)
        return replica, callable_(request, timeout=left, metadata=metadata, wait_for_ready=wait_for_ready)

    def unary_unary(self, method: str, *codecs: Any, **named: Any) -> Any:
        """Return what calls a method of the replicas, each time one of them."""
        given = _codecs(codecs, named)

        async def call(request: Any, **options: Any) -> Any:
            replica, under_way = await self._send("unary_unary", method, given, request, **options)
            with replica.carrying(under_way):
                return await under_way

        return call

    def unary_stream(self, method: str, *codecs: Any, **named: Any) -> Any:
        """Return what calls a method whose answer is a stream, each time on one of the replicas."""
        given = _codecs(codecs, named)

        async def call(request: Any, **options: Any) -> AsyncIterator[Any]:
            replica, under_way = await self._send("unary_stream", method, given, request, **options)
            try:
                with replica.carrying(under_way):
                    async for response in under_way:
                        yield response
            finally:
                under_way.cancel()

        return call

    def stream_unary(self, method: str, *_: Any, **__: Any) -> Any:
        """Refuse: our servers are sent no streams over this."""
        raise NotImplementedError(method)

    def stream_stream(self, method: str, *_: Any, **__: Any) -> Any:
        """Refuse: our servers are sent no streams over this."""
        raise NotImplementedError(method)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: ARG002 - it always does
        """Return READY if a call would be sent now; else what the best of the replicas is at."""
        states = {replica.state for replica, _ in self._replicas.values()}
        order = (_READY, grpc.ChannelConnectivity.CONNECTING, grpc.ChannelConnectivity.IDLE, _FAILED)
        return next((state for state in order if state in states), grpc.ChannelConnectivity.CONNECTING)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another one."""
        while self.get_state() is last_observed_state:
            await self._changes.wait()

    async def channel_ready(self) -> None:
        """Wait until a call would be sent."""
        while (state := self.get_state()) is not _READY:
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """Close every connection; what is under way and not over after the grace, in seconds, is cut off."""
        for replica, _ in self._replicas.values():
            await replica.channel.close(grace)

    async def __aenter__(self) -> Self:
        """Enter; `__aexit__` closes it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()


def _codecs(given: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
    return {**dict(zip(("request_serializer", "response_deserializer"), given, strict=False)), **named}


def _error(code: grpc.StatusCode, details: str, *trailers: tuple[str, str]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)
