"""Takes tasks off the queue, claims them, and has them run.

One is waited for by BLMOVE. Its claim tells what else is at the queue's front, and the next claim takes that: so a task
alone is claimed at once, and a backlog costs one script for many. What may run twice starts when it is claimed;
`beginning` has the rest begin one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any, Final

from poste.domain import door, sizes
from poste.domain.errors import PosteError, StoreError
from poste.queue import damaged
from poste.queue.beginning import Beginner
from poste.queue.durability import Durability
from poste.queue.errors import StoreFull
from poste.queue.hand import MAX_TAKEN, ClaimedTask, Hand, Handle, NotRun, Running
from poste.queue.steps import consumer as steps
from poste.runtime import lifecycle, logs, metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from poste.queue.connection import Client

_log = logs.get("consumer")
#: How long BLMOVE blocks when there is nothing to take, in seconds.
BLOCK_SECONDS: Final = 2.0
#: The wait after a pop that failed, in seconds.
_POP_BACKOFF: Final = 0.2
#: How often it is looked whether a queue that stands still (paused, or at its budget) does yet, in seconds.
_STILL_LOOK_SECONDS: Final = 0.5
#: How often it is looked whether more tasks may run at once than may now, in seconds.
_ROOM_LOOK_SECONDS: Final = 0.25
#: While something is to begin, no fewer tasks are taken, as a share of those that may run at once: one a step is dear.
_REFILL: Final = 0.25
#: How long that is waited for, in seconds: what may run twice need not wait for one that does not begin.
_REFILL_SECONDS: Final = 0.25
#: How often CLIENT UNBLOCK is sent until the blocked pop has ended, in seconds: it may run before the pop does.
_UNBLOCK_SECONDS: Final = 0.05


class Taker:
    """Fills one incarnation's hand."""

    def __init__(
        self,
        hand: Hand,
        *,
        handle: Handle,
        blocking: Client,
        blocking_client_id: Callable[[], int | None],
        tried_to_pop: Callable[[], None],
        live: Callable[[], bool],
        lost: Callable[[], None],
    ) -> None:
        """Prepare; `run` begins.

        Args:
            hand: What is taken goes there.
            handle: Runs and reports one task.
            blocking: For BLMOVE alone.
            blocking_client_id: Redis' id of the connection that BLMOVE blocks on.
            tried_to_pop: Called after each pop that Redis answered, and each look at a queue that stands still.
            live: Tells whether direct calls come in: those go first.
            lost: Called if a claim finds that the lease is gone.
        """
        self._hand = hand
        self._handle = handle
        self._blocking = blocking
        self._blocking_client_id = blocking_client_id
        self._tried_to_pop = tried_to_pop
        self._live = live
        self._lost = lost
        self._seq = 0
        #: What stood at the queue's front when it was last looked at, the oldest first.
        self._front: list[str] = []
        #: The key of the task that was last claimed to run alone.
        self._suspect: str | None = None
        self._stands_still = False
        self._defect: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._refill_by = 0.0
        #: Whether something of the last claim must not run twice, as that of the next one then may.
        self._once = False
        self.beginner = Beginner(hand, start=self._start, leave=self._handled, lost=lost)

    @property
    def full(self) -> bool:
        """Whether nothing is taken now because there is no room for it."""
        hand = self._hand
        return self._alone or bool(hand.suspects and hand.holds_claimed) or hand.room(live=False) == 0

    @property
    def _alone(self) -> bool:
        return self._suspect is not None and self._suspect in self._hand.handling

    async def run(self) -> None:
        """Take, until the hand is to be emptied; what is taken runs, owned by the hand.

        Raises what handling a task raised, which it must not; a PosteError, if that is no Exception.
        """
        hand = self._hand
        while not hand.ending.is_set():
            hand.changed.clear()
            if isinstance(self._defect, Exception):
                raise self._defect
            if self._defect is not None:
                raise PosteError(f"handling a task raised {self._defect!r}") from self._defect
            if self._alone:
                await hand.changed.wait()
            elif hand.unclaimed and hand.bytes_left > 0:
                keys, hand.unclaimed = hand.unclaimed, []
                await self._claim(keys)
            elif hand.suspects:
                if hand.holds_claimed:
                    await hand.changed.wait()
                else:
                    await self._claim([hand.suspects.pop(0)], alone=True)
            elif not self._worth_taking(room := hand.room(live=self._live())):
                await self._wait_for_room(room)
            elif self._stands_still:
                await self._rest(_STILL_LOOK_SECONDS)
                await self._look()
            else:
                await self._take(room)

    async def stop(self, running: asyncio.Task[None]) -> None:
        """End the blocked pop from outside: cancelling it would strand what it is about to answer with."""
        while not running.done():
            client_id = self._blocking_client_id()
            if client_id is not None:
                with contextlib.suppress(StoreError):
                    await steps.unblock(self._hand.scripts, client_id)
            await asyncio.wait([running], timeout=_UNBLOCK_SECONDS)

    async def _take(self, room: int) -> None:
        """Take what there is room for."""
        hand = self._hand
        self._refill_by = self._loop.time() + _REFILL_SECONDS
        front, self._front = [key for key in self._front[:room] if not hand.holds(key)], []
        if front:
            await self._claim(front, take=len(front))
        else:
            await self._pop(room)

    async def _pop(self, room: int) -> None:
        """Wait for one task."""
        hand = self._hand
        try:
            try:
                first = await steps.pop(self._blocking, hand.keys, hand.name, block_seconds=BLOCK_SECONDS)
            except StoreFull:
                await self._rest(_POP_BACKOFF)
                hand.adopt(await steps.take(hand.scripts, hand.keys, hand.name, count=room))
            else:
                hand.adopt([] if first is None else [first])
            self._tried_to_pop()
        except StoreError as error:
            # Its answer may have been lost with a key in it: the audit finds that.
            _log.warning("pop failed", queue=hand.keys.queue, error=str(error))
            await self._recover()

    async def _look(self) -> None:
        """Look whether the queue stands still yet."""
        try:
            self._stands_still = await steps.look(self._hand.scripts, self._hand.keys)
            self._tried_to_pop()
        except StoreError as error:
            _log.warning("not known whether the queue stands still", queue=self._hand.keys.queue, error=str(error))

    async def _claim(self, named: Sequence[str], *, alone: bool = False, take: int = 0) -> None:
        """Claim keys, and start what may run.

        Args:
            named: The keys; they are in hand, and after those come some that stood at the queue's front.
            alone: Nothing else runs in this process.
            take: So many are taken first.
        """
        hand, keys = self._hand, self._hand.keys
        look = min(hand.concurrency, MAX_TAKEN)
        numbered = [(key, seq) for seq, key in enumerate(named, self._seq + 1)]
        self._seq += len(numbered)
        hand.claiming = frozenset(named)
        try:
            # What may run twice does not ask, and need not wait for the look.
            on_disk = self._once and await hand.scripts.durability(keys.queue) is Durability.ON_REPLY
            size = min(sizes.BATCH, hand.bytes_left)
            claims = await steps.claim(
                hand.scripts, keys, hand.name, numbered,
                most_bytes=size, alone=alone, take=take, look=look, on_disk=on_disk,
            )  # fmt: skip
        except StoreError as error:
            # Whatever was taken and claimed stands in the list, and a claim with a higher seq takes it over.
            _log.warning("claim failed", queue=keys.queue, error=str(error))
            hand.claiming = frozenset()
            await self._recover()
            return
        # From here to the end nothing is waited for, so no audit comes between.
        hand.claiming = frozenset()
        if isinstance(claims, steps.Fenced):
            self._lost()
            return
        if take:
            self._tried_to_pop()
        self._front = claims.front
        for key, said in zip(named, claims.results, strict=True):
            self._heed(key, said)
        once = [hand.to_begin[key] for key in named if key in hand.to_begin]
        self._once = bool(once)
        self.beginner.add(once, on_disk=on_disk)
        if alone:
            (self._suspect,) = named
        hand.adopt(claims.unnamed)

    def _heed(self, key: str, said: steps.Claimed | steps.NotClaimed) -> None:
        """Do with a key what its claim says."""
        match said:
            case steps.Claimed():
                self._own(said)
            case "suspect":
                self._hand.suspects.append(key)
            case "later":
                self._hand.unclaimed.append(key)
            case "paused":
                self._stands_still = True
            case "damaged":
                damaged.tell(self._hand.keys.queue, key, "it was to be run: given up")

    def _own(self, said: steps.Claimed) -> None:
        """Have what was claimed start, at once or when its turn is."""
        key, traceparent = said.key, said.traceparent
        claimed = ClaimedTask(
            queue=self._hand.keys.queue,
            key=key,
            method=said.method,
            request=said.request,
            token=said.token,
            attempt=said.attempt,
            create_time=said.create_time,
            handled=functools.partial(self._handled, key),
            go_on=functools.partial(self._go_on, key),
            traceparent=traceparent if traceparent and door.is_place_in_trace(traceparent) else "",
            unstarted=True,
        )
        self._hand.handling[key] = len(claimed.request)
        if said.once:
            claimed.began = functools.partial(self.beginner.begun, key)
            self._hand.to_begin[key] = claimed
        else:
            self._start(claimed)

    def _start(self, claimed: ClaimedTask) -> None:
        if claimed.attempt == 1:
            # By two hosts' clocks: what they differ by must not make it less than nothing.
            metrics.task_wait_seconds.observe((claimed.queue,), max(0.0, time.time() - claimed.create_time))
        self._hand.running[claimed.key] = Running(claimed, self._loop.create_task(self._run(claimed)))

    def _go_on(self, key: str, rest: Callable[[], Coroutine[Any, Any, None]]) -> None:
        running = self._hand.running[key]
        running.claimed.left = True
        running.task = self._loop.create_task(self._run(running.claimed, rest))

    async def _run(self, claimed: ClaimedTask, rest: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        hand = self._hand
        claimed.unstarted = False
        try:
            await (self._handle(claimed) if rest is None else rest())
        except NotRun as refusal:
            # It stays in hand until it is known to be back.
            claimed.unstarted = True
            hand.put_off.append((claimed, refusal.delay_seconds))
            hand.some_put_off.set()
        except BaseException as error:  # noqa: BLE001 - the task's edge: its owner finds it, and dies of it
            # Those that were told to end stay in hand: they are given back, or are somebody else's already.
            if not claimed.left and not lifecycle.was_told(hand.running[claimed.key].task):
                self._defect = error
        else:
            if rest is not None or not claimed.left:
                del hand.running[claimed.key]
        if claimed.key in hand.handling and (rest is not None or not claimed.left):
            self._handled(claimed.key)
        hand.changed.set()

    def _handled(self, key: str) -> None:
        if self._hand.handling.pop(key, None) is not None:
            self.beginner.not_beginning(key)
        self._hand.changed.set()

    def _worth_taking(self, room: int) -> bool:
        few = bool(self._hand.to_begin) and room < self._hand.concurrency * _REFILL
        return room > 0 and not (few and self._loop.time() < self._refill_by)

    async def _wait_for_room(self, room: int) -> None:
        if room > 0:
            await self._wait(self._refill_by - self._loop.time())
        elif self._hand.concurrency == self._hand.settings.concurrency:
            await self._hand.changed.wait()
        else:
            # What makes it fewer may end without a word.
            await self._wait(_ROOM_LOOK_SECONDS)

    async def _wait(self, seconds: float) -> None:
        """Wait for a change, not for longer than this."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hand.changed.wait()

    async def _recover(self) -> None:
        """After an answer that was lost: have the audit look for what was in it, and wait a little."""
        self._front = []
        self._hand.audit_due.set()
        await self._rest(_POP_BACKOFF)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hand.ending.wait()
