"""Clients that call all the time, and what they saw."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from support.cli import Reply


@dataclass(frozen=True)
class Shot:
    """One call: when it began and how long it took, in seconds of the loop's clock."""

    begin: float
    seconds: float
    reply: Reply


@dataclass
class Load:
    """What the clients saw."""

    shots: list[Shot] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        return Counter(shot.reply.status for shot in self.shots)

    @property
    def bad(self) -> list[Reply]:
        """Answers that are no success."""
        return [shot.reply for shot in self.shots if shot.reply.status >= 300]

    def slowest(self) -> float:
        return max(shot.seconds for shot in self.shots)

    def percentile(self, share: float, *, since: float = 0.0, until: float = float("inf")) -> float:
        """The time within which this share of the calls that began in a span was answered, in seconds."""
        seconds = sorted(shot.seconds for shot in self.shots if since <= shot.begin < until)
        return seconds[min(len(seconds) - 1, int(len(seconds) * share))]


@contextlib.asynccontextmanager
async def calling(
    call: Callable[[], Awaitable[Reply]], *, clients: int = 4, pause_seconds: float = 0.005
) -> AsyncIterator[Load]:
    """Let clients call while the body runs; each has its last answer before it goes.

    Args:
        call: Makes one call.
        clients: How many call at once.
        pause_seconds: Each one's pause between two calls: a load that leaves the machine time for the parts.
    """
    load, stop = Load(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def client() -> None:
        while not stop.is_set():
            begin = loop.time()
            reply = await call()
            load.shots.append(Shot(begin, loop.time() - begin, reply))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await stop.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
        try:
            yield load
        finally:
            stop.set()
