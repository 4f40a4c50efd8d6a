"""The paths that are Poste's own: tasks, queues, services, problems, probes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from poste.domain.task_id import TaskId
from poste.runtime import admin
from poste.v1 import task_pb2
from poste_gateway import listings, preferences, problems, task_view
from poste_gateway.answers import json_response
from poste_gateway.directory import Directory
from poste_gateway.kinds import NO_ROUTE
from poste_gateway.lookups import Lookups
from poste_gateway.mom import Mom
from poste_gateway.problems import Problem

#: Answers one request; what is behind the path's prefix is its second argument.
Handler = Callable[[web.Request, str], Awaitable[web.Response]]

#: Paths whose requests are not worth a line in the log.
QUIET: Final = ("/livez", "/readyz", "/metrics")
_NO_STORE: Final = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Resources:
    """Poste's own paths.

    Attributes:
        directory: The catalogue.
        mom: Knows the queues.
        lookups: Knows the tasks.
        draining: The process is to stop.
        max_wait_seconds: The longest wait that a client is granted.
    """

    directory: Directory
    mom: Mom
    lookups: Lookups
    draining: asyncio.Event
    max_wait_seconds: float

    def find(self, path: str) -> tuple[Mapping[str, Handler], str] | None:
        """Return what each verb at a path does, and what is behind the path's prefix; None if it is not ours."""
        exact: dict[str, Mapping[str, Handler]] = {
            "/v1/services": {"GET": self._services},
            "/v1/queues": {"GET": self._queues},
            "/livez": {"GET": self._livez},
            "/readyz": {"GET": self._readyz},
            "/metrics": {"GET": self._metrics},
        }
        below: dict[str, Mapping[str, Handler]] = {
            task_view.TASKS: {"GET": self._get_task, "DELETE": self._cancel_task},
            "/v1/queues/": {"GET": self._queues},
            "/problems/": {"GET": self._problem},
        }
        if path in exact:
            return exact[path], ""
        for prefix, verbs in below.items():
            if path.startswith(prefix) and len(path) > len(prefix):
                return verbs, path.removeprefix(prefix)
        return None

    async def _get_task(self, request: web.Request, text: str) -> web.Response:
        wait = preferences.read_wait(request.headers, max_wait_seconds=self.max_wait_seconds)
        task_id = self.lookups.read_id(text)
        task = await self.lookups.get(task_id, wait)
        applied = preferences.applied(preferences.wait_applied(wait)) if wait else {}
        return self._show(task_id, task, applied)

    async def _cancel_task(self, _: web.Request, text: str) -> web.Response:
        task_id = self.lookups.read_id(text)
        return self._show(task_id, await self.lookups.cancel(task_id), {})

    def _show(self, task_id: TaskId, task: task_pb2.Task, headers: dict[str, str]) -> web.Response:
        service = self.directory.services.get(task.service)
        return json_response(task_view.to_value(task_id, task, service), headers={**_NO_STORE, **headers})

    async def _services(self, _: web.Request, __: str) -> web.Response:
        return json_response(await listings.services(self.directory, self.mom))

    async def _queues(self, _: web.Request, name: str) -> web.Response:
        return json_response(await listings.queues(self.directory, self.mom, name))

    async def _problem(self, _: web.Request, name: str) -> web.Response:
        page = problems.page(name)
        if page is None:
            raise Problem(NO_ROUTE, "There is no problem of this name.")
        return web.Response(text=page)

    async def _livez(self, _: web.Request, __: str) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, _: web.Request, __: str) -> web.Response:
        return admin.readiness_response(lambda: "stopping" if self.draining.is_set() else self.directory.unready)

    async def _metrics(self, _: web.Request, __: str) -> web.Response:
        return admin.metrics_response()
