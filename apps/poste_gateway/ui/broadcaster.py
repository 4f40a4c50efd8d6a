"""Takes one snapshot a second for all event streams together; none while there are no streams."""

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

#: Between the begins of two snapshots, in seconds.
_PERIOD_SECONDS: Final = 1.0
#: How many may watch at once; of those, how many that are no operators: they must not shut those out.
_MOST: Final = 128
_MOST_GUESTS: Final = 64

_log: Final = logs.get("ui")

#: Looks at everything; at tasks, too, if it is given True.
TakeSnapshot = Callable[[bool], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot, as it is sent.

    Attributes:
        number: Counts the snapshots.
        time: When it was taken, by the loop's clock.
        public: What anybody may see.
        full: What operators may see; None if no operator watched.
    """

    number: int
    time: float
    public: bytes
    full: bytes | None


class Broadcaster:
    """Looks while somebody watches."""

    def __init__(self, take: TakeSnapshot, *, period_seconds: float = _PERIOD_SECONDS) -> None:
        """Take what takes the snapshots.

        Args:
            take: It.
            period_seconds: What lies between the begins of two snapshots.
        """
        self._take_snapshot = take
        self._period_seconds = period_seconds
        self._timeseries = TimeSeries()
        self._last = Snapshot(0, float("-inf"), b"", None)
        self._operators = 0
        self._guests = 0
        self._watched = asyncio.Event()
        self._news = asyncio.Event()
        #: Nobody is served any more.
        self.closed = False

    def full(self, *, operator: bool) -> bool:
        """Return whether nobody else may watch now."""
        return self.closed or self._operators + self._guests >= _MOST or (not operator and self._guests >= _MOST_GUESTS)

    @contextlib.contextmanager
    def watching(self, *, operator: bool) -> Iterator[None]:
        """Be counted among those that watch, in the body."""
        self._count(1, operator=operator)
        try:
            yield
        finally:
            self._count(-1, operator=operator)

    def series(self) -> Mapping[str, Any]:
        """Return the last minutes, for charts."""
        return self._timeseries.series()

    def begin(self) -> int:
        """Return the number that `next` begins after: a snapshot that is old already is not worth to be shown."""
        fresh = asyncio.get_running_loop().time() - self._last.time < self._period_seconds
        return self._last.number - fresh

    async def next(self, last: int) -> Snapshot | None:
        """Wait for a snapshot after the one of that number; None if there will be none."""
        while not self.closed and self._last.number <= last:
            await self._news.wait()
        return None if self.closed else self._last

    async def run(self) -> None:
        """Take a snapshot once a second, for ever, whenever somebody watches."""
        loop = asyncio.get_running_loop()
        while True:
            await self._watched.wait()
            begin = loop.time()
            try:
                await self._take(tasks=self._operators > 0)
            except Exception:  # noqa: BLE001 - what fails to be shown must not take the gateway down
                _log.exception("snapshot failed")
            await asyncio.sleep(begin + self._period_seconds - loop.time())

    def close(self) -> None:
        """End all event streams."""
        self.closed = True
        self._tell()

    async def _take(self, *, tasks: bool) -> None:
        value = await self._take_snapshot(tasks)
        self._timeseries.add(time.time(), value["services"])
        public = protojson.dumps({name: part for name, part in value.items() if name != "tasks"})
        now = asyncio.get_running_loop().time()
        self._last = Snapshot(self._last.number + 1, now, public, protojson.dumps(value) if tasks else None)
        self._tell()

    def _tell(self) -> None:
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
