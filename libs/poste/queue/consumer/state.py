"""What one session of a consumer holds, and how much more it may take.

All of it stands in the list `taken:<incarnation>`; what stands there and is not held here is adopted when the two are
reconciled.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poste.runtime import logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from poste.domain.policy import MethodPolicy
    from poste.queue.consumer.held_bytes import HeldBytes
    from poste.queue.consumer.task import ClaimedTask, Handle
    from poste.queue.keys import QueueKeys
    from poste.queue.scripts import Scripts
    from poste.runtime.settings import ConsumerSettings

_log = logs.get("consumer")
#: How many tasks start at once while direct calls come in: so long a call waits for its turn in the loop, at most. How
#: many run at once is not bounded by it, so tasks that wait for something else are not held up.
_BESIDE_LIVE_CALLS: Final = 8
#: How many tasks are held at most, for each that may run at once.
_HELD_PER_RUNNING: Final = 2
#: How many are taken by one script, at most.
MAX_TAKEN: Final = 1000


@dataclass(frozen=True, slots=True)
class TaskHost:
    """What the process gives its consumer.

    Attributes:
        handle: Runs and reports one task.
        live: Returns whether direct calls come in: those go first.
        concurrency: Returns how many tasks may run at once, if that is fewer than the settings say.
        limits: Returns those methods whose tasks have a limit of their own.
    """

    handle: Handle
    live: Callable[[], bool] = lambda: False
    concurrency: Callable[[], int | None] = lambda: None
    limits: Callable[[], Mapping[str, MethodPolicy]] = dict


@dataclass(slots=True, eq=False)
class Running:
    """A claimed task and the asyncio task that runs it, owned by the state: a task group would cost as much as it."""

    claimed: ClaimedTask
    task: asyncio.Task[None]


class ConsumerState:
    """One session's place at its queue, and what it holds.

    Attributes:
        name: The incarnation: the session's name, under which it has its lease.
        keys: Its queue's keys.
        settings: How much to take, how long a stop may last.
        scripts: Redis, for everything that answers at once.
        host: Runs its tasks.
        held: How many bytes the process holds.
        unclaimed: Keys that are taken, and to be claimed.
        claiming: Keys whose claim is under way.
        suspects: Keys that are to be claimed alone.
        to_begin: What is claimed and must not run twice, until it begins, by its key, in their order.
        beginning: The key of the task that is about to begin, until its handler has.
        running: The other claimed tasks, those in flight, by key.
        handling: What is claimed and whose handler has not ended, and the bytes of its request.
        put_off: What was claimed and not run and is to wait, and for how many seconds.
        some_put_off: There are some.
        may_begin: Something may be to begin.
        ending: Nothing more is to be taken.
        fenced: The lease is gone, and with it the right to the tasks held: the store refuses their results.
        changed: There may be something to do, or room for it.
        reconcile_due: Something may stand in the list that is not held.
        there: Of a pop that waits to be told that something is in the queue: False ends it.
    """

    def __init__(
        self,
        name: str,
        keys: QueueKeys,
        settings: ConsumerSettings,
        scripts: Scripts,
        *,
        host: TaskHost,
        held: HeldBytes,
    ) -> None:
        self.name = name
        self.keys = keys
        self.settings = settings
        self.scripts = scripts
        self.host = host
        self.held = held
        self.unclaimed: list[str] = []
        self.claiming: frozenset[str] = frozenset()
        self.suspects: list[str] = []
        self.to_begin: dict[str, ClaimedTask] = {}
        self.beginning: str | None = None
        self.running: dict[str, Running] = {}
        self.handling: dict[str, int] = {}
        self.put_off: list[tuple[ClaimedTask, float]] = []
        self.some_put_off = asyncio.Event()
        self.may_begin = asyncio.Event()
        self.ending = asyncio.Event()
        self.fenced = False
        self.changed = asyncio.Event()
        self.reconcile_due = asyncio.Event()
        self.there: asyncio.Future[bool] | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def concurrency(self) -> int:
        """How many tasks may run at once: the least of what was said."""
        fewer = self.host.concurrency()
        return self.settings.concurrency if fewer is None else min(fewer, self.settings.concurrency)

    @property
    def claimed_bytes(self) -> int:
        """How many bytes the requests have that are claimed and whose handlers have not ended."""
        return sum(self.handling.values())

    @property
    def bytes_left(self) -> int:
        """How many bytes of requests may still be claimed: what is claimed has them in memory."""
        return self.held.left(self.claimed_bytes)

    @property
    def holds_claimed(self) -> bool:
        """Whether anything is claimed."""
        return bool(self.running or self.to_begin)

    def unended(self) -> Iterator[ClaimedTask]:
        """Return what is claimed and whose handler has not ended: what has this process' places."""
        claimed = (*(one.claimed for one in self.running.values()), *self.to_begin.values())
        return (one for one in claimed if one.key in self.handling)

    @property
    def holds_any(self) -> bool:
        """Whether anything is held, claimed or not."""
        return bool(self.holds_claimed or self.unclaimed or self.suspects or self.claiming)

    def holds(self, key: str) -> bool:
        """Return whether a key is held: claiming one twice would start its handler twice."""
        waits = key in self.unclaimed or key in self.suspects or key in self.to_begin
        return waits or key in self.running or key in self.claiming

    def adopt(self, keys: Iterable[str]) -> None:
        """Hold keys that are not yet."""
        for key in keys:
            if not self.holds(key):
                self.unclaimed.append(key)
                self.changed.set()
                self.stop_looking()

    def free_slots(self, *, live: bool) -> int:
        """How many tasks may be taken now.

        Those that only wait for their report's answer leave room for others, but not without bound: a middleware that
        is away must not make the list of what is taken grow.
        """
        concurrency = self.concurrency
        held = len(self.running) + len(self.to_begin)
        slots = min(concurrency - len(self.handling), _HELD_PER_RUNNING * concurrency - held, MAX_TAKEN)
        if self.bytes_left <= 0:
            return 0
        return max(0, min(slots, _BESIDE_LIVE_CALLS) if live else slots)

    def end(self) -> None:
        """Take no more."""
        self.ending.set()
        self.changed.set()
        self.stop_looking()

    def stop_looking(self) -> None:
        """End a pop that waits without a connection: there is something else to do."""
        if self.there is not None and not self.there.done():
            self.there.set_result(False)

    def fence(self) -> None:
        """Stop, and drop all tasks: the lease is gone, others may claim them (fencing: no result is accepted)."""
        _log.warning("lease lost", queue=self.keys.queue, incarnation=self.name)
        self.fenced = True
        self.end()

    def let_go(self) -> None:
        """Note that nothing that is claimed is this session's any more."""
        self.held.give(self.claimed_bytes)
        self.handling.clear()

    def handled(self, key: str) -> None:
        """Note that a task's handler has ended, or does not start."""
        size = self.handling.pop(key, None)
        if size is not None:
            self.held.give(size)
            self.not_beginning(key)
        self.changed.set()

    def begun(self, key: str) -> None:
        """Note, from whichever thread, that a handler begins."""
        if threading.get_ident() == self._thread:
            self.not_beginning(key)
        else:
            self._loop.call_soon_threadsafe(self.not_beginning, key)

    def not_beginning(self, key: str) -> None:
        """Note that a handler has begun by now, or that it will not: another may."""
        if self.beginning == key:
            self.beginning = None
            self.may_begin.set()
