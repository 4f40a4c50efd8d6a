"""Health probe of a connected peer's event loop: a peer that does not answer is silent, and gets no new calls.

gRPC's own keepalive shows less: its answers come from a thread that runs whatever the process does, and its clock runs
on while this very process is suspended. So a peer's loop is asked, and its silence is counted in this process' own time
(`poste.runtime.own_time`). A peer that is short of processor time answers late without being hung, so its timeout grows
with its recent answers. And silence ends no connection: a peer that turns out to live after all has lost nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from poste.runtime import metrics, own_time

#: The pause between an answer, or the end of a connection, and the next question, in seconds.
_PAUSE_SECONDS: Final = 0.3
#: A peer is silent when it has not answered for this long, in seconds; and at most.
_FIRST_PATIENCE_SECONDS: Final = 0.9
_LONGEST_PATIENCE_SECONDS: Final = 5.0
#: It is given so many times as long as it took of late.
_TIMES: Final = 3
#: What of its slowest answer counts after one more that was quicker: half of it after some ten seconds.
_FORGETTING: Final = 0.98


class Pulse:
    """One peer's.

    Attributes:
        silent: It is asked, and does not answer. A peer that hangs is silent within 1.5 s.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        """Begin with one that is not silent.

        Args:
            changed: Called whenever `silent` has changed.
        """
        self.silent = False
        self._changed = changed
        #: How long it took to answer, lately and at most, in seconds of this process' own time.
        self._slowest = 0.0

    async def follow(self, channel: grpc.aio.Channel) -> None:
        """Ask the health service of the one server of ours that a channel leads to, while it is connected, for ever."""
        health = health_pb2_grpc.HealthStub(channel)

        async def ask() -> None:
            # No deadline: an answer that is late is waited for, and the connection's end ends it.
            await health.Check(health_pb2.HealthCheckRequest())

        while True:
            while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                await channel.wait_for_state_change(state)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.watch(ask)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def watch(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Ask again and again, until asking raises.

        Args:
            ask: Asks once; returns when the peer's loop has answered. One question at a time is under way.
        """
        try:
            while True:
                await self._ask(asyncio.ensure_future(ask()))
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            self._set(silent=False)

    async def _ask(self, asking: asyncio.Future[None]) -> None:
        try:
            patience = max(_FIRST_PATIENCE_SECONDS, min(_TIMES * self._slowest, _LONGEST_PATIENCE_SECONDS))
            took = await own_time.wait(asking, patience)
            if not asking.done():
                self._set(silent=True)
                took += await own_time.wait(asking)
            asking.result()
            self._slowest = max(took, self._slowest * _FORGETTING)
            self._set(silent=False)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    def _set(self, *, silent: bool) -> None:
        if silent != self.silent:
            self.silent = silent
            if silent:
                metrics.silences_total.inc()
            self._changed()
