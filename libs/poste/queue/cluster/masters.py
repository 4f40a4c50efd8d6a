"""Which master serves which slot, as the cluster itself says; and a plain client for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.exceptions import RedisError

from poste.queue.node import ANSWER_TIMEOUT_SECONDS, DEFAULT_PORT, SLOTS, NotConnected, Options

if TYPE_CHECKING:
    import redis.asyncio as redis

#: Host and port.
Address: TypeAlias = tuple[str, int]


class Masters:
    """The masters of one cluster. Learnt when first needed, and again when one of them does not answer."""

    def __init__(self, seeds: Sequence[Options], open_node: Callable[[Options], redis.Redis]) -> None:
        """Prepare.

        Args:
            seeds: What reaches the servers that may be asked first. All of the cluster take the same password.
            open_node: Makes a client of one server.
        """
        self._options = seeds[0]
        self._seeds = [(seed.get("host", "localhost"), seed.get("port", DEFAULT_PORT)) for seed in seeds]
        self._open_node = open_node
        self._clients: dict[Address, redis.Redis] = {}
        self._owners: list[Address | None] = [None] * SLOTS
        self._masters: frozenset[Address] = frozenset()
        self._suspects: set[Address] = set()
        self._refreshing: asyncio.Task[str | None] | None = None
        self._closed = False

    @property
    def masters(self) -> frozenset[Address]:
        """The masters there are, as far as is known."""
        return self._masters

    @property
    def addresses(self) -> list[Address]:
        """Every server that may be asked something, suspects last."""
        return sorted({*self._masters, *self._seeds}, key=self._suspects.__contains__)

    def options(self, address: Address) -> Options:
        """Return what reaches the server at an address."""
        return {**self._options, "host": address[0], "port": address[1]}

    def at(self, address: Address) -> redis.Redis:
        """Return the client of the server at an address.

        Raises:
            NotConnected: There is none, and all are closed.
        """
        if address not in self._clients:
            if self._closed:
                raise NotConnected("this client of the cluster is closed")
            self._clients[address] = self._open_node(self.options(address))
        return self._clients[address]

    async def owner(self, slot: int) -> Address:
        """Return where a slot is served; if that master did not answer last, the others are asked first.

        Raises:
            NotConnected: It is not known: no server says so, or the cluster has no server for this slot.
        """
        trouble = None
        if self._owners[slot] is None or self._owners[slot] in self._suspects:
            trouble = await self.refresh_slots()
        owner = self._owners[slot]
        if owner is None:
            raise NotConnected(trouble or f"no server of the cluster has slot {slot}")
        return owner

    def moved(self, slot: int, address: Address) -> None:
        """Note what a server says: a slot is served elsewhere."""
        self._owners[slot] = address
        self._masters |= {address}

    def mark_suspect(self, address: Address) -> None:
        """Note that a master did not answer: another may have taken its place."""
        self._suspects.add(address)

    def mark_healthy(self, address: Address) -> None:
        """Note that a master answered."""
        self._suspects.discard(address)

    async def refresh_slots(self) -> str | None:
        """Ask the cluster which masters it has; everybody who wants to know meanwhile waits for the same answer.

        Returns:
            None, or why no server answered; what is known stays.
        """
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="slots of the cluster")
            self._refreshing.add_done_callback(self._refreshed)
        return await asyncio.shield(self._refreshing)

    async def aclose(self) -> None:
        """Close every client, and make no more; a cancellation leaves none of them open."""
        self._closed = True
        # Nothing is waited for in this.
        for client in self._clients.values():
            await client.aclose()
        if self._refreshing is not None:
            # It finds nothing to ask any more. Not cancelled: who waits for its answer was not.
            await asyncio.wait([self._refreshing])

    def _refreshed(self, _: asyncio.Task[str | None]) -> None:
        self._refreshing = None

    async def _refresh(self) -> str | None:
        trouble = "no server of the cluster answers in time"
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                for address in self.addresses:
                    try:
                        slots = await self.at(address).execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
                    except RedisError as error:
                        trouble = str(error)
                    else:
                        self._note(slots, address)
                        return None
        except TimeoutError:
            pass
        return trouble

    def _note(self, slots: list[Any], said_by: Address) -> None:
        owners: list[Address | None] = [None] * SLOTS
        for first, last, master, *_ in slots:
            # A server that does not know its own name leaves it out: it is where it was asked.
            host = master[0].decode() if master[0] else said_by[0]
            owners[first : last + 1] = [(host, master[1])] * (last - first + 1)
        self._owners = owners
        self._masters = frozenset(owner for owner in owners if owner is not None)
