"""What the scripts count as kept, from the test's side: where each ended task stands there, and what moves it."""

from __future__ import annotations

import math
from typing import Any, Final

from poste.queue.keys import QueueKeys
from poste.queue.record import RECORD_BYTES

#: Longer ago than the minute in which what ended is not purged, in ms.
_AGO_MS: Final = 100_000
#: Adds to a number in a hash, in a Redis that is full too: what a test does to time takes no room from others.
_SHIFT: Final = """#!lua flags=allow-oom
return redis.call('hincrby', KEYS[1], ARGV[1], ARGV[2])
"""


class KeptTasks:
    """The ended tasks of one queue whose results are kept."""

    def __init__(self, client: Any, keys: QueueKeys) -> None:
        self._client, self._keys = client, keys

    async def age(self, key: str) -> None:
        """Let a task have ended long ago."""
        record = self._keys.record(key)
        before = await self._stretch(key)
        for instant in ("c", "z", *(["j"] if await self._client.hexists(record, "j") else [])):
            await self._shift(record, instant, -_AGO_MS)
        await self._count_elsewhere(key, before, await self._stretch(key))

    async def age_all(self) -> None:
        """Let every task that ended have ended long ago."""
        async for record in self._client.scan_iter(match=self._keys.any_record):
            if await self._client.hexists(record, "z"):
                await self.age(record.decode().rpartition(":task:")[2])

    async def drop(self, key: str) -> tuple[int, int]:
        """Let a task's record be dropped, as if its time were over; returns what it is still counted as."""
        counted = await self._count_elsewhere(key, await self._stretch(key), 1)
        await self._client.delete(self._keys.record(key))
        return counted

    async def _count_elsewhere(self, key: str, before: int, after: int) -> tuple[int, int]:
        sizes = [await self._client.hstrlen(self._keys.record(key), name) for name in ("o", "e", "q")]
        counted = (1, RECORD_BYTES + sum(sizes))
        for mark, by in zip(("", "b"), counted, strict=True):
            await self._shift(self._keys.kept, f"{before}{mark}", -by)
            await self._shift(self._keys.kept, f"{after}{mark}", by)
        if (client := await self._client.hget(self._keys.record(key), "C")) is not None:
            await self._shift(self._keys.client(client.decode()), str(before), -counted[1])
            await self._shift(self._keys.client(client.decode()), str(after), counted[1])
        return counted

    async def _shift(self, key: str, name: str, by: int) -> None:
        await self._client.eval(_SHIFT, 1, key, name, by)

    async def _stretch(self, key: str) -> int:
        """The stretch of time under which a task is counted: its end, in seconds."""
        ended, create, ttl, purged = await self._client.hmget(self._keys.record(key), ["z", "c", "r", "j"])
        end, seconds, length = int(ended), int(ttl), 1
        expiry = int(purged or max(max(end, int(create)) + seconds * 1000, end + 60_000))
        while length * 64 <= seconds:
            length *= 2
        return math.ceil(expiry / 1000 / length) * length
