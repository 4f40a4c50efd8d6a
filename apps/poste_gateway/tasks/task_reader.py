"""Reads a task, waits for its end (long poll), and cancels it. The status never lies: see `_missing`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
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

#: How long one call to the middleware waits for a task's end, in seconds; longer waits are made of several.
_LOOK_SECONDS: Final = 20.0
#: The pause after a look that was lost, in seconds.
_PAUSE_SECONDS: Final = 0.2

#: Of those who wait for one task so many are answered in one turn of the loop.
_WOKEN_AT_ONCE: Final = 32

#: What the middleware answers if there is no record.
_NoRecord: TypeAlias = (
    mom_service_pb2.GetTaskResponse | mom_service_pb2.GetTaskHistoryResponse | mom_service_pb2.CancelTaskResponse
)

_log: Final = logs.get("task_reader")


class TaskReader:
    """Answers what became of tasks."""

    def __init__(
        self, mom: Mom, ids: TaskIds, draining: asyncio.Event, *, max_waiting_bytes: int, max_waits: int
    ) -> None:
        """Take what is needed to ask.

        Args:
            mom: Where tasks are kept.
            ids: Reads their ids.
            draining: Ends every wait: the process is to stop.
            max_waiting_bytes: How many bytes of large results may be waited for.
            max_waits: How many may wait for tasks' ends; half of it one client.
        """
        self._mom = mom
        self._ids = ids
        self._draining = draining
        self._large = FairQueue(max_waiting_bytes)
        self._waits = Budget(max_waits, max_waits // 2)
        #: The looks that wait for ends now, by queue and key.
        self._looks: dict[tuple[str, str], _Look] = {}

    def read_id(self, text: str) -> TaskId:
        """Take a task's id apart.

        Raises:
            Problem: It was never issued.
        """
        try:
            return self._ids.read(text)
        except InvalidTaskId as error:
            raise Problem(NO_TASK, "This task id was never issued.") from error

    async def get(self, task_id: TaskId, wait_seconds: float = 0.0, *, peer: str = "") -> task_pb2.Task:
        """Look at a task, waiting for its end for some time.

        Args:
            task_id: The task's id.
            wait_seconds: For how long.
            peer: Who asks: every client has its share of the waits.

        Raises:
            Problem: There is no record of it, too many wait, or it can't be looked up now.
        """
        if wait_seconds <= 0:
            return await self._get(task_id, 0.0)
        if not self._waits.take(peer, 1):
            detail = "As many requests as may wait for tasks' ends here: look at the task without a wait, or later."
            raise busy("waits", detail, peer=peer)
        try:
            return await self._get(task_id, wait_seconds)
        finally:
            self._waits.give(peer, 1)

    async def wait(self, task_id: TaskId, wait_seconds: float, *, peer: str) -> task_pb2.Task | None:
        """Wait for the end of a task that was just accepted.

        Args:
            task_id: The task's id.
            wait_seconds: For how long.
            peer: Who waits.

        Returns:
            The task as it was last seen; None if it was not seen in that time.

        Raises:
            Full: Too many wait, which is counted and logged: it is kept, whether or not its client can wait for it.
        """
        if not self._waits.take(peer, 1):
            refuse("waits", peer=peer)
            raise Full
        try:
            return await self._wait(task_id, wait_seconds)
        finally:
            self._waits.give(peer, 1)

    async def _get(self, task_id: TaskId, wait_seconds: float) -> task_pb2.Task:
        begin = asyncio.get_running_loop().time()
        if wait_seconds > 0 and not self._draining.is_set():
            # Most have not ended yet, or end soon: the first look waits already.
            answer = await self._look(task_id, min(wait_seconds, _LOOK_SECONDS))
        else:
            answer = None
        try:
            answer = answer or await self._mom.get_task(task_id.queue, task_id.key)
        except MomAway as error:
            raise _away("The task can't be looked up now; nothing has become of it by that.") from error
        if not answer.HasField("task"):
            raise _missing(task_id, answer)
        if state_of(answer.task).final:
            return answer.task
        left = wait_seconds - (asyncio.get_running_loop().time() - begin)
        return await self._wait(task_id, left) or answer.task

    async def _wait(self, task_id: TaskId, wait_seconds: float) -> task_pb2.Task | None:
        """Wait for a task's end; returns the task as it was last seen, None if it was not seen in that time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_seconds
        seen = None
        while not self._draining.is_set() and (left := end - loop.time()) > 0:
            answer = await self._look(task_id, min(left, _LOOK_SECONDS))
            if answer is not None and answer.HasField("task"):
                seen = answer.task
                if state_of(seen).final:
                    break
        return seen

    @contextlib.asynccontextmanager
    async def whole(
        self, task_id: TaskId, task: task_pb2.Task, *, peer: str, patient: bool = False
    ) -> AsyncIterator[task_pb2.Task]:
        """Have a task with its response for as long as the body lasts: large ones are had one at a time.

        Args:
            task_id: The task's id.
            task: The task as it was seen.
            peer: Who asks: every client has its share.
            patient: It waits for its turn however much waits.

        Raises:
            Problem: Too many ask for large ones, or it can't be looked up any more.
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
            raise _away("The task's response can't be read now; nothing has become of it by that.") from error
        if not answer.HasField("task"):
            raise _missing(task_id, answer)
        return answer.task

    async def history(self, task_id: TaskId) -> mom_service_pb2.GetTaskHistoryResponse:
        """Look at what became of a task so far.

        Raises:
            Problem: There is no record of it, or it can't be looked up now.
        """
        try:
            answer = await self._mom.get_task_history(task_id.queue, task_id.key)
        except MomAway as error:
            raise _away("The task can't be looked up now; nothing has become of it by that.") from error
        if not answer.events:
            raise _missing(task_id, answer)
        return answer

    async def cancel(self, task_id: TaskId) -> task_pb2.Task:
        """Cancel a task, or ask it to stop; returns it as it is then.

        Raises:
            Problem: It ended otherwise, there is no record of it, or the middleware can't be asked now.
        """
        try:
            answer = await self._mom.cancel_task(task_id.queue, task_id.key)
        except MomAway as error:
            raise _away("Whether the task is cancelled is not known; ask again.") from error
        if not answer.HasField("task"):
            raise _missing(task_id, answer)
        state = state_of(answer.task)
        if state.final and state is not TaskState.CANCELLED:
            raise Problem(TASK_ENDED, f"The task is {state.name} already.")
        return answer.task

    async def _look(self, task_id: TaskId, seconds: float) -> mom_service_pb2.GetTaskResponse | None:
        """Look once, waiting for the end; None if nothing was seen. The end of the process ends the wait.

        All who wait for one task share one look.
        """
        name = task_id.queue, task_id.key
        look = self._looks.get(name)
        began = look is None
        if look is None:
            look = self._looks[name] = _Look(asyncio.ensure_future(self._mom.get_task(*name, seconds)))
            look.task.add_done_callback(functools.partial(self._end_look, name, look))
        place = look.joined
        look.joined, look.waiting = place + 1, look.waiting + 1
        drained = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait(
                {look.task, drained}, timeout=None if began else seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if not look.task.done():
                return None
            # All are woken in one turn of the loop, and it is others', too.
            for _ in range(place // _WOKEN_AT_ONCE):
                await asyncio.sleep(0)
            try:
                answer = look.task.result()
            except MomAway:
                await asyncio.sleep(min(seconds, _PAUSE_SECONDS))
                return None
            # What was read before this one asked may be older than what it knows, unless nothing changes any more.
            return answer if began or (answer.HasField("task") and state_of(answer.task).final) else None
        finally:
            look.waiting -= 1
            left: set[asyncio.Task[Any]] = {drained}
            if not look.waiting:
                self._end_look(name, look)
                left.add(look.task)
            for task in left:
                task.cancel()
            await asyncio.wait(left)

    def _end_look(self, name: tuple[str, str], look: _Look, *_: object) -> None:
        """Have nobody join a look any more: what it sees, it has seen."""
        if self._looks.get(name) is look:
            del self._looks[name]


@dataclass(slots=True)
class _Look:
    """A look that waits for a task's end.

    Attributes:
        task: Brings what is seen.
        joined: How many have waited for it.
        waiting: How many still do; with the last one it ends.
    """

    task: asyncio.Task[mom_service_pb2.GetTaskResponse]
    joined: int = 0
    waiting: int = 0


def _away(detail: str) -> Problem:
    return Problem(LOOKUP_AWAY, detail, headers=RETRY_AFTER)


def _missing(task_id: TaskId, answer: _NoRecord) -> Problem:
    """Judge a task without a record, by what its id proves, by the store's clock, and by what operators did.

    Until the result's time to live is over, counted from the task's creation, the record must be there, whatever
    became of the task. Later it may have ended and its time be over. Where nobody knew whether it was accepted, it may
    still be while an enqueue of its age is not refused; from then on it is certain that it was not. An operator may
    have dropped what had ended: of what was made before that nobody can tell whether it was among it.
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
    _log.error("record lost", task=task_id.text, queue=task_id.queue, key=task_id.key)
    return Problem(RECORD_LOST, "The task must be on record, and is not. The operator has been told.")
