"""A fair semaphore: places are given in turns among peers, so that one that is slow, or asks often, delays no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc.aio

from poste.runtime.counts import Counts


def peer_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Return who calls: a host, or where all may be on one, a connection."""
    host, _, port = context.peer().rpartition(":")
    return f"{host}:{port}" if "127.0.0.1" in host or "::1" in host else host


class Turns:
    """So many have their turn at once, and of one peer fewer."""

    def __init__(self, at_once: int, *, of_one_peer: int) -> None:
        """Let so many have their turn at once."""
        self._free = at_once
        self._of_one_peer = of_one_peer
        self._having = Counts()
        #: Who waits for a turn, by peer; the peers in the order of their turns.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, peer: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it in the body."""
        await self.take(peer)
        try:
            yield
        finally:
            self.end(peer)

    async def take(self, peer: str) -> None:
        """Wait for a turn, which `end` ends."""
        if self._free and self._having[peer] < self._of_one_peer and peer not in self._waiting:
            self._begin(peer)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.end(peer)
            raise

    def _begin(self, peer: str) -> None:
        self._free -= 1
        self._having.add(peer)

    def end(self, peer: str) -> None:
        """End a turn that was taken."""
        self._free += 1
        self._having.remove(peer)
        self._go_on()

    def _go_on(self) -> None:
        """Give out the turns that are free: the peer that had one goes behind the others."""
        for peer in [*self._waiting]:
            if not self._free:
                return
            if self._having[peer] >= self._of_one_peer:
                continue
            waiting = self._waiting.pop(peer)
            while waiting and waiting[0].done():
                waiting.popleft()
            if waiting:
                self._begin(peer)
                waiting.popleft().set_result(None)
            if waiting:
                self._waiting[peer] = waiting


class Crowd:
    """Counts the calls of one kind that stay for long."""

    def __init__(self, *, most: int, of_one_peer: int) -> None:
        self._most = most
        self._of_one_peer = of_one_peer
        self._staying = Counts()
        self._all = 0

    @contextlib.contextmanager
    def staying(self, peer: str, does: bool = True) -> Iterator[bool]:
        """Count one in while the body runs, if it does stay; yields whether it may."""
        if not does:
            yield True
            return
        may_stay = self._all < self._most and self._staying[peer] < self._of_one_peer
        self._all += may_stay
        self._staying.add(peer, may_stay)
        try:
            yield may_stay
        finally:
            self._all -= may_stay
            self._staying.remove(peer, may_stay)
