"""One incarnation of a consumer, from its join to its end: take, claim, run, audit, give back.

Whatever it holds stands in its list `taken:<incarnation>`. The audit reads that list regularly and adopts what is
not in hand, for a lost reply strands a key while its owner lives. A task that was there when two processes died runs
alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import OutOfMemoryError, RedisError

from poste.domain.errors import StoreError
from poste.queue.connection import known_servers, text, texts
from poste.queue.lease import Lease
from poste.queue.scripts import Scripts
from poste.runtime import lifecycle, logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import redis.asyncio as redis

    from poste.queue.keys import QueueKeys
    from poste.runtime.settings import WorkerSettings

_log = logs.get("consumer")
#: How long BLMOVE blocks when there is nothing to take, in seconds.
BLOCK_SECONDS: Final = 2.0
#: How many tasks start at once while direct calls come in: so long a call waits for its turn in the loop, at most. How
#: many run at once is not bounded by it, so tasks that wait for something else are not held up.
_BESIDE_LIVE_CALLS: Final = 8
#: How many are taken by one script, at most.
_MAX_TAKEN: Final = 1000
#: The wait after a pop that failed, in seconds.
_POP_BACKOFF: Final = 0.2
#: How often it is looked whether a paused queue is still paused, in seconds.
_PAUSED_LOOK_SECONDS: Final = 0.5
#: How often CLIENT UNBLOCK is sent until the blocked pop has ended, in seconds: it may run before the pop does.
_UNBLOCK_SECONDS: Final = 0.05
#: How long giving back is tried while Redis is away, in seconds; after that the reaper does it.
_GIVE_BACK_SECONDS: Final = 3.0


@dataclass(slots=True)
class ClaimedTask:
    """A task that is this process' to run. `create_time` is in seconds since the epoch.

    `cancel_requested` is set before its asyncio task is cancelled because the client asked for it. `handled` is to be
    called once its handler has ended: from then on it waits for its report alone, and another may run in its place.
    """

    queue: str
    key: str
    method: str
    request: bytes
    token: str
    attempt: int
    create_time: float
    handled: Callable[[], None]
    cancel_requested: bool = False


Handle = Callable[[ClaimedTask], Awaitable[None]]


@dataclass(slots=True)
class _Running:
    claimed: ClaimedTask
    task: asyncio.Task[None]


class Incarnation:
    """What one lease holds."""

    def __init__(
        self,
        *,
        name: str,
        keys: QueueKeys,
        settings: WorkerSettings,
        handle: Handle,
        control: redis.Redis,
        blocking: redis.Redis,
        blocking_client_id: Callable[[], int | None],
        tried_to_pop: Callable[[], None],
        live: Callable[[], bool],
    ) -> None:
        """Prepare; `run` begins. It has joined already.

        Args:
            name: The incarnation.
            keys: Its queue's keys.
            settings: How much to take, how long a stop may last.
            handle: Runs and reports one task.
            control: For everything that answers at once.
            blocking: For BLMOVE alone.
            blocking_client_id: Redis' id of the connection that BLMOVE blocks on.
            tried_to_pop: Called after each pop that Redis answered, and each look at a paused queue.
            live: Tells whether direct calls come in: those go first.
        """
        self._name = name
        self._keys = keys
        self._taken = keys.taken(name)
        self._settings = settings
        self._handle = handle
        self._control = control
        self._blocking = blocking
        self._blocking_client_id = blocking_client_id
        self._tried_to_pop = tried_to_pop
        self._live = live
        self._scripts = Scripts(control)
        self._seq = 0
        self._unclaimed: list[str] = []
        self._claiming: frozenset[str] = frozenset()
        self._suspects: list[str] = []
        self._running: dict[str, _Running] = {}
        #: Those of them whose handlers have not ended.
        self._handling: set[str] = set()
        self._backlog = False
        self._alone = False
        self._paused = False
        self._refused = False
        self._ending = asyncio.Event()
        self._changed = asyncio.Event()
        self._audit_due = asyncio.Event()

    def end(self) -> None:
        """Take no more; `run` returns once nothing is in hand."""
        self._ending.set()
        self._changed.set()

    async def run(self) -> None:
        """Live until `end`, or until the lease is refused."""
        lease = Lease(
            settings=self._settings,
            keys=self._keys,
            incarnation=self._name,
            servers=known_servers(self._control, self._settings),
            refused=self._lose,
        )
        lease.start()
        try:
            async with asyncio.TaskGroup() as group:
                taker = group.create_task(self._take(group))
                auditor = group.create_task(self._audit())
                await self._ending.wait()
                await self._stop_taking(taker)
                await lifecycle.end([auditor])
                if not self._refused:
                    await self._finish_running()
                await lifecycle.end([running.task for running in self._running.values()])
            if not self._refused:
                await self._give_back()
        finally:
            # Last of all: until here somebody must not take what is in hand.
            await lease.close()

    def _lose(self) -> None:
        """Drop everything: the lease is gone, and with it the right to what is in hand."""
        _log.warning("lease lost", queue=self._keys.queue, incarnation=self._name)
        self._refused = True
        self.end()

    # -- take and claim

    async def _take(self, group: asyncio.TaskGroup) -> None:
        while not self._ending.is_set():
            self._changed.clear()
            if self._alone:
                await self._changed.wait()
            elif self._unclaimed:
                keys, self._unclaimed = self._unclaimed, []
                await self._claim(group, keys, alone=False)
            elif self._suspects:
                if self._running:
                    await self._changed.wait()
                else:
                    await self._claim(group, [self._suspects.pop(0)], alone=True)
            elif (room := self._room()) == 0:
                await self._changed.wait()
            elif self._paused:
                await self._rest(_PAUSED_LOOK_SECONDS)
                await self._look_whether_paused()
            else:
                await self._pop(room)

    def _room(self) -> int:
        """How many tasks may be taken now.

        Those that only wait for their report's answer leave room for others, but not for more than as many again: a
        middleware that is away must not make the list of what is taken grow.
        """
        concurrency = self._settings.concurrency
        room = min(concurrency - len(self._handling), 2 * concurrency - len(self._running))
        return max(0, min(room, _BESIDE_LIVE_CALLS) if self._live() else room)

    async def _pop(self, room: int) -> None:
        """Wait for one task, and take what else is there, up to `room` in all."""
        try:
            if self._backlog:
                # There was more the last time: likely enough still, and then nothing is to be waited for.
                await self._take_more(room)
                return
            try:
                first = await self._blocking.blmove(
                    first_list=self._keys.ready,
                    second_list=self._taken,
                    timeout=BLOCK_SECONDS,  # type: ignore[arg-type]  # Redis takes fractions
                    src="RIGHT",
                    dest="LEFT",
                )
            except OutOfMemoryError:
                # At `maxmemory` BLMOVE is refused, and nothing would ever free memory again: take by script.
                first = None
                await self._rest(_POP_BACKOFF)
                await self._take_more(room)
            self._tried_to_pop()
            if first is None:
                return
            self._adopt([text(first)])
            if room > 1:
                await self._take_more(room - 1)
        except (RedisError, StoreError) as error:
            # Its answer may have been lost with a key in it: the audit finds that.
            _log.warning("pop failed", queue=self._keys.queue, error=str(error))
            self._backlog = False
            self._audit_due.set()
            await self._rest(_POP_BACKOFF)

    async def _look_whether_paused(self) -> None:
        try:
            self._paused = bool(await self._control.hexists(self._keys.counts, "paused"))
            self._tried_to_pop()
        except RedisError as error:
            _log.warning("pause not read", queue=self._keys.queue, error=str(error))

    async def _take_more(self, room: int) -> None:
        """Take what is there, up to `room`, without waiting."""
        room = min(room, _MAX_TAKEN)
        taken = texts(await self._scripts.run("take", [self._keys.ready, self._taken], [room], again=False))
        self._tried_to_pop()
        self._backlog = len(taken) == room
        self._adopt(taken)

    def _adopt(self, keys: Iterable[str]) -> None:
        """Take keys in hand that are not yet: claiming one twice would start its handler twice."""
        for key in keys:
            if not any(key in held for held in (self._running, self._claiming, self._unclaimed, self._suspects)):
                self._unclaimed.append(key)
                self._changed.set()

    async def _claim(self, group: asyncio.TaskGroup, keys: Sequence[str], *, alone: bool) -> None:
        arguments: list[str | int] = [self._name, "1" if alone else "0"]
        tokens = []
        for key in keys:
            self._seq += 1
            tokens.append(f"{self._name}:{self._seq}")
            arguments += (key, self._seq)
        fixed = [self._keys.leases, self._taken, self._keys.counts, self._keys.dead, self._keys.ready]
        self._claiming = frozenset(keys)
        try:
            results = await self._scripts.run("claim", [*fixed, *(self._keys.record(key) for key in keys)], arguments)
        except StoreError as error:
            # Whatever was claimed stands in the list still, and a claim with a higher seq takes it over.
            _log.warning("claim failed", queue=self._keys.queue, error=str(error))
            self._claiming = frozenset()
            self._audit_due.set()
            await self._rest(_POP_BACKOFF)
            return
        # From here to the end nothing is waited for, so no audit comes between.
        self._claiming = frozenset()
        if results == [b"fenced"]:
            self._lose()
            return
        for key, token, result in zip(keys, tokens, results, strict=True):
            if result[0] == b"suspect":
                self._suspects.append(key)
            elif result[0] == b"paused":
                self._paused = True
            elif result[0] == b"run":
                self._start(group, key, token, result, alone=alone)

    def _start(self, group: asyncio.TaskGroup, key: str, token: str, result: Sequence[Any], *, alone: bool) -> None:
        _, method, request, attempt, create = result
        claimed = ClaimedTask(
            queue=self._keys.queue,
            key=key,
            method=method.decode(),
            request=request or b"",
            token=token,
            attempt=attempt,
            create_time=create / 1000,
            handled=functools.partial(self._handled, key),
        )
        self._alone = alone
        self._handling.add(key)
        task = group.create_task(self._run(claimed), name=f"task {key}")
        self._running[key] = _Running(claimed, task)

    async def _run(self, claimed: ClaimedTask) -> None:
        try:
            await self._handle(claimed)
        finally:
            self._handling.discard(claimed.key)
        # Cancelled ones stay in hand: they are given back, or are somebody else's already.
        del self._running[claimed.key]
        self._alone = False
        self._changed.set()

    def _handled(self, key: str) -> None:
        self._handling.discard(key)
        self._changed.set()

    # -- audit

    async def _audit(self) -> None:
        """Adopt what is in the list but not in hand, and stop what its client wants stopped."""
        period = min(self._settings.heartbeat_seconds, self._settings.lease_seconds / 2)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(period):
                    await self._audit_due.wait()
            self._audit_due.clear()
            try:
                listed = await self._control.lrange(self._taken, 0, -1)
                running = list(self._running.values())
                wanted = await self._stops_wanted(running)
            except RedisError as error:
                _log.warning("audit failed", queue=self._keys.queue, error=str(error))
                continue
            self._adopt(texts(listed))
            for one, stop in zip(running, wanted, strict=True):
                if stop and not one.task.done() and not one.claimed.cancel_requested:
                    one.claimed.cancel_requested = True
                    one.task.cancel()

    async def _stops_wanted(self, running: Sequence[_Running]) -> list[bytes | None]:
        if not running:
            return []
        pipeline = self._control.pipeline(transaction=False)
        for one in running:
            pipeline.hget(self._keys.record(one.claimed.key), "w")
        return list(await pipeline.execute())

    # -- the end

    async def _stop_taking(self, taker: asyncio.Task[None]) -> None:
        """End the blocked pop from outside: cancelling it would strand what it is about to answer with."""
        while not taker.done():
            client_id = self._blocking_client_id()
            if client_id is not None:
                with contextlib.suppress(RedisError):
                    await self._control.client_unblock(client_id)
            await asyncio.wait([taker], timeout=_UNBLOCK_SECONDS)

    async def _finish_running(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.grace_seconds):
                while self._running and not self._refused:
                    self._changed.clear()
                    await self._changed.wait()

    async def _give_back(self) -> None:
        """Put back what is not done, not counted as an attempt, and end the lease."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GIVE_BACK_SECONDS):
                while not await self._try_to_give_back():  # noqa: ASYNC110 - it waits for Redis, not for us
                    await asyncio.sleep(_POP_BACKOFF)

    async def _try_to_give_back(self) -> bool:
        try:
            listed = texts(await self._control.lrange(self._taken, 0, -1))
            if listed:
                arguments: list[str] = []
                for key in listed:
                    running = self._running.get(key)
                    arguments += (key, running.claimed.token if running else "", "1" if running else "")
                await self._scripts.run(
                    "give_back",
                    [
                        *(self._keys.ready, self._taken, self._keys.counts, self._keys.dead),
                        *(self._keys.record(key) for key in listed),
                    ],
                    arguments,
                )
            left = await self._scripts.run("leave", [self._keys.leases, self._keys.graves, self._taken], [self._name])
        except (RedisError, StoreError) as error:
            _log.warning("giving back failed", queue=self._keys.queue, error=str(error))
            return False
        return bool(left)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()
