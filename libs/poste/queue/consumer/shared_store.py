"""What all consumers of one process share, so that one more costs next to nothing while its queue is empty.

One client of Redis with its connections, one thread that renews all leases, some connections on which BLMOVE waits,
and the looks at whatever none of these waits at.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING

from poste.queue.connection import known_servers, open_client
from poste.queue.consumer.held_bytes import HeldBytes
from poste.queue.consumer.lease import Leases
from poste.queue.consumer.pops import QueueWaits
from poste.queue.consumer.sessions import Sessions
from poste.queue.durability import ConsumerCheck
from poste.queue.scripts import Scripts
from poste.runtime import lifecycle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from poste.runtime.settings import ConsumerSettings


class SharedStore:
    """Redis, for all consumers of one process.

    Attributes:
        scripts: For everything that answers at once.
        waits: Where consumers wait for tasks.
        leases: Those of all sessions.
        sessions: All sessions.
        held: The bytes that the process holds for tasks.
    """

    def __init__(self, settings: ConsumerSettings) -> None:
        """Prepare; connects once it is open, and first needed.

        Raises:
            StartError: The URL or the password's file is wrong.
        """
        check = ConsumerCheck(settings)
        self._client = open_client(settings, connected=check.connected)
        self.scripts = Scripts(self._client, functools.partial(check.find, self._client))
        self.waits = QueueWaits(settings, self.scripts)
        self.leases = Leases(settings, known_servers(self._client, settings))
        self.sessions = Sessions(settings, self.scripts)
        self.held = HeldBytes(settings.max_claimed_bytes)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[SharedStore]:
        """Have it serve consumers while the body runs; none may go on afterwards."""
        try:
            async with lifecycle.side_tasks(self.waits.run(), self.sessions.run()):
                yield self
        finally:
            await self.leases.close()
            await self.waits.aclose()
            await self._client.aclose()
