"""The routes of tasks: read, wait for, cancel, and follow one.

`GET /v1/tasks/{id}/history` returns the events in the task's record, oldest first::

    {"events": [{"time": "…", "event": "accepted"}, {"time": "…", "event": "started", "attempt": 1},
                {"time": "…", "event": "retried", "attempt": 1}, {"time": "…", "event": "started", "attempt": 2},
                {"time": "…", "event": "ended", "state": "SUCCEEDED"}], "truncated": false}

Further events: `crashed` and `given-back` (with the attempt), `cancel-requested`, `replayed`; an end as DEAD has its
`reason`. `truncated`: the task was tried often, and its earlier attempts are not kept any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aiohttp import web

from poste import protojson
from poste.domain.task_id import TaskId, TaskIds
from poste.v1 import task_pb2
from poste_gateway.access import audit
from poste_gateway.access.identity import ANYONE, identity_of
from poste_gateway.calls.offload import LARGE_MESSAGE, Offload
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.http import preferences
from poste_gateway.http.problem_types import GATEWAY_BUSY, LOOKUP_AWAY, NO_TASK, NOT_READY
from poste_gateway.http.problems import RETRY_AFTER, Problem
from poste_gateway.http.responses import NO_STORE, Response, json_response, room_for
from poste_gateway.limits.clients import client_of
from poste_gateway.tasks import retry_after, task_view
from poste_gateway.tasks.operators import Handler
from poste_gateway.tasks.task_events import TaskEvents
from poste_gateway.tasks.task_reader import NEVER_ISSUED, TaskReader

T = TypeVar("T")


def check_ready(catalogue: ServiceCatalogue) -> None:
    """Refuse a request that can't be answered without the catalogue.

    Raises:
        Problem: The gateway does not have it yet.
    """
    if catalogue.unready is not None:
        # Not "no such route": the routes are not known yet.
        detail = "The gateway does not have its catalogue yet. Nothing was accepted."
        raise Problem(NOT_READY, detail, headers=RETRY_AFTER)


class TaskRoutes:
    """Handles the routes of tasks.

    Attributes:
        verbs: The handlers of a task's own path.
        behind: Those of the paths behind it, by name.
    """

    def __init__(
        self,
        catalogue: ServiceCatalogue,
        task_reader: TaskReader,
        offload: Offload,
        draining: asyncio.Event,
        *,
        ids: TaskIds,
        max_wait_seconds: float,
    ) -> None:
        """Connect the parts.

        Args:
            catalogue: The services.
            task_reader: Reads and cancels tasks.
            offload: Writes large tasks as JSON in a thread.
            draining: Set when the process is to stop; ends every stream of events.
            ids: Tell whose a task is.
            max_wait_seconds: The longest wait for a task's end; longer ones are cut to it.
        """
        self._catalogue = catalogue
        self._task_reader = task_reader
        self._offload = offload
        self._ids = ids
        self._events = TaskEvents(task_reader, draining, self._written)
        self._max_wait_seconds = max_wait_seconds
        self.verbs: Mapping[str, Handler] = {"GET": self._get, "DELETE": self._cancel}
        self.behind: Mapping[str, Mapping[str, Handler]] = {
            "history": {"GET": self._get_history},
            "events": {"GET": self._follow},
        }

    def _read_id(self, request: web.BaseRequest, text: str) -> TaskId:
        """Parse the id of a task of this client's, once the middleware has confirmed the key that ids are signed with.

        With a wrong key every id would be a 404, as that of another client's task is.
        """
        check_ready(self._catalogue)
        if not self._catalogue.key_agreed:
            raise Problem(LOOKUP_AWAY, "Tasks can't be looked up now: the middleware is away.", headers=RETRY_AFTER)
        task_id, identity = self._task_reader.read_id(text), identity_of(request)
        if identity is not ANYONE and not self._ids.is_of(task_id, identity.client):
            if not identity.owns_all:
                raise Problem(NO_TASK, NEVER_ISSUED)
            audit.operates(request, identity.name)
        return task_id

    async def _get(self, request: web.BaseRequest, text: str) -> Response:
        task_id = self._read_id(request, text)
        wait = preferences.read_wait(request.headers, max_wait_seconds=self._max_wait_seconds)
        task = await self._task_reader.get(task_id, wait, peer=client_of(request))
        applied = preferences.applied(preferences.wait_applied(wait)) if wait else {}
        return await self._show(request, task_id, task, {**retry_after.of_task(task), **applied})

    async def _get_history(self, request: web.BaseRequest, text: str) -> Response:
        history = await self._task_reader.history(self._read_id(request, text))
        return json_response(task_view.to_history(history), headers=NO_STORE)

    async def _follow(self, request: web.BaseRequest, text: str) -> Response:
        return await self._events.follow(request, self._read_id(request, text))

    async def _cancel(self, request: web.BaseRequest, text: str) -> Response:
        task_id = self._read_id(request, text)
        return await self._show(request, task_id, await self._task_reader.cancel(task_id), {})

    async def _show(
        self, request: web.BaseRequest, task_id: TaskId, task: task_pb2.Task, headers: dict[str, str]
    ) -> Response:
        def show(value: dict[str, Any]) -> Response:
            return json_response(value, headers={**NO_STORE, **headers})

        return await self._made(request, task_id, task, show)

    async def _written(self, request: web.BaseRequest, task_id: TaskId, task: task_pb2.Task) -> bytes:
        return await self._made(request, task_id, task, protojson.dumps)

    async def _made(
        self, request: web.BaseRequest, task_id: TaskId, task: task_pb2.Task, make: Callable[[dict[str, Any]], T]
    ) -> T:
        """Make of a task, as JSON values with its response, what is sent of it.

        Raises:
            Problem: There is no room for it now, or it can't be read any more.
        """
        service, peer = self._catalogue.services.get(task.service), client_of(request)
        async with self._task_reader.whole(task_id, task, peer=peer) as whole:

            def show() -> T:
                return make(task_view.to_value(task_id, whole, service))

            # Its response, or its error's details.
            size = whole.ByteSize()
            if size <= LARGE_MESSAGE:
                return show()
            # A cancel that was done can't be refused any more.
            done = request.method == "DELETE"
            if not done and not room_for(request, size):
                detail = "There is no room for the task's result while so many answers are not taken."
                raise Problem(GATEWAY_BUSY, detail, headers=RETRY_AFTER)
            return await self._offload.run(show, peer=peer, size=size, accepted=done)
