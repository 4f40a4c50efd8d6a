"""Waiting for a task's end, told by Redis' pub/sub; a message that gets lost only makes the wait a little longer."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from poste.queue.connection import open_client
from poste.queue.keys import ENDED_CHANNEL, QueueKeys
from poste.runtime import logs

if TYPE_CHECKING:
    from poste.queue.tasks import Reading, Tasks
    from poste.runtime.settings import StoreSettings

_log = logs.get("endings")
#: How often a waiter looks for itself, in seconds, whatever it was told.
_LOOK_SECONDS: Final = 1.0
_BACKOFF_SECONDS: Final = 0.5


class Endings:
    """Waits for the ends of tasks."""

    def __init__(self, settings: StoreSettings, tasks: Tasks) -> None:
        self._settings = settings
        self._tasks = tasks
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._closing = False

    async def listen(self) -> None:
        """Hear of ends for as long as the process lives."""
        while True:
            client = open_client(self._settings, block_seconds=_LOOK_SECONDS)
            try:
                async with client.pubsub() as channel:
                    await channel.subscribe(ENDED_CHANNEL)
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=_LOOK_SECONDS)
                        if message is not None:
                            self._wake(message["data"].decode())
            except RedisError as error:
                _log.warning("waiting for Redis", error=str(error))
                await asyncio.sleep(_BACKOFF_SECONDS)
            finally:
                await client.aclose()

    def close(self) -> None:
        """Answer everybody who waits with the task as it is."""
        self._closing = True
        for record in list(self._waiting):
            self._wake(record)

    async def wait(self, queue: str, key: str, seconds: float) -> Reading:
        """Read a task once it has ended, or as it is after `seconds`.

        Raises:
            StoreUnreached, StoreLost: Redis did not answer.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        record = QueueKeys(queue).record(key)
        event = asyncio.Event()
        self._waiting[record].add(event)
        try:
            while True:
                reading = await self._tasks.read(queue, key, watch=True)
                left = deadline - asyncio.get_running_loop().time()
                if reading.record is None or reading.record.state.final or left <= 0 or self._closing:
                    return reading
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, _LOOK_SECONDS)):
                        await event.wait()
                event.clear()
        finally:
            self._waiting[record].discard(event)
            if not self._waiting[record]:
                del self._waiting[record]

    def _wake(self, record: str) -> None:
        for event in self._waiting.get(record, ()):
            event.set()
