"""Reads a task, waits for its end (long poll), and cancels it.

A task without a record is answered by what is certain about it, never by a guess: see `_missing`. So is one whose
record another has by now: calls with the same idempotency key have the same one, one after the other (`_is_of`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from poste.domain.errors import InvalidTaskId
from poste.domain.policy import MAX_ENQUEUE_AGE_SECONDS
from poste.domain.task import TaskState
from poste.domain.task_id import TaskId, TaskIds
from poste.runtime import logs, metrics
from poste.v1 import mom_service_pb2, task_pb2
from poste_gateway.http.busy import busy
from poste_gateway.http.problem_types import (
    ACCEPTANCE_UNKNOWN,
    GONE,
    LOOKUP_AWAY,
    NO_TASK,
    NOT_KEPT,
    RECORD_LOST,
    TASK_ENDED,
)
from poste_gateway.http.problems import RETRY_AFTER, Problem
from poste_gateway.limits.budgets import Budget
from poste_gateway.limits.fair_queue import FairQueue, Full
from poste_gateway.limits.refusals import refuse
from poste_gateway.mom import Mom, MomAway
from poste_gateway.tasks.task_view import state_of

#: How long one call to the middleware waits for a task's end, in seconds; longer waits take several calls.
_POLL_SECONDS: Final = 20.0
#: The pause after a long poll that failed, in seconds.
_PAUSE_SECONDS: Final = 0.2

#: So many of the requests that wait for one task are woken in one turn of the event loop.
_WOKEN_AT_ONCE: Final = 32

#: The middleware's answers that say that there is no record.
_NoRecord: TypeAlias = (
    mom_service_pb2.GetTaskResponse | mom_service_pb2.GetTaskHistoryResponse | mom_service_pb2.CancelTaskResponse
)

#: What is said of an id that no task has; and of that of another client's task.
NEVER_ISSUED: Final = "This task id was never issued."

_log: Final = logs.get("task_reader")


class TaskReader:
    """Reads and cancels tasks at the middleware."""

    def __init__(
        self, mom: Mom, ids: TaskIds, draining: asyncio.Event, *, max_waiting_bytes: int, max_waits: int
    ) -> None:
        """Connect the parts; nothing is read yet.

        Args:
            mom: The middleware, which keeps the tasks.
            ids: Parses and verifies task ids.
            draining: Set when the process is to stop; ends every wait.
            max_waiting_bytes: How many bytes of large results may wait for their turn.
            max_waits: How many requests may wait for tasks' ends; one client's at most half of it.
        """
        self._mom = mom
        self._ids = ids
        self._draining = draining
        self._large = FairQueue(max_waiting_bytes)
        self._waits = Budget(max_waits, max_waits // 2)
        #: The long polls under way, by queue and key.
        self._polls: dict[tuple[str, str], _LongPoll] = {}

    def read_id(self, text: str) -> TaskId:
        """Parse a task's id.

        Raises:
            Problem: It was never issued.
        """
        try:
            return self._ids.read(text)
        except InvalidTaskId as error:
            raise Problem(NO_TASK, NEVER_ISSUED) from error

    async def get(self, task_id: TaskId, wait_seconds: float = 0.0, *, peer: str = "") -> task_pb2.Task:
        """Read a task, waiting for its end for some time.

        Args:
            task_id: The task's id.
            wait_seconds: How long to wait at most.
            peer: The client; each has its share of the waits.

        Raises:
            Problem: There is no record of it, too many requests wait, or it can't be read now.
        """
        if wait_seconds <= 0:
            return await self._get(task_id, 0.0)
        with self.waiting(peer):
            return await self._get(task_id, wait_seconds)

    @contextlib.contextmanager
    def waiting(self, peer: str) -> Iterator[None]:
        """Count one more request of a client that waits, while the body runs.

        Raises:
            Problem: Too many wait.
        """
        if not self._waits.take(peer, 1):
            detail = "As many requests wait for tasks' ends here as may: read the task without a wait, or later."
            raise busy("waits", detail, peer=peer)
        try:
            yield
        finally:
            self._waits.give(peer, 1)

    async def wait(self, task_id: TaskId, wait_seconds: float, *, peer: str) -> task_pb2.Task | None:
        """Wait for the end of a task that was just accepted.

        Args:
            task_id: The task's id.
            wait_seconds: How long to wait at most.
            peer: The client; each has its share of the waits.

        Returns:
            The task as it was last read; None if every read failed, or it has no record any more.

        Raises:
            Full: Too many requests wait, which is counted and logged here. The task itself is kept all the same.
        """
        if not self._waits.take(peer, 1):
            refuse("waits", peer=peer)
            raise Full
        try:
            latest = await self._wait(task_id, wait_seconds)
        finally:
            self._waits.give(peer, 1)
        return latest.task if latest is not None and _is_of(task_id, latest) else None

    async def _get(self, task_id: TaskId, wait_seconds: float) -> task_pb2.Task:
        begin = asyncio.get_running_loop().time()
        if wait_seconds > 0 and not self._draining.is_set():
            # Most tasks have not ended yet: the first read is a long poll already, which saves one.
            answer = await self._long_poll(task_id, min(wait_seconds, _POLL_SECONDS))
        else:
            answer = None
        try:
            answer = answer or await self._mom.get_task(task_id.queue, task_id.key)
        except MomAway as error:
            raise _away(
                f"The task can't be looked up now, because {error}; nothing has become of it by that."
            ) from error
        if not _is_of(task_id, answer):
            raise _missing(task_id, answer)
        if state_of(answer.task).final:
            return answer.task
        left = wait_seconds - (asyncio.get_running_loop().time() - begin)
        latest = await self._wait(task_id, left) or answer
        if not _is_of(task_id, latest):
            raise _missing(task_id, latest)
        return latest.task

    async def _wait(self, task_id: TaskId, wait_seconds: float) -> mom_service_pb2.GetTaskResponse | None:
        """Wait until a task ends or has no record any more; return the latest answer, None if there was none."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_seconds
        latest = None
        while not self._draining.is_set() and (left := end - loop.time()) > 0:
            answer = await self._long_poll(task_id, min(left, _POLL_SECONDS))
            if answer is not None:
                latest = answer
                if not _is_of(task_id, answer) or state_of(answer.task).final:
                    break
        return latest

    @contextlib.asynccontextmanager
    async def whole(
        self, task_id: TaskId, task: task_pb2.Task, *, peer: str, patient: bool = False
    ) -> AsyncIterator[task_pb2.Task]:
        """Yield a task with its response. Large responses are read one at a time: the next when the body has ended.

        Args:
            task_id: The task's id.
            task: The task as it was read; its response was left out if it is large.
            peer: The client; each has its share of the turns.
            patient: Wait for a turn even if too much waits already.

        Raises:
            Problem: Too many large results are asked for, or it can't be read any more.
        """
        if not task.response_bytes:
            yield task
            return
        try:
            async with self._large.turn(peer, task.response_bytes, patient=patient):
                yield await self._fetch(task_id)
        except Full:
            detail = "More is asked of large results here than there is room for: this one is kept as it is."
            raise busy("results", detail, peer=peer, bytes=task.response_bytes) from None

    async def _fetch(self, task_id: TaskId) -> task_pb2.Task:
        try:
            answer = await self._mom.get_task(task_id.queue, task_id.key, whole=True)
        except MomAway as error:
            raise _away(f"The task's response can't be read now, because {error}; it is kept as it is.") from error
        if not _is_of(task_id, answer):
            raise _missing(task_id, answer)
        return answer.task

    async def history(self, task_id: TaskId) -> mom_service_pb2.GetTaskHistoryResponse:
        """Read the events of a task so far.

        Raises:
            Problem: There is no record of it, or it can't be read now.
        """
        try:
            answer = await self._mom.get_task_history(task_id.queue, task_id.key)
        except MomAway as error:
            raise _away(
                f"The task can't be looked up now, because {error}; nothing has become of it by that."
            ) from error
        if not _is_history_of(task_id, answer):
            raise _missing(task_id, answer)
        return answer

    async def next_history(
        self, task_id: TaskId, known_mark: str, wait_seconds: float
    ) -> mom_service_pb2.GetTaskHistoryResponse | None:
        """Wait for a history with another mark; the same one after some seconds, None if it can't be read now.

        Raises:
            Problem: There is no record of the task.
        """
        try:
            answer = await self._mom.get_task_history(task_id.queue, task_id.key, known_mark, wait_seconds)
        except MomAway:
            return None
        if not _is_history_of(task_id, answer):
            raise _missing(task_id, answer)
        return answer

    async def cancel(self, task_id: TaskId) -> task_pb2.Task:
        """Cancel a task, or ask its handler to stop if it runs; return it as it is then.

        Raises:
            Problem: It ended otherwise, there is no record of it, or the middleware can't be asked now.
        """
        answer: mom_service_pb2.GetTaskResponse | mom_service_pb2.CancelTaskResponse
        try:
            # The record may be another task's by now. If it is this one's and has not ended, it stays so for longer
            # than it takes to cancel it.
            answer = await self._mom.get_task(task_id.queue, task_id.key)
            if _is_of(task_id, answer) and not state_of(answer.task).final:
                answer = await self._mom.cancel_task(task_id.queue, task_id.key)
        except MomAway as error:
            raise _away(f"Whether the task is cancelled is not known, because {error}; ask again.") from error
        if not _is_of(task_id, answer):
            raise _missing(task_id, answer)
        state = state_of(answer.task)
        if state.final and state is not TaskState.CANCELLED:
            raise Problem(TASK_ENDED, f"The task is {state.name} already.")
        return answer.task

    async def _long_poll(self, task_id: TaskId, seconds: float) -> mom_service_pb2.GetTaskResponse | None:
        """Read a task once it has ended, or after some seconds; None if that failed or the process is to stop.

        All requests that wait for one task share one call to the middleware.
        """
        name = task_id.queue, task_id.key
        poll = self._polls.get(name)
        began = poll is None
        if poll is None:
            poll = self._polls[name] = _LongPoll(asyncio.ensure_future(self._mom.get_task(*name, seconds)))
            poll.task.add_done_callback(functools.partial(self._end_poll, name, poll))
        place = poll.joined
        poll.joined, poll.waiting = place + 1, poll.waiting + 1
        drained = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait(
                {poll.task, drained}, timeout=None if began else seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not poll.task.done():
                return None
            # All are woken in one turn of the loop; the later ones step back, so that other requests are served too.
            for _ in range(place // _WOKEN_AT_ONCE):
                await asyncio.sleep(0)
            try:
                answer = poll.task.result()
            except MomAway:
                await asyncio.sleep(min(seconds, _PAUSE_SECONDS))
                return None
            # The call may have read before this request came, and a request must not get an older state than it knows.
            # A final state changes no more.
            return answer if began or (answer.HasField("task") and state_of(answer.task).final) else None
        finally:
            poll.waiting -= 1
            left: set[asyncio.Task[Any]] = {drained}
            if not poll.waiting:
                self._end_poll(name, poll)
                left.add(poll.task)
            for task in left:
                task.cancel()
            await asyncio.wait(left)

    def _end_poll(self, name: tuple[str, str], poll: _LongPoll, *_: object) -> None:
        """Let no more requests join a long poll: it has ended."""
        if self._polls.get(name) is poll:
            del self._polls[name]


@dataclass(slots=True)
class _LongPoll:
    """A call to the middleware that waits for a task's end.

    Attributes:
        task: The asyncio task of the call.
        joined: How many requests have waited for it.
        waiting: How many still do; with the last one it is cancelled.
    """

    task: asyncio.Task[mom_service_pb2.GetTaskResponse]
    joined: int = 0
    waiting: int = 0


def _away(detail: str) -> Problem:
    return Problem(LOOKUP_AWAY, detail, headers=RETRY_AFTER)


def _is_of(task_id: TaskId, answer: mom_service_pb2.GetTaskResponse | mom_service_pb2.CancelTaskResponse) -> bool:
    """Return whether an answer has the record of a task, and not that of a later one with the same idempotency key."""
    if not answer.HasField("task"):
        return False
    # What is made up for a damaged record is as old as that.
    damaged = answer.task.dead_reason == task_pb2.DEAD_REASON_DAMAGED
    return damaged or answer.task.create_time.ToMilliseconds() <= task_id.create_ms


def _is_history_of(task_id: TaskId, answer: mom_service_pb2.GetTaskHistoryResponse) -> bool:
    """Return the same of the events of a record, of which the first is its acceptance."""
    return bool(answer.events) and answer.events[0].time.ToMilliseconds() <= task_id.create_ms


def _missing(task_id: TaskId, answer: _NoRecord) -> Problem:
    """Return the problem for a task without a record, by its id, the store's clock and the last purge.

    The id has the time of creation, the result TTL, and whether the gateway knew that the call was accepted.

    - Within the result TTL, counted from the creation, the record of an accepted task must exist: its loss is logged.
    - After that the task may have ended and its result TTL be over: `gone`.
    - If acceptance was unknown, an enqueue may still arrive while the store does not refuse its age; after that the
      call was certainly not accepted.
    - Of a task created before an operator's purge of ended tasks it can't be known whether that dropped it: `gone`.
    """
    age = (answer.read_time.ToMilliseconds() - task_id.create_ms) / 1000
    if task_id.acceptance_unknown and age <= MAX_ENQUEUE_AGE_SECONDS:
        return Problem(ACCEPTANCE_UNKNOWN, "The call is not kept so far; it may still be.", headers=RETRY_AFTER)
    if age >= task_id.result_ttl_seconds:
        if task_id.acceptance_unknown:
            return Problem(
                GONE, "The call was not accepted, or its result's time to live is over: nothing is on record."
            )
        return Problem(GONE, "The task is no longer kept: its result's time to live is over.")
    if task_id.create_ms <= answer.purge_time.ToMilliseconds():
        return Problem(GONE, "The task is no longer kept: an operator has dropped what had ended in its queue.")
    if task_id.acceptance_unknown:
        return Problem(NOT_KEPT, "The call was not accepted: there is no record of it.")
    metrics.records_lost_total.inc()
    _log.error("record lost", task=task_id.text, queue=task_id.queue)
    return Problem(RECORD_LOST, "The task must be on record, and is not. It is in the operator's log.")
