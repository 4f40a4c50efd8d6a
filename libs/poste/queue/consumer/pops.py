"""How a process waits for tasks at its queues: by BLMOVE at some, and looks at the others a few times a second.

BLMOVE notices a task at once, but takes a connection for one queue alone. So there are only some of these connections.
With more queues than that, who has just found a task waits by one if it is free, and goes back to being looked at when
nothing more came: one script looks at all such queues in one step.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from poste.domain.errors import StoreError
from poste.queue.connection import name_of, name_of_connection, open_client, server_of
from poste.queue.steps import consumer as steps
from poste.runtime import logs

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from poste.queue.consumer.state import ConsumerState
    from poste.queue.scripts import Scripts
    from poste.runtime.settings import ConsumerSettings

_log = logs.get("consumer")
#: How long a pop blocks at most when there is nothing to take, in seconds.
_BLOCK_SECONDS: Final = 2.0
#: How many queues are waited at by BLMOVE at a time.
MAX_BLOCKING: Final = 32
#: How often the others are looked at, in seconds.
_LOOK_SECONDS: Final = 0.2


class QueueWaits:
    """All of a process' queues at which nothing is to be taken just now.

    Attributes:
        consumers: How many consumers there are.
    """

    def __init__(self, settings: ConsumerSettings, scripts: Scripts) -> None:
        """Prepare; `run` looks."""
        self._settings = settings
        self._scripts = scripts
        self._connections: list[_BlockingConnection] = []
        self._free: list[_BlockingConnection] = []
        self.consumers = 0
        #: Who waits without a connection, for which session.
        self._looked_at: dict[Pops, ConsumerState] = {}
        self._some = asyncio.Event()

    def connection(self, *, lately: bool) -> _BlockingConnection | None:
        """Return a connection to wait by, if there is one; `give_back` takes it back.

        Args:
            lately: There was something in the queue when it was last waited at.
        """
        if not (lately or self.consumers <= MAX_BLOCKING):
            return None
        if self._free:
            return self._free.pop()
        if len(self._connections) >= MAX_BLOCKING:
            return None
        self._connections.append(_BlockingConnection(self._settings))
        return self._connections[-1]

    def give_back(self, connection: _BlockingConnection) -> None:
        """Take a connection back."""
        self._free.append(connection)

    async def look_for(self, pops: Pops, state: ConsumerState) -> bool:
        """Wait until there is something in a session's queue; returns False if the session has something else to do."""
        state.there = asyncio.get_running_loop().create_future()
        self._looked_at[pops] = state
        self._some.set()
        try:
            return await state.there
        finally:
            del self._looked_at[pops]
            state.there = None

    async def run(self) -> None:
        """Look at the queues that are waited at without a connection, until cancelled."""
        while True:
            while not self._looked_at:
                self._some.clear()
                await self._some.wait()
            await asyncio.sleep(_LOOK_SECONDS)
            waits = [*self._looked_at.items()]
            try:
                filled = await steps.filled(self._scripts, [state.keys.ready for _, state in waits])
            except StoreError as error:
                # Nothing was taken, so nothing can have been lost.
                _log.warning("queues not looked at", queues=len(waits), error=str(error))
                continue
            for pops, state in waits:
                if (some := filled.get(state.keys.ready)) is None:
                    continue
                pops.note_answer()
                if some and state.there is not None and not state.there.done():
                    state.there.set_result(True)

    async def aclose(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            await connection.aclose()


class Pops:
    """Pops from one queue.

    Attributes:
        answer_at: When Redis last answered a pop, or was asked in place of one, by the monotonic clock; None if never.
    """

    def __init__(self, waits: QueueWaits) -> None:
        self._waits = waits
        self.answer_at: float | None = None
        #: By which the pop that is under way waits.
        self._connection: _BlockingConnection | None = None
        #: There was something in the queue when it was last waited at.
        self._lately = False

    async def pop(self, state: ConsumerState, slots: int, *, seconds: float | None = None) -> list[str]:
        """Wait for what waits longest, and move it to the session's list; nothing if nothing came in time.

        Never to be cancelled: `unblock` ends it.

        Args:
            state: The session.
            slots: How many may be taken.
            seconds: How long it waits, if that is not as long as may be.

        Raises:
            StoreFull: It is refused for want of memory.
            StoreUnreached, StoreLost: The answer may have been lost with a key in it.
        """
        connection = self._waits.connection(lately=self._lately)
        if connection is None:
            taken = await self._look(state, slots, seconds)
        else:
            taken = await self._block(connection, state, _BLOCK_SECONDS if seconds is None else seconds)
        self._lately = bool(taken)
        return taken

    async def _block(self, connection: _BlockingConnection, state: ConsumerState, seconds: float) -> list[str]:
        self._connection = connection
        try:
            key = await connection.pop(state, min(seconds, _BLOCK_SECONDS))
        finally:
            self._connection = None
            self._waits.give_back(connection)
        return [] if key is None else [key]

    async def _look(self, state: ConsumerState, slots: int, seconds: float | None) -> list[str]:
        over = None if seconds is None else asyncio.get_running_loop().call_later(seconds, state.stop_looking)
        try:
            there = await self._waits.look_for(self, state)
        finally:
            if over is not None:
                over.cancel()
        return await steps.take(state.scripts, state.keys, state.name, count=slots) if there else []

    def note_answer(self) -> None:
        """Note that Redis answered, to a pop or to what is asked in place of one."""
        self.answer_at = time.monotonic()

    async def unblock(self, state: ConsumerState) -> None:
        """End a pop that waits.

        Raises:
            StoreUnreached, StoreLost: It may still wait.
        """
        state.stop_looking()
        if self._connection is not None:
            await self._connection.unblock(state)


class _BlockingConnection:
    """A connection on which BLMOVE waits, at one queue at a time; in a cluster, one to each master that it needs."""

    def __init__(self, settings: ConsumerSettings) -> None:
        self._client = open_client(settings, block_seconds=_BLOCK_SECONDS, connected=self._remember_client_id)
        #: By where the server is.
        self._client_ids: dict[str, int] = {}

    async def pop(self, state: ConsumerState, seconds: float) -> str | None:
        """Wait for what waits longest; as `steps.pop`."""
        return await steps.pop(self._client, state.keys, state.name, block_seconds=seconds)

    async def unblock(self, state: ConsumerState) -> None:
        """End the pop that is under way, from outside."""
        server = await server_of(state.scripts.client, state.keys.ready)
        client_id = self._client_ids.get(name_of(server))
        if client_id is not None:
            await steps.unblock(server, client_id)

    async def aclose(self) -> None:
        """Close it."""
        await self._client.aclose()

    async def _remember_client_id(self, connection: AbstractConnection) -> None:
        """Note by which id CLIENT UNBLOCK finds a connection; it changes with every reconnect."""
        await connection.send_command("CLIENT", "ID")
        self._client_ids[name_of_connection(connection)] = int(await connection.read_response())
