"""A task's events as Server-Sent Events (WHATWG HTML, section 9.2): those that have happened, then each as it happens.

An event's id is when it happened, so any gateway can go on behind it (`Last-Event-ID`). A stream ends with the event
`ended`, which brings the task. `EventSource` connects again then, and is told by 204 that there is no more to come.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, NamedTuple, TypeAlias

from aiohttp import web

from poste import protojson
from poste.domain.task_id import TaskId
from poste.runtime import lifecycle, logs
from poste.v1 import mom_service_pb2, task_pb2
from poste_gateway.http.cors import LAST_EVENT_ID
from poste_gateway.http.framings import EVENTS
from poste_gateway.http.problems import Problem, defect, invalid
from poste_gateway.http.responses import NO_STORE, Response
from poste_gateway.http.streamed import Streamed
from poste_gateway.limits.clients import client_of
from poste_gateway.tasks import task_view
from poste_gateway.tasks.task_reader import TaskReader

#: How long nothing may be sent before a sign of life is, in seconds: some proxies cut what is idle for half a minute.
_IDLE_SECONDS: Final = 15.0
#: The pause after a read that failed, in seconds.
_PAUSE_SECONDS: Final = 1.0
_ID: Final = re.compile(r"([0-9]{1,15})-([0-9]{1,4})", re.ASCII)
_HEADERS: Final = {**NO_STORE, "Content-Type": EVENTS.media_type, "X-Accel-Buffering": "no"}
_log: Final = logs.get("task_events")

_History: TypeAlias = mom_service_pb2.GetTaskHistoryResponse
#: Writes a task as JSON, once there is room for it.
WriteTask: TypeAlias = Callable[[web.BaseRequest, TaskId, task_pb2.Task], Awaitable[bytes]]


class _Place(NamedTuple):
    """Where an event stands: its time in ms by the store's clock, and how many came before it in that millisecond."""

    time_ms: int
    number: int


#: The first event's: its time is by the gateway's clock until there is a second one.
_ACCEPTED: Final = _Place(0, 0)
_BEFORE_ALL: Final = _Place(-1, 0)


class TaskEvents:
    """Answers with streams of tasks' events."""

    def __init__(self, task_reader: TaskReader, draining: asyncio.Event, write: WriteTask) -> None:
        """Connect the parts.

        Args:
            task_reader: Reads tasks, and bounds how many wait for them.
            draining: Set when the process is to stop; ends every stream.
            write: Writes the task that has ended.
        """
        self._task_reader, self._draining, self._write = task_reader, draining, write

    async def follow(self, request: web.BaseRequest, task_id: TaskId) -> Response:
        """Answer with a task's events behind the last one that the client knows.

        Raises:
            Problem: There is no record of the task, too many requests wait, or it can't be read now.
        """
        known = _last_known(request)
        history = await self._task_reader.history(task_id)
        if _is_over(history) and _placed(history)[-1][0] <= known:
            return Response(status=204, headers=dict(NO_STORE))
        waiting = contextlib.ExitStack()
        waiting.enter_context(self._task_reader.waiting(client_of(request)))
        parts = self._parts(request, task_id, history, known)

        async def close() -> None:
            waiting.close()
            await parts.aclose()

        return Streamed(parts, close, headers=dict(_HEADERS))

    async def _parts(
        self, request: web.BaseRequest, task_id: TaskId, history: _History, known: _Place
    ) -> AsyncGenerator[bytes, None]:
        """Yield what is sent, until the task has ended or the gateway stops."""
        try:
            while True:
                for place, event in _placed(history):
                    if place > known:
                        last = event is history.events[-1] and _is_over(history)
                        yield await self._ended(request, task_id, place, event) if last else _event(place, event)
                        known = place
                if _is_over(history):
                    return
                news = await self._news(task_id, history.mark)
                if self._draining.is_set():
                    return
                if news is None or news.mark == history.mark:
                    yield EVENTS.idle
                history = news or history
        except Problem as problem:
            yield _of_problem(problem, task_id)
        except Exception:  # noqa: BLE001 - the edge, as in the dispatcher: logged once, and told without details
            _log.exception("events failed", task=task_id.text)
            yield _of_problem(defect(), task_id)

    async def _news(self, task_id: TaskId, mark: str) -> _History | None:
        """Wait for another history than the known one; None if it can't be read now, or the process is to stop.

        Raises:
            Problem: There is no record any more.
        """
        read = asyncio.ensure_future(self._task_reader.next_history(task_id, mark, _IDLE_SECONDS))
        drained = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait({read, drained}, return_when=asyncio.FIRST_COMPLETED)
            if not read.done():
                return None
            history = read.result()
            if history is None:
                # Clients go on waiting: nothing has become of the task by that.
                await asyncio.wait({drained}, timeout=_PAUSE_SECONDS)
            return history
        finally:
            await lifecycle.end([read, drained])

    async def _ended(
        self, request: web.BaseRequest, task_id: TaskId, place: _Place, event: task_pb2.TaskEvent
    ) -> bytes:
        """Return the last event, with the task; or with why that can't be shown, in its place."""
        try:
            task = await self._write(request, task_id, await self._task_reader.get(task_id))
            name = b"task"
        except Problem as problem:
            name, task = b"problem", protojson.dumps(problem.to_value(task_view.location(task_id)))
        told = protojson.dumps(task_view.to_event(event))
        return _framed(place, event, b'%b,"%b":%b}' % (told[:-1], name, task))


def _last_known(request: web.BaseRequest) -> _Place:
    """Return the place of the last event that a client knows.

    Raises:
        Problem: It never was told of such a one.
    """
    text = request.headers.get(LAST_EVENT_ID, "")
    if not text:
        return _BEFORE_ALL
    found = _ID.fullmatch(text)
    if found is None:
        raise invalid(LAST_EVENT_ID, "must be the id of an event of this task")
    return _Place(int(found[1]), int(found[2]))


def _is_over(history: _History) -> bool:
    return history.events[-1].type == task_pb2.TASK_EVENT_TYPE_ENDED


def _placed(history: _History) -> list[tuple[_Place, task_pb2.TaskEvent]]:
    """Return the events with their places, which a later reading has them at as well."""
    placed: list[tuple[_Place, task_pb2.TaskEvent]] = []
    before = _ACCEPTED
    for event in history.events:
        if event.type == task_pb2.TASK_EVENT_TYPE_ACCEPTED:
            placed.append((_ACCEPTED, event))
            continue
        time_ms = event.time.ToMilliseconds()
        before = _Place(time_ms, before.number + 1 if time_ms == before.time_ms else 0)
        placed.append((before, event))
    return placed


def _event(place: _Place, event: task_pb2.TaskEvent) -> bytes:
    return _framed(place, event, protojson.dumps(task_view.to_event(event)))


def _framed(place: _Place, event: task_pb2.TaskEvent, data: bytes) -> bytes:
    name = task_view.event_name(event).encode()
    return b"id: %d-%d\nevent: %b\ndata: %b\n\n" % (place.time_ms, place.number, name, data)


def _of_problem(problem: Problem, task_id: TaskId) -> bytes:
    return EVENTS.problem(problem, task_view.location(task_id), "") or b""
