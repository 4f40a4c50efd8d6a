"""One replica of a service: one address with a channel of its own, so that its state is nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
import grpc.aio

from poste.rpc import channels
from poste_gateway.circuit import Circuit

#: A replica whose connection was neither made nor refused yet counts as new for this long, in seconds.
_NEW_SECONDS: Final = 1.0

RawCall = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


class Replica:
    """One replica.

    Attributes:
        address: Where it is.
        circuit: Whether it answers.
        in_flight: Calls that are sent and not over.
        listed: Its service's targets still lead to it.
    """

    def __init__(self, address: str, *, library: bool, changed: Callable[[], None]) -> None:
        """Start connecting.

        Args:
            address: Where it is.
            library: It runs the worker library.
            changed: Called whenever the connection's state changes.
        """
        self.address = address
        self.circuit = Circuit()
        self.in_flight = 0
        self.listed = True
        self._changed = changed
        self._tried = False
        self._born = asyncio.get_running_loop().time()
        self._channel = channels.connect(address, library=library)
        self._calls: dict[str, RawCall] = {}

    @property
    def ready(self) -> bool:
        """Whether a call would be sent now. Asking also keeps it connecting."""
        return channels.is_ready(self._channel)

    @property
    def new(self) -> bool:
        """Whether its first connection is still being made, so that nothing is known of it."""
        return not self._tried and asyncio.get_running_loop().time() < self._born + _NEW_SECONDS

    async def watch(self) -> None:
        """Keep it connecting for ever, and tell of each change of its connection's state."""
        while True:
            state = self._channel.get_state(try_to_connect=True)
            if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                self._tried = True
            self._changed()
            await self._channel.wait_for_state_change(state)

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """Count a call in, and out again however it ends."""
        self.in_flight += 1
        self.circuit.sent()
        try:
            yield
        finally:
            self.in_flight -= 1
            self.circuit.ended()
            self._changed()

    def method(self, path: str) -> RawCall:
        """Return what calls one of its methods, bytes in and bytes out."""
        call = self._calls.get(path)
        if call is None:
            untyped: Any = self._channel.unary_unary(path)
            call = self._calls[path] = untyped
        return call

    async def close(self) -> None:
        """Close its connection."""
        await self._channel.close()
