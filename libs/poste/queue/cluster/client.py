"""A client of a whole cluster: sends each command to the master that holds its key, and follows redirections.

All that one queue needs is in one slot, so a script, a pop or a pipeline has one master. It is used like a plain
client; what it does not do is to split one call over several masters.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import redis.asyncio as redis
from redis.asyncio.client import PubSub
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from poste.queue.cluster.masters import Address, Masters
from poste.queue.node import Batch, Command, NotConnected, Options, slot_of

#: How long redirections are followed, in seconds. A slot that moves refuses scripts until all of it has moved.
_FOLLOW_SECONDS: Final = 1.0
#: The wait before a slot that moves, or a cluster that is electing, is tried again, in seconds.
_PAUSE_SECONDS: Final = 0.05
#: The commands without a key that Poste sends. SCAN is not one of them: it belongs to each of `servers`.
_KEYLESS: Final = frozenset({"CLIENT", "CONFIG", "INFO", "PING", "TIME", "WAITAOF"})
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA"})
#: What a master says of a command that it did not execute, and which another is to be sent, or the same again. (A
#: MovedError is an AskError.)
_ELSEWHERE: Final = (AskError, TryAgainError, ClusterDownError)

#: Runs something on one master; after ASKING if the flag is set.
_Run = Callable[[redis.Redis, bool], Awaitable[Any]]


class ClusterClient(redis.Redis):
    """Speaks to the masters of one cluster."""

    def __init__(self, masters: Masters) -> None:
        """Prepare.

        Args:
            masters: The cluster's masters; closed with this client.
        """
        # The pool is one of the masters', for what redis-py reads from it (encodings); nothing is sent over it here.
        super().__init__(connection_pool=masters.at(masters.addresses[0]).connection_pool)
        self._masters = masters

    async def servers(self) -> list[redis.Redis]:
        """Return a client of each master there is now.

        Raises:
            NotConnected: No server of the cluster says which there are.
        """
        trouble = await self._masters.refresh_slots()
        if not self._masters.masters:
            raise NotConnected(trouble or "the cluster has no master")
        return [self._masters.at(address) for address in sorted(self._masters.masters)]

    async def server_of(self, key: str) -> redis.Redis:
        """Return a client of the master that holds a key.

        Raises:
            NotConnected: It is not known.
        """
        return self._masters.at(await self._masters.owner(slot_of(key)))

    def known_servers(self) -> list[Options]:
        """Return what reaches each server that is known now; safe to call from another thread."""
        return [self._masters.options(address) for address in self._masters.addresses]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command to the master of its key.

        Raises:
            NotConnected: It was not sent.
        """

        async def run(master: redis.Redis, asking: bool) -> Any:
            if not asking:
                return await master.execute_command(*args, **options)  # type: ignore[no-untyped-call]
            (result,) = await _pipelined(master, [(args, options)], asking=True)
            if isinstance(result, Exception):
                raise result
            return result

        return await self.on_master(_key(args), run)

    async def on_master(self, key: str | bytes | None, run: _Run) -> Any:
        """Run something on the master that holds a key, or on any, following redirections: those executed nothing.

        Raises:
            NotConnected: Nothing was sent.
        """
        if key is None:
            return await self._on_any(run)
        slot = slot_of(key)
        address, asking = await self._masters.owner(slot), False
        deadline = asyncio.get_running_loop().time() + _FOLLOW_SECONDS
        while True:
            try:
                result = await run(self._masters.at(address), asking)
            except (*_ELSEWHERE, NotConnected) as error:
                address, asking = await self._elsewhere(slot, address, error)
                if asyncio.get_running_loop().time() > deadline:
                    raise
            except (RedisConnectionError, RedisTimeoutError):
                self._masters.mark_suspect(address)
                raise
            else:
                self._masters.mark_healthy(address)
                return result

    async def _elsewhere(self, slot: int, address: Address, error: RedisError) -> tuple[Address, bool]:
        """Return where something is to be sent that was not executed, and whether after ASKING."""
        if isinstance(error, AskError):
            address = (error.host or address[0], error.port)
            if not isinstance(error, MovedError):
                return address, True
            self._masters.moved(slot, address)
            return address, False
        if isinstance(error, NotConnected):
            self._masters.mark_suspect(address)
            owner = await self._masters.owner(slot)
            if owner == address:
                raise error
            return owner, False
        await asyncio.sleep(_PAUSE_SECONDS)
        await self._masters.refresh_slots()
        return await self._masters.owner(slot), False

    async def _on_any(self, run: _Run) -> Any:
        """Run what any server may answer: the first that a connection can be made to."""
        last: NotConnected | None = None
        for address in self._masters.addresses:
            try:
                return await run(self._masters.at(address), False)
            except NotConnected as error:
                self._masters.mark_suspect(address)
                last = error
            except (RedisConnectionError, RedisTimeoutError):
                self._masters.mark_suspect(address)
                raise
        raise NotConnected(str(last)) from last

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Batch:  # noqa: ARG002 - redis-py's
        """Return a pipeline for one master: that of its first key. It is repeated as a whole if that key has moved.

        So it may hold reads, or one script and what waits for its fsync. It is never a transaction.
        """
        return Batch(self, self._send)

    async def _send(self, commands: list[Command]) -> list[Any]:
        key = next((key for args, _ in commands if (key := _key(args)) is not None), None)
        return list(await self.on_master(key, lambda master, asking: _pipelined(master, commands, asking=asking)))

    def pubsub(self, **kwargs: Any) -> PubSub:
        """Listen at any server: what is published at one is heard at all."""
        address = random.choice(self._masters.addresses)  # noqa: S311 - spread, not secrecy
        return self._masters.at(address).pubsub(**kwargs)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: ARG002 - redis-py's
        """Close the connections to every master."""
        await self._masters.aclose()


async def _pipelined(master: redis.Redis, commands: list[Command], *, asking: bool) -> list[Any]:
    """Send commands over one connection of a master. ASKING holds for the one command after it."""
    pipeline = master.pipeline(transaction=False)
    for args, options in commands:
        if asking:
            pipeline.execute_command("ASKING")
        pipeline.execute_command(*args, **options)
    results = await pipeline.execute(raise_on_error=False)
    results = results[1::2] if asking else results
    for result in results:
        if isinstance(result, _ELSEWHERE):
            # Where its key has gone; all of them belong there.
            raise result
    return list(results)


def _key(args: tuple[Any, ...]) -> Any:
    """Return the key that decides where a command goes."""
    # redis-py names some by two words in one argument: CONFIG GET.
    name = str(args[0]).partition(" ")[0]
    if name in _KEYLESS:
        return None
    if name in _SCRIPTS:
        return args[3] if int(args[2]) else None
    return args[1]
