"""Long polls: requests that wait for a task's end, or for what happens to it.

A lost message makes the wait longer by a second or so, no more.

An end that this process stores wakes its waiters directly. Ends that other processes store are published by Redis, if
the record says that a client waits; that flag is a write with its fsync, so it is not set for the first milliseconds,
in which many tasks end. In case a message is lost, the records of some of the waited-for tasks are read once a second,
for all waiters together: a read for each waiter would load Redis by how many wait.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

from poste.domain import sizes
from poste.domain.errors import StoreError
from poste.queue.connection import open_client
from poste.queue.errors import reading
from poste.queue.keys import Keys
from poste.runtime import logs
from poste.runtime.counts import Counts
from poste.runtime.waits import done_within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from poste.queue.connection import Client
    from poste.queue.history import Histories, History
    from poste.queue.tasks import Reading, Tasks
    from poste.runtime.settings import StoreSettings

T = TypeVar("T")

_log = logs.get("completions")
#: How long an end is waited for before the record gets the flag that a client waits, in seconds.
_SOON_SECONDS: Final = 0.01
#: How often records are polled for ends whose message was lost, in seconds, and how many at a time. If more tasks are
#: waited for, they take turns; where messages were lost for certain, all are read.
_POLL_SECONDS: Final = 1.0
_POLL_BATCH: Final = 256
_BACKOFF_SECONDS: Final = 0.5


class CompletionWaiter:
    """Waits for the ends of tasks, while `listen` and `poll` run."""

    def __init__(self, settings: StoreSettings, tasks: Tasks, *, heard: Callable[[str], None] = lambda _: None) -> None:
        """Prepare; `heard` is called with the queue of each end that Redis publishes."""
        self._heard = heard
        self._settings = settings
        self._keys = Keys(settings.key_prefix)
        self._tasks = tasks
        #: Who waits, by the record, which is of a queue and a key.
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        #: By the record, how many wait for whatever happens to it, not for its end alone.
        self._followed = Counts()
        self._closing = False

    async def listen(self) -> None:
        """Hear of ends for as long as the process lives."""
        while True:
            client = open_client(self._settings, block_seconds=_POLL_SECONDS)
            try:
                with reading():
                    await self._hear(client)
            except StoreError as error:
                _log.warning("waiting for Redis", error=str(error))
                await asyncio.sleep(_BACKOFF_SECONDS)
            finally:
                await client.aclose()

    async def poll(self) -> None:
        """Poll for ends that were not heard of, for as long as the process lives."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            for number, records in enumerate(_in_parts(list(self._waiting))):
                if number:
                    await asyncio.sleep(_POLL_SECONDS)
                await self._poll(records)

    async def _hear(self, client: Client) -> NoReturn:
        async with client.pubsub() as channel:
            await channel.subscribe(self._keys.ended_channel)
            # What was published meanwhile was not heard.
            for records in _in_parts(list(self._waiting)):
                await self._poll(records)
            while True:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=_POLL_SECONDS)
                if message is not None:
                    record = message["data"].decode()
                    self._wake(record)
                    queue, _ = self._keys.split_record(record)
                    self._heard(queue)

    def close(self) -> None:
        """Answer everybody who waits with the task as it is."""
        self._closing = True
        for record in list(self._waiting):
            self._wake(record)

    def notify(self, queue: str, keys: Iterable[str]) -> None:
        """Wake who waits for tasks whose outcomes were just stored."""
        if self._waiting:
            at = self._keys.of(queue)
            for key in keys:
                self._wake(at.record(key))

    async def wait(self, queue: str, key: str, seconds: float, *, most_bytes: int = sizes.MAX_MESSAGE) -> Reading:
        """Read a task once it has ended, or as it is after `seconds`; a response of more bytes is left out.

        Raises:
            StoreUnreached, StoreLost: Redis did not answer.
        """

        async def read(watch: bool) -> tuple[Reading, bool]:
            found = await self._tasks.read(queue, key, watch=watch, most_bytes=most_bytes)
            return found, found.record is None or found.record.state.final

        return await self._until(self._keys.of(queue).record(key), seconds, read)

    async def wait_for_news(
        self, histories: Histories, queue: str, key: str, seconds: float, *, known_mark: str
    ) -> History:
        """Read a task's history once its mark is another one, or as it is after `seconds`.

        An end is told at once, anything else when the record is polled: about a second later.

        Raises:
            StoreUnreached, StoreLost, StoreNotRead: Redis did not answer.
        """

        async def read(watch: bool) -> tuple[History, bool]:
            found = await histories.read(queue, key, watch=watch)
            return found, found.mark != known_mark

        record = self._keys.of(queue).record(key)
        self._followed.add(record)
        try:
            return await self._until(record, seconds, read)
        finally:
            self._followed.remove(record)

    async def _until(self, record: str, seconds: float, read: Callable[[bool], Awaitable[tuple[T, bool]]]) -> T:
        """Read a task until that brings what is waited for, or `seconds` are over.

        `read` is called with whether its end is to be published, and returns what it read, and whether it is that.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        event = asyncio.Event()
        self._waiting[record].add(event)
        watch = False
        try:
            while True:
                found, enough = await read(watch)
                left = deadline - asyncio.get_running_loop().time()
                if enough or left <= 0 or self._closing:
                    return found
                await done_within(left if watch else min(left, _SOON_SECONDS), event.wait())
                event.clear()
                watch = True
        finally:
            self._waiting[record].discard(event)
            if not self._waiting[record]:
                del self._waiting[record]

    async def _poll(self, records: Sequence[str]) -> None:
        """Wake the waiters that have to read their task; all of them if that can't be known: each may ask elsewhere."""
        queues: defaultdict[str, list[str]] = defaultdict(list)
        for queue, key in (self._keys.split_record(record) for record in records if record in self._waiting):
            queues[queue].append(key)
        # At once: in a cluster one that does not answer keeps no other waiting.
        await asyncio.gather(*(self._poll_queue(queue, keys) for queue, keys in queues.items()))

    async def _poll_queue(self, queue: str, keys: Sequence[str]) -> None:
        followed = [key for key in keys if self._keys.of(queue).record(key) in self._followed]
        try:
            self.notify(queue, {*followed, *await self._tasks.to_read(queue, keys)})
        except StoreError as error:
            _log.warning("waiting for Redis", queue=queue, error=str(error))
            self.notify(queue, keys)

    def _wake(self, record: str) -> None:
        for event in self._waiting.get(record, ()):
            event.set()


def _in_parts(records: Sequence[str]) -> Iterable[Sequence[str]]:
    return [records[first : first + _POLL_BATCH] for first in range(0, len(records), _POLL_BATCH)]
