"""A fair semaphore: places are given in turns among peers, so that one that is slow, or asks often, delays no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc.aio

from poste.runtime.counts import Counts


def peer_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Return who calls: a host, or where all may be on one, a connection."""
    host, _, port = context.peer().rpartition(":")
    return f"{host}:{port}" if "127.0.0.1" in host or "::1" in host else host


class Turns:
    """So many have their turn at once, and of one peer fewer.

    Attributes:
        free: How many turns are free.
    """

    def __init__(self, at_once: int, *, of_one_peer: int, unlimited: str | None = None) -> None:
        """Let so many have their turn at once.

        Args:
            at_once: How many.
            of_one_peer: How many of one peer.
            unlimited: The name of a peer that has no limit of its own: it stands for many.
        """
        self.free = at_once
        self._of_one_peer = of_one_peer
        self._unlimited = unlimited
        self._having = Counts()
        #: Who waits for a turn, by peer; the peers in the order of their turns.
        self._waiting: dict[str, deque[asyncio.Future[bool]]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, peer: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it in the body."""
        await self.take(peer)
        try:
            yield
        finally:
            self.end(peer)

    async def take(self, peer: str, ends: Callable[[Callable[[object], None]], object] | None = None) -> bool:
        """Wait for a turn, which `end` ends; returns whether it came.

        Args:
            peer: Whose it is.
            ends: Registers what is called, with anything, once the turn is for nothing: then it is waited for no more.
        """
        if self.begin(peer):
            return True
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append(turn)
        if ends is not None:
            ends(lambda _: None if turn.done() else turn.set_result(False))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                # It had come just then.
                self.end(peer)
            raise

    def begin(self, peer: str) -> bool:
        """Take a turn if there is one now, which `end` ends; returns whether there is."""
        begins = self.free > 0 and self._may(peer) and peer not in self._waiting
        if begins:
            self._begin(peer)
        return begins

    def _may(self, peer: str) -> bool:
        return peer == self._unlimited or self._having[peer] < self._of_one_peer

    def _begin(self, peer: str) -> None:
        self.free -= 1
        self._having.add(peer)

    def end(self, peer: str) -> None:
        """End a turn that was taken."""
        self.free += 1
        self._having.remove(peer)
        self._go_on()

    def _go_on(self) -> None:
        """Give out the turns that are free: the peer that had one goes behind the others."""
        for peer in [*self._waiting]:
            if not self.free:
                return
            if not self._may(peer):
                continue
            waiting = self._waiting.pop(peer)
            while waiting and waiting[0].done():
                waiting.popleft()
            if waiting:
                self._begin(peer)
                waiting.popleft().set_result(True)
            if waiting:
                self._waiting[peer] = waiting


class Crowd:
    """Counts the calls of one kind that stay for long."""

    def __init__(self, *, most: int, of_one_peer: int, unlimited: str | None = None) -> None:
        """Let so many stay; `unlimited` is as for `Turns`."""
        self._most = most
        self._of_one_peer = of_one_peer
        self._unlimited = unlimited
        self._staying = Counts()
        self._all = 0

    def begin(self, peer: str) -> bool:
        """Count one in, unless there are as many as may be; returns whether it is. `end` counts it out."""
        if self._all >= self._most or (peer != self._unlimited and self._staying[peer] >= self._of_one_peer):
            return False
        self._all += 1
        self._staying.add(peer)
        return True

    def end(self, peer: str) -> None:
        """Count one out."""
        self._all -= 1
        self._staying.remove(peer)

    @contextlib.contextmanager
    def staying(self, peer: str, does: bool = True) -> Iterator[bool]:
        """Count one in while the body runs, if it does stay; yields whether it may."""
        counted = does and self.begin(peer)
        try:
            yield counted or not does
        finally:
            if counted:
                self.end(peer)
