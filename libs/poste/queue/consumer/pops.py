"""The connection on which a consumer waits for tasks (BLMOVE)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from poste.queue.connection import open_client
from poste.queue.steps import consumer as steps

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from poste.queue.consumer.state import ConsumerState
    from poste.queue.keys import QueueKeys
    from poste.runtime.settings import ConsumerSettings

#: How long a pop blocks at most when there is nothing to take, in seconds.
_BLOCK_SECONDS: Final = 2.0


class Pops:
    """Pops from one queue, over a connection of its own.

    Attributes:
        answer_at: When Redis last answered a pop, or was asked in place of one, by the monotonic clock; None if never.
    """

    def __init__(self, settings: ConsumerSettings, keys: QueueKeys) -> None:
        # At the queue's own server.
        self._client = open_client(
            settings, block_seconds=_BLOCK_SECONDS, connected=self._remember_client_id, home=keys.ready
        )
        self._client_id: int | None = None
        self.answer_at: float | None = None

    async def pop(self, state: ConsumerState, *, seconds: float | None = None) -> str | None:
        """Wait for what waits longest, and move it to the session's list; None if nothing came in time.

        Never to be cancelled: `unblock` ends it. `seconds` is how long it waits, if that is not as long as may be.

        Raises:
            StoreFull: It is refused for want of memory.
            StoreUnreached, StoreLost: The answer may have been lost with a key in it.
        """
        block_seconds = _BLOCK_SECONDS if seconds is None else min(seconds, _BLOCK_SECONDS)
        return await steps.pop(self._client, state.keys, state.name, block_seconds=block_seconds)

    def note_answer(self) -> None:
        """Note that Redis answered, to a pop or to what is asked in place of one."""
        self.answer_at = time.monotonic()

    async def unblock(self, state: ConsumerState) -> None:
        """End a blocked pop from outside.

        Raises:
            StoreUnreached, StoreLost: It may still block.
        """
        if self._client_id is not None:
            await steps.unblock(state.scripts, self._client_id)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def _remember_client_id(self, connection: AbstractConnection) -> None:
        """Note by which id CLIENT UNBLOCK finds this connection; it changes with every reconnect."""
        await connection.send_command("CLIENT", "ID")
        self._client_id = int(await connection.read_response())
