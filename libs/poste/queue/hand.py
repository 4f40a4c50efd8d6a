"""What one incarnation of a consumer has in hand, and how much more it may take.

All of it stands in the list `taken:<incarnation>`; what stands there and is not in hand is adopted by the audit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from poste.queue.durability import Proof, on_reply
from poste.queue.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis.asyncio as redis

    from poste.queue.keys import QueueKeys
    from poste.runtime.settings import WorkerSettings

#: How many tasks start at once while direct calls come in: so long a call waits for its turn in the loop, at most. How
#: many run at once is not bounded by it, so tasks that wait for something else are not held up.
_BESIDE_LIVE_CALLS: Final = 8
#: How many tasks are in hand at most, for each that may run at once.
_HELD_PER_RUNNING: Final = 2
#: How many are taken by one script, at most.
MAX_TAKEN: Final = 1000


@dataclass(slots=True, eq=False)
class ClaimedTask:
    """A task that is this process' to run. `create_time` is in seconds since the epoch, `traceparent` is its call's.

    `cancel_requested` is set before its asyncio task is cancelled because the client asked for it. `handled` is to be
    called once its handler has ended: from then on it waits for its report alone, and another may run in its place.
    `go_on` has something else run for it from now on, for the asyncio task that its handler does not give back.
    `unstarted` is set for as long as it is certain that its handler has not started: given back then, it has not run.
    `began` is told when its handler begins; None if nobody asks.
    `left` is set once its first asyncio task is of no account any more.
    """

    queue: str
    key: str
    method: str
    request: bytes
    token: str
    attempt: int
    create_time: float
    handled: Callable[[], None]
    go_on: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
    traceparent: str = ""
    cancel_requested: bool = False
    unstarted: bool = False
    left: bool = False
    began: Callable[[], object] | None = None

    def begin(self) -> None:
        """Say that its handler begins: to be called right before that is, by whichever thread calls it.

        Until then no other task begins that must not run twice.
        """
        if self.began is not None:
            self.began()


class NotRun(Exception):  # noqa: N818 - it states a fact
    """Raised by a `Handle` that did not start its task's handler: the task waits a while, and nothing is counted.

    Attributes:
        delay_seconds: How long it waits before any process may claim it again.
    """

    def __init__(self, reason: str, *, delay_seconds: float) -> None:
        super().__init__(reason)
        self.delay_seconds = delay_seconds


#: Runs a claimed task's handler and reports its outcome; may raise `NotRun`.
Handle = Callable[[ClaimedTask], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Running:
    """A claimed task and the asyncio task that runs it, which the hand owns: a task group costs as much as the task."""

    claimed: ClaimedTask
    task: asyncio.Task[None]


class Hand:
    """One incarnation's place at its queue, and what it holds.

    Attributes:
        name: The incarnation.
        keys: Its queue's keys.
        taken: The list of what it has taken.
        settings: How much to take, how long a stop may last.
        control: Redis, for everything that answers at once.
        scripts: The same.
        unclaimed: Keys that are taken, and to be claimed.
        claiming: Keys whose claim is under way.
        suspects: Keys that are to be claimed alone.
        to_begin: What is claimed and must not run twice, until it begins, by its key, in their order.
        running: What is claimed besides, by its key.
        handling: What is claimed and whose handler has not ended, and the bytes of its request.
        put_off: What was claimed and not run and is to wait, and for how many seconds.
        some_put_off: There are some.
        ending: Nothing more is to be taken.
        changed: There may be something to do, or room for it.
        audit_due: Something may stand in the list that is not in hand.
    """

    def __init__(
        self,
        name: str,
        keys: QueueKeys,
        settings: WorkerSettings,
        control: redis.Redis,
        *,
        concurrency: Callable[[], int | None],
        proof: Proof = on_reply,
    ) -> None:
        self.name = name
        self.keys = keys
        self.taken = keys.taken(name)
        self.settings = settings
        self.control = control
        self._fewer = concurrency
        self.scripts = Scripts(control, proof)
        self.unclaimed: list[str] = []
        self.claiming: frozenset[str] = frozenset()
        self.suspects: list[str] = []
        self.to_begin: dict[str, ClaimedTask] = {}
        self.running: dict[str, Running] = {}
        self.handling: dict[str, int] = {}
        self.put_off: list[tuple[ClaimedTask, float]] = []
        self.some_put_off = asyncio.Event()
        self.ending = asyncio.Event()
        self.changed = asyncio.Event()
        self.audit_due = asyncio.Event()

    @property
    def concurrency(self) -> int:
        """How many tasks may run at once: the least of what was said."""
        fewer = self._fewer()
        return self.settings.concurrency if fewer is None else min(fewer, self.settings.concurrency)

    @property
    def bytes_left(self) -> int:
        """How many bytes of requests may still be claimed: what is claimed has them in memory."""
        return self.settings.max_claimed_bytes - sum(self.handling.values())

    @property
    def holds_claimed(self) -> bool:
        """Whether anything is claimed."""
        return bool(self.running or self.to_begin)

    def holds(self, key: str) -> bool:
        """Tell whether a key is in hand: claiming one twice would start its handler twice."""
        waits = key in self.unclaimed or key in self.suspects or key in self.to_begin
        return waits or key in self.running or key in self.claiming

    def adopt(self, keys: Iterable[str]) -> None:
        """Take keys in hand that are not yet."""
        for key in keys:
            if not self.holds(key):
                self.unclaimed.append(key)
                self.changed.set()

    def room(self, *, live: bool) -> int:
        """How many tasks may be taken now.

        Those that only wait for their report's answer leave room for others, but not without bound: a middleware that
        is away must not make the list of what is taken grow.
        """
        concurrency = self.concurrency
        held = len(self.running) + len(self.to_begin)
        room = min(concurrency - len(self.handling), _HELD_PER_RUNNING * concurrency - held, MAX_TAKEN)
        if self.bytes_left <= 0:
            return 0
        return max(0, min(room, _BESIDE_LIVE_CALLS) if live else room)
