"""Takes one snapshot a second for all event streams together; none while there are none."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from poste import protojson
from poste.runtime import logs
from poste_gateway.ui.timeseries import TimeSeries

#: The time from the begin of one snapshot to that of the next, in seconds.
_PERIOD_SECONDS: Final = 1.0
#: How many streams may be open, in all and of guests: guests must not keep operators out.
_MOST: Final = 128
_MOST_GUESTS: Final = 64

_log: Final = logs.get("ui")

#: Takes a snapshot, as JSON values; with the newest tasks if called with True.
TakeSnapshot = Callable[[bool], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot, as JSON.

    Attributes:
        number: Counts the snapshots.
        time: When it was taken, by the loop's clock.
        public: The part for guests.
        full: All of it, for operators; None if no operator watched.
    """

    number: int
    time: float
    public: bytes
    full: bytes | None


class Broadcaster:
    """Takes snapshots while a stream is open."""

    def __init__(self, take: TakeSnapshot, *, period_seconds: float = _PERIOD_SECONDS) -> None:
        """Begin without streams.

        Args:
            take: Takes a snapshot.
            period_seconds: The time from the begin of one snapshot to that of the next.
        """
        self._take_snapshot = take
        self._period_seconds = period_seconds
        self._timeseries = TimeSeries()
        self._last = Snapshot(0, float("-inf"), b"", None)
        self._operators = 0
        self._guests = 0
        self._watched = asyncio.Event()
        self._news = asyncio.Event()
        #: All streams end, and no more may be opened.
        self.closed = False

    def full(self, *, operator: bool) -> bool:
        """Return whether no further stream may be opened now."""
        return self.closed or self._operators + self._guests >= _MOST or (not operator and self._guests >= _MOST_GUESTS)

    @contextlib.contextmanager
    def watching(self, *, operator: bool) -> Iterator[None]:
        """Count an open stream while the body runs."""
        self._count(1, operator=operator)
        try:
            yield
        finally:
            self._count(-1, operator=operator)

    def series(self) -> Mapping[str, Any]:
        """Return the figures of the last minutes, for the charts."""
        return self._timeseries.series()

    def begin(self) -> int:
        """Return the number to give to `next` first, so that it skips a snapshot that is out of date."""
        fresh = asyncio.get_running_loop().time() - self._last.time < self._period_seconds
        return self._last.number - fresh

    async def next(self, last: int) -> Snapshot | None:
        """Wait for the snapshot after number `last` and return it; None once `close` was called."""
        while not self.closed and self._last.number <= last:
            await self._news.wait()
        return None if self.closed else self._last

    async def run(self) -> None:
        """Take a snapshot once a second while a stream is open. Never returns."""
        loop = asyncio.get_running_loop()
        while True:
            await self._watched.wait()
            begin = loop.time()
            try:
                await self._take(tasks=self._operators > 0)
            except Exception:  # noqa: BLE001 - a failed snapshot must not end the gateway
                _log.exception("snapshot failed")
            await asyncio.sleep(begin + self._period_seconds - loop.time())

    def close(self) -> None:
        """End all event streams."""
        self.closed = True
        self._publish()

    async def _take(self, *, tasks: bool) -> None:
        value = await self._take_snapshot(tasks)
        self._timeseries.add(time.time(), value["services"])
        public = protojson.dumps({name: part for name, part in value.items() if name != "tasks"})
        now = asyncio.get_running_loop().time()
        self._last = Snapshot(self._last.number + 1, now, public, protojson.dumps(value) if tasks else None)
        self._publish()

    def _publish(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _count(self, change: int, *, operator: bool) -> None:
        if operator:
            self._operators += change
        else:
            self._guests += change
        if self._operators + self._guests:
            self._watched.set()
        else:
            self._watched.clear()
