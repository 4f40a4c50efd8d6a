"""Takes tasks off the queue, claims them, and has them run.

One is waited for by BLMOVE. Its claim returns what else is at the queue's front, and the next claim takes that: so a
task alone is claimed at once, and a backlog costs one script for many. What may run twice starts when it is claimed;
the `Beginner` has the rest begin one after the other.

Tasks of methods that have no turn now go to their lanes (`Lanes`), and what is taken from there is claimed as all else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Final

from poste.domain import input_rules, sizes
from poste.domain.errors import StoreError
from poste.queue import damaged
from poste.queue.consumer.lanes import LONG_SECONDS
from poste.queue.consumer.state import MAX_TAKEN
from poste.queue.consumer.task import ClaimedTask
from poste.queue.durability import Durability
from poste.queue.errors import StoreFull
from poste.queue.steps import consumer as steps
from poste.runtime import lifecycle, logs
from poste.runtime.waits import done_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poste.queue.consumer.beginner import Beginner
    from poste.queue.consumer.lanes import Lanes, Serving
    from poste.queue.consumer.pops import Pops
    from poste.queue.consumer.state import ConsumerState
    from poste.queue.consumer.task_runner import TaskRunner

_log = logs.get("consumer")
#: The wait after a pop that failed, in seconds.
_POP_BACKOFF: Final = 0.2
#: How often a queue that stands still (paused, or at its budget) is checked for whether it still does, in seconds.
_STILL_CHECK_SECONDS: Final = 0.5
#: How often the limit of tasks that run at once is read again while it is reached, in seconds.
_ROOM_CHECK_SECONDS: Final = 0.25
#: While something is to begin, no fewer tasks are taken, as a share of those that may run at once: one a step is dear.
_REFILL: Final = 0.25
#: How long that is waited for, in seconds: what may run twice need not wait for one that does not begin.
_REFILL_SECONDS: Final = 0.25
#: So many of the queue are looked through at once while tasks of some methods are parked.
_LOOKED_THROUGH: Final = 256
#: How long a pop waits at least where a method's pace ends it, in seconds.
_LEAST_BLOCK: Final = 0.05
#: How often CLIENT UNBLOCK is sent until the blocked pop has ended, in seconds: it may run before the pop does.
_UNBLOCK_SECONDS: Final = 0.05


class Fetcher:
    """Takes what one session has room for, claims it, and passes it on: to be started, or to begin in its turn."""

    def __init__(self, state: ConsumerState, pops: Pops, runner: TaskRunner, beginner: Beginner, lanes: Lanes) -> None:
        self._state = state
        self._pops = pops
        self._runner = runner
        self._beginner = beginner
        self._lanes = lanes
        self._live = state.host.live
        self._seq = 0
        #: What stood at the queue's front when it was last read, the oldest first.
        self._prefetch_hint: list[str] = []
        #: The key of the task that was last claimed to run alone.
        self._suspect: str | None = None
        self._stands_still = False
        self._weighing: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._refill_by = self._claim_time = 0.0
        #: Whether something of the last claim must not run twice, as that of the next one then may.
        self._once = False

    @property
    def full(self) -> bool:
        """Whether nothing is taken now because there is no room for it."""
        state = self._state
        return self._alone or bool(state.suspects and state.holds_claimed) or state.free_slots(live=False) == 0

    @property
    def _alone(self) -> bool:
        return self._suspect is not None and self._suspect in self._state.handling

    async def run(self) -> None:
        """Take, until nothing more is to be taken.

        Raises what handling a task raised, which it must not; a PosteError, if that is no Exception.
        """
        try:
            await self._run()
        finally:
            if self._weighing is not None:
                self._weighing.cancel()

    async def _run(self) -> None:
        state = self._state
        while not state.ending.is_set():
            state.changed.clear()
            self._runner.raise_defect()
            if self._alone:
                await state.changed.wait()
            elif state.unclaimed and state.bytes_left > 0:
                keys, state.unclaimed = state.unclaimed, []
                await self._claim(keys, parked=self._lanes.parked(self._loop.time()))
            elif state.suspects:
                if state.holds_claimed:
                    await state.changed.wait()
                else:
                    await self._claim([state.suspects.pop(0)], alone=True)
            elif not self._worth_taking(slots := state.free_slots(live=self._live())):
                await self._wait_for_room(slots)
            elif self._stands_still:
                await self._sleep_unless_stopping(_STILL_CHECK_SECONDS)
                await self._check_standstill()
            else:
                await self._take(slots)

    async def stop(self, running: asyncio.Task[None]) -> None:
        """End the pop that waits from outside: cancelling it would strand what it is about to answer with."""
        while not running.done():
            with contextlib.suppress(StoreError):
                await self._pops.unblock(self._state)
            await asyncio.wait([running], timeout=_UNBLOCK_SECONDS)

    async def _take(self, slots: int) -> None:
        """Take what there is room for."""
        state, now = self._state, self._loop.time()
        self._refill_by = now + _REFILL_SECONDS
        parked = self._lanes.parked(now)
        if parked:
            serving = self._lanes.next(slots, others=bool(self._prefetch_hint), now=now)
            if serving is not None:
                await self._serve(serving)
                return
        named = self._prefetch_hint[: max(slots, _LOOKED_THROUGH) if parked else slots]
        front, self._prefetch_hint = [key for key in named if not state.holds(key)], []
        if front:
            await self._claim(front, take=len(front), parked=parked)
        else:
            await self._pop(slots)

    async def _serve(self, serving: Serving) -> None:
        """Take from a method's lane: it is its turn."""
        state, method = self._state, serving.method
        try:
            turn = await steps.take_lane(
                state.scripts, state.keys, state.name, method, count=serving.most, per_second=serving.per_second
            )
        except StoreError as error:
            _log.warning("lane not taken from", queue=state.keys.queue, method=method, error=str(error))
            await self._recover()
            return
        self._pops.note_answer()
        self._lanes.note_taken(serving, len(turn.keys), wait_seconds=turn.wait_seconds, now=self._loop.time())
        # Reconciling may have found them first: claimed from there they would be parked again, behind younger ones.
        state.unclaimed = [key for key in state.unclaimed if key not in turn.keys]
        if keys := [key for key in turn.keys if not state.holds(key)]:
            await self._claim(keys)

    async def _pop(self, slots: int) -> None:
        """Wait for tasks."""
        state = self._state
        try:
            try:
                beside = self._lanes.any_waiting
                taken = await (self._pop_beside_lanes(slots) if beside else self._pops.pop(state, slots))
            except StoreFull:
                await self._sleep_unless_stopping(_POP_BACKOFF)
                state.adopt(await steps.take(state.scripts, state.keys, state.name, count=slots))
            else:
                state.adopt(taken)
            self._pops.note_answer()
        except StoreError as error:
            # Its answer may have been lost with a key in it: reconciling finds that.
            _log.warning("pop failed", queue=state.keys.queue, error=str(error))
            await self._recover()

    async def _pop_beside_lanes(self, slots: int) -> list[str]:
        """Wait for tasks, or until a lane may be taken from."""
        due_seconds = self._lanes.due_seconds(self._loop.time())
        watching = asyncio.create_task(self._end_pop_for_lane())
        try:
            seconds = None if due_seconds is None else max(due_seconds, _LEAST_BLOCK)
            return await self._pops.pop(self._state, slots, seconds=seconds)
        finally:
            await lifecycle.end([watching])

    async def _end_pop_for_lane(self) -> None:
        """End the blocked pop once a lane may be taken from, until cancelled."""
        state = self._state
        while not self._lanes.may_serve(self._loop.time()):
            await state.changed.wait()
            # Who waits for the pop looks at everything again.
            state.changed.clear()
        while True:
            with contextlib.suppress(StoreError):
                await self._pops.unblock(state)
            await asyncio.sleep(_UNBLOCK_SECONDS)

    async def _check_standstill(self) -> None:
        """Read whether the queue still stands still."""
        try:
            self._stands_still = await steps.stands_still(self._state.scripts, self._state.keys)
            self._pops.note_answer()
        except StoreError as error:
            _log.warning("not known whether the queue stands still", queue=self._state.keys.queue, error=str(error))

    async def _claim(
        self, named: Sequence[str], *, alone: bool = False, take: int = 0, parked: Sequence[str] = ()
    ) -> None:
        """Claim keys, and start what may run.

        Args:
            named: The keys; they are held, and after those come some that stood at the queue's front.
            alone: Nothing else runs in this process.
            take: So many are taken first.
            parked: The methods whose tasks go to their lanes.
        """
        state, keys = self._state, self._state.keys
        front_count, room = min(state.concurrency, MAX_TAKEN), 0
        if parked:
            front_count, room = max(front_count, _LOOKED_THROUGH), state.free_slots(live=self._live())
        numbered = [(key, seq) for seq, key in enumerate(named, self._seq + 1)]
        self._seq += len(numbered)
        state.claiming = frozenset(named)
        try:
            # What may run twice needs no proof, and need not wait for one.
            on_disk = self._once and await state.scripts.durability(keys.queue) is Durability.ON_REPLY
            async with state.held.claiming(state.claimed_bytes, sizes.BATCH) as size:
                claims = await steps.claim(
                    state.scripts, keys, state.name, numbered,
                    most_bytes=size, alone=alone, take=take, front_count=front_count, on_disk=on_disk,
                    parked=parked, room=room,
                )  # fmt: skip
        except StoreError as error:
            # Whatever was taken and claimed stands in the list, and a claim with a higher seq takes it over.
            _log.warning("claim failed", queue=keys.queue, error=str(error))
            state.claiming = frozenset()
            await self._recover()
            return
        # From here to the end nothing is waited for, so nothing is adopted in between.
        state.claiming = frozenset()
        if isinstance(claims, steps.Fenced):
            state.fence()
            return
        if take:
            self._pops.note_answer()
        self._prefetch_hint = claims.front
        if claims.parked:
            self._lanes.note_waiting(claims.parked)
        self._claim_time = self._loop.time()
        for key, said in zip(named, claims.results, strict=True):
            self._heed(key, said)
        once = [state.to_begin[key] for key in named if key in state.to_begin]
        self._once = bool(once)
        self._beginner.add(once, on_disk=on_disk)
        if alone:
            (self._suspect,) = named
        state.adopt(claims.unnamed)

    def _heed(self, key: str, said: steps.Claimed | steps.NotClaimed) -> None:
        """Do with a key what its claim says."""
        match said:
            case steps.Claimed():
                self._own(said)
            case "suspect":
                self._state.suspects.append(key)
            case "later":
                self._state.unclaimed.append(key)
            case "paused":
                self._stands_still = True
            case "damaged":
                damaged.report(self._state.keys.queue, key, "it was to be run: given up")

    def _own(self, said: steps.Claimed) -> None:
        """Have what was claimed start, at once or when its turn is."""
        state, key, traceparent = self._state, said.key, said.traceparent
        # By their places, for by their names they cost twice as much.
        claimed = ClaimedTask(
            state.keys.queue,
            key,
            said.method,
            said.request,
            said.token,
            said.attempt,
            said.create_time,
            functools.partial(state.handled, key),
            functools.partial(self._runner.go_on, key),
            self._claim_time,
            traceparent if traceparent and input_rules.is_place_in_trace(traceparent) else "",
            said.ids,
            said.headers,
            said.schema,
        )
        claimed.unstarted = True
        state.handling[key] = size = len(claimed.request)
        state.held.total += size
        if said.once:
            claimed.began = functools.partial(self._state.begun, key)
            self._state.to_begin[key] = claimed
        else:
            self._runner.start(claimed)

    def _worth_taking(self, slots: int) -> bool:
        few = bool(self._state.to_begin) and slots < self._state.concurrency * _REFILL
        return slots > 0 and not (few and self._loop.time() < self._refill_by)

    async def _wait_for_room(self, slots: int) -> None:
        if slots > 0:
            await self._wait(self._refill_by - self._loop.time())
            return
        if self._weighing is None:
            self._weighing = self._loop.call_later(LONG_SECONDS, self._weigh)
        state = self._state
        if state.concurrency == state.settings.concurrency and state.bytes_left > 0:
            await state.changed.wait()
        else:
            # Other queues' bytes, or what makes it fewer, may end without a word.
            await self._wait(_ROOM_CHECK_SECONDS)

    def _weigh(self) -> None:
        """See who has the places while all are taken: as soon as one is free, it is too late for that."""
        self._weighing = None
        if self._state.free_slots(live=False) == 0:
            self._lanes.weigh(self._loop.time())
            self._weighing = self._loop.call_later(LONG_SECONDS, self._weigh)

    async def _wait(self, seconds: float) -> None:
        """Wait for a change, not for longer than this."""
        await done_within(seconds, self._state.changed.wait())

    async def _recover(self) -> None:
        """After an answer that was lost: have reconciling find the tasks that it named, and wait a little."""
        self._prefetch_hint = []
        self._state.reconcile_due.set()
        await self._sleep_unless_stopping(_POP_BACKOFF)

    async def _sleep_unless_stopping(self, seconds: float) -> None:
        await done_within(seconds, self._state.ending.wait())
