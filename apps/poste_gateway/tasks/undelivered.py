"""What could not be told to clients' URLs: operators see it, and have it told again."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from poste.domain.task_id import with_queue
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.http.problem_types import NOT_UNDELIVERED
from poste_gateway.http.problems import Problem
from poste_gateway.http.responses import NO_STORE, Response, json_response
from poste_gateway.mom import Mom
from poste_gateway.tasks import task_view
from poste_gateway.tasks.listings import Listings
from poste_gateway.tasks.task_reader import TaskReader


class Undelivered:
    """Handles the operators' requests for what could not be told."""

    def __init__(self, mom: Mom, listings: Listings, task_reader: TaskReader) -> None:
        self._mom, self._listings, self._task_reader = mom, listings, task_reader

    async def list(self, _: web.BaseRequest, queue: str) -> Response:
        """Answer with a hundred of a queue, the longest given up first."""
        figures = await self._listings.queues(queue)
        found = await self._mom.list_undelivered(queue)
        value = {"undelivered": figures["queues"][0]["undelivered"], "callbacks": [_value(one) for one in found]}
        return json_response(value, headers=NO_STORE)

    async def redeliver_all(self, _: web.BaseRequest, queue: str) -> Response:
        """Have all of a queue told again, for another day."""
        await self._listings.queues(queue)
        return json_response({"redelivered": await self._mom.redeliver_callbacks(queue)})

    async def redeliver(self, _: web.BaseRequest, text: str) -> Response:
        """Have one task's end told again."""
        task_id = self._task_reader.read_id(text)
        if not await self._mom.redeliver_callbacks(task_id.queue, [task_id.key]):
            raise Problem(NOT_UNDELIVERED, "There is nothing of this task that could not be told.")
        return json_response({"redelivered": 1})


def _value(callback: pb.Callback) -> dict[str, Any]:
    task = callback.task
    return {
        "id": with_queue(task.service, callback.id_rest) if callback.id_rest else None,
        "service": task.service,
        "method": task.method,
        "state": task_view.state_of(task).name,
        "endTime": task_view.time(callback.end_time),
        "url": callback.url,
        "tries": callback.failures,
        "failure": callback.failure,
    }
