"""The operators' verbs: see and pause queues, look into calls, replay and purge them, register and forget services.

`GET /v1/queues/{queue}/tasks` lists the newest tasks, whatever became of them, the newest first, each without its
response and error; `?pageSize=` is at most 1000, and so many are remembered. With a filter (`state`, `method`,
`reason`, `minAgeSeconds`, see `task_filters`) or a `pageToken` it finds those that it matches, in no order, in pages::

    {"tasks": [{…the task…, "endTime": "…"}], "nextPageToken": ""}

`GET /v1/tasks` finds those of all queues (`task_search`), in the same form.
`POST /v1/queues/{queue}/pause` and `/resume` answer with the queue's figures, as `GET /v1/queues/{queue}` does.
`GET /v1/queues/{queue}/dead` lists what died, the longest dead first, in pages, by the same filters::

    {"tasks": [{…the task…, "dieTime": "…"}], "nextPageToken": ""}

`GET /v1/queues/{queue}/dead-groups` counts them by method and reason, that of the newest first, with the `?newest=` (3,
at most 20) newest of each. `uncounted`: so many of the longest dead it did not get to within half a second::

    {"groups": [{"method": "Add", "reason": "attempts", "count": 290, "newest": [{…the task…, "dieTime": "…"}]}],
     "uncounted": 0}

An error's detail is there what an unexpected exception said, or the handler in a DebugInfo: no client sees that.
`?pageSize=` is at most 1000, `?pageToken=` goes on where a page ended. `GET /v1/tasks/{id}/call` answers with what a
task was called with (`call_view`), next to the task and its history. `POST /v1/tasks/{id}/replay` and `/purge` answer
with the task as its client sees it; what is done to many at once is in `bulk`, what is done with ends that could not be
told to their clients' URLs in `undelivered`. With `?asIs=true` a replay runs what it
replays whatever its method's schema is.

`POST /v1/queues/{queue}/purge-ended` drops all that ended more than a minute ago, with its results, before their times
to live are over, and answers with `{"purged": 63000}`: DEAD tasks stay. A request for a dropped one gets 410 `gone`.

`POST /v1/services?target=HOST:PORT` makes the services known of a server that knows nothing of Poste: what it serves is
read from it, by gRPC server reflection, now and whenever it comes back; `grpcs://HOST:PORT` is called over TLS::

    {"target": "127.0.0.1:50060", "services": [{"name": "ledger.v1.LedgerService", "methods": ["Look", "Record"]}]}

A service that can't be registered has `refused`, the reason, in place of its methods; if nothing could be read at all
the answer is 409 `target-unread`.

`POST /v1/services/{service}/forget` takes a service out of the catalogue. It is refused while its calls wait or run
(409), unless `?evenWithWaiting=true` says that they may: they stay in the queue, and run if the service registers again
before they expire::

    {"service": "calculator.v1.SumService", "waiting": 0, "replicas": 0, "shipped": false}

What brings it back is said: `replicas` that were known to live do as soon as they register again, within 10 s, and the
middleware's catalogue file, if it is `shipped`, does when a middleware starts.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from poste.domain import input_rules
from poste.domain.codes import Code
from poste.domain.task import TaskState
from poste.domain.task_id import TaskId, TaskIds
from poste.rpc.catalogue import Service
from poste.rpc.task_enums import REASON_OF
from poste.v1 import mom_service_pb2 as pb
from poste.v1 import task_pb2
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.grpc_status import debug_text
from poste_gateway.http.door import Door
from poste_gateway.http.problem_types import (
    CALLS_WAITING,
    GONE,
    LOOKUP_AWAY,
    NO_SERVICE,
    NOT_DEAD,
    TARGET_UNREAD,
)
from poste_gateway.http.problems import RETRY_AFTER, Problem, invalid
from poste_gateway.http.responses import NO_STORE, Response, json_response
from poste_gateway.mom import Mom, MomAway, MomRefused
from poste_gateway.tasks import call_view, task_filters, task_search, task_view
from poste_gateway.tasks.bulk import Bulk
from poste_gateway.tasks.listings import QUEUES, SERVICES, Listings
from poste_gateway.tasks.task_reader import TaskReader
from poste_gateway.tasks.task_search import TaskSearch
from poste_gateway.tasks.undelivered import Undelivered

Handler = Callable[[web.BaseRequest, str], Awaitable[Response]]

#: How many dead letters of each group may be asked for.
_MAX_NEWEST: Final = 20
#: What a call has in bytes that is written as JSON in a thread.
_LARGE: Final = 32_768


class OperatorRoutes:
    """Handles the operators' requests."""

    def __init__(
        self,
        catalogue: ServiceCatalogue,
        mom: Mom,
        listings: Listings,
        task_reader: TaskReader,
        *,
        ids: TaskIds,
        door: Door,
    ) -> None:
        """Connect the parts.

        Args:
            catalogue: The services.
            mom: The middleware.
            listings: Reads the queues' figures.
            task_reader: Reads tasks.
            ids: Makes the ids of listed tasks from their keys.
            door: Knows who may see all tasks.
        """
        self._catalogue = catalogue
        self._mom = mom
        self._listings = listings
        self._task_reader = task_reader
        self._ids = ids
        bulk, undelivered = Bulk(mom, listings), Undelivered(mom, listings, task_reader)
        #: The handlers by the path.
        self.exact: dict[str, Mapping[str, Handler]] = {
            SERVICES.rstrip("/"): {"POST": self._guarded(self._register)},
            task_search.PATH: {"GET": self._guarded(TaskSearch(mom, ids, door).find)},
        }
        #: The handlers by the path's prefix and the part behind the name.
        self.paths: dict[tuple[str, str], Mapping[str, Handler]] = {
            (QUEUES, "pause"): {"POST": self._guarded(self._pause)},
            (QUEUES, "resume"): {"POST": self._guarded(self._resume)},
            (QUEUES, "tasks"): {"GET": self._guarded(self._tasks)},
            (QUEUES, "dead"): {"GET": self._guarded(self._dead)},
            (QUEUES, "dead-groups"): {"GET": self._guarded(self._dead_groups)},
            (QUEUES, "replay"): {"POST": self._guarded(bulk.replay)},
            (QUEUES, "purge"): {"POST": self._guarded(bulk.purge)},
            (QUEUES, "cancel"): {"POST": self._guarded(bulk.cancel)},
            (QUEUES, "move"): {"POST": self._guarded(bulk.move)},
            (QUEUES, "purge-ended"): {"POST": self._guarded(self._purge_ended)},
            (QUEUES, "undelivered"): {"GET": self._guarded(undelivered.list)},
            (QUEUES, "redeliver"): {"POST": self._guarded(undelivered.redeliver_all)},
            (SERVICES, "forget"): {"POST": self._guarded(self._forget)},
            (task_view.TASKS, "call"): {"GET": self._guarded(self._call)},
            (task_view.TASKS, "replay"): {"POST": self._guarded(self._replay)},
            (task_view.TASKS, "purge"): {"POST": self._guarded(self._purge)},
            (task_view.TASKS, "redeliver"): {"POST": self._guarded(undelivered.redeliver)},
        }

    def _guarded(self, handle: Handler) -> Handler:
        async def guarded(request: web.BaseRequest, name: str) -> Response:
            if not self._catalogue.key_agreed:
                raise _away(MomAway())
            try:
                return await handle(request, name)
            except MomAway as error:
                raise _away(error) from error

        return guarded

    async def _pause(self, _: web.BaseRequest, queue: str) -> Response:
        await self._listings.queues(queue)
        await self._mom.pause_queue(queue)
        return json_response(await self._listings.queues(queue))

    async def _resume(self, _: web.BaseRequest, queue: str) -> Response:
        await self._listings.queues(queue)
        await self._mom.resume_queue(queue)
        return json_response(await self._listings.queues(queue))

    async def _tasks(self, request: web.BaseRequest, queue: str) -> Response:
        size, token = task_filters.page_size(request), request.query.get("pageToken", "")
        wanted = task_filters.read(request, tuple(TaskState))
        await self._listings.queues(queue)
        if wanted == pb.TaskFilter() and not token:
            listed = await self._mom.list_recent_tasks(queue, size)
            return json_response({"tasks": [task_view.to_listed(self._ids, one) for one in listed]}, headers=NO_STORE)
        page = await task_filters.page(self._mom.search_tasks(queue, wanted, size, token))
        tasks = [task_view.to_listed(self._ids, one) for one in page.tasks]
        return json_response({"tasks": tasks, "nextPageToken": page.next_page_token}, headers=NO_STORE)

    async def _dead(self, request: web.BaseRequest, queue: str) -> Response:
        size, token = task_filters.page_size(request), request.query.get("pageToken", "")
        wanted = task_filters.read(request, (TaskState.DEAD,))
        await self._listings.queues(queue)
        page = await task_filters.page(self._mom.list_dead_tasks(queue, wanted, size, token))
        service = self._catalogue.services.get(queue)
        tasks = [self._dead_letter(queue, dead, service) for dead in page.tasks]
        return json_response({"tasks": tasks, "nextPageToken": page.next_page_token}, headers=NO_STORE)

    async def _dead_groups(self, request: web.BaseRequest, queue: str) -> Response:
        newest = task_filters.number(request, "newest", 3, most=_MAX_NEWEST, least=0)
        await self._listings.queues(queue)
        found = await self._mom.group_dead_tasks(queue, newest)
        service = self._catalogue.services.get(queue)
        groups = [
            {
                "method": group.method,
                "reason": REASON_OF[group.dead_reason].value,
                "count": group.count,
                "newest": [self._dead_letter(queue, dead, service) for dead in group.newest],
            }
            for group in found.groups
            # What a newer middleware knows is replayed by its words, which this gateway does not have.
            if group.dead_reason in REASON_OF
        ]
        return json_response({"groups": groups, "uncounted": found.uncounted}, headers=NO_STORE)

    def _dead_letter(self, queue: str, dead: pb.DeadTask, service: Service | None) -> dict[str, Any]:
        task_id = task_view.listed_id(self._ids, queue, dead)
        return {**_for_operators(task_id, dead.task, service), "dieTime": task_view.time(dead.die_time)}

    async def _call(self, _: web.BaseRequest, text: str) -> Response:
        task_id = self._task_reader.read_id(text)
        task = await self._task_reader.get(task_id)
        history = await self._task_reader.history(task_id)
        found = await self._mom.inspect_task(task_id.queue, task_id.key)
        service = self._catalogue.services.get(task.service)

        def show() -> Response:
            value = {
                "task": _for_operators(task_id, task, service),
                **call_view.to_value(found, task.method, service),
                **task_view.to_history(history),
            }
            return json_response(value, headers=NO_STORE)

        return await asyncio.to_thread(show) if found.ByteSize() + task.ByteSize() > _LARGE else show()

    async def _replay(self, request: web.BaseRequest, text: str) -> Response:
        return await self._handle_one(
            text, functools.partial(self._mom.replay_tasks, as_is=task_filters.flag(request, "asIs")), "replayed"
        )

    async def _purge(self, _: web.BaseRequest, text: str) -> Response:
        return await self._handle_one(text, self._mom.purge_tasks, "purged")

    async def _purge_ended(self, _: web.BaseRequest, queue: str) -> Response:
        await self._listings.queues(queue)
        count, token = 0, ""
        while True:
            page = await self._mom.purge_ended_tasks(queue, token)
            count, token = count + page.purged, page.next_page_token
            if not token:
                return json_response({"purged": count})

    async def _register(self, request: web.BaseRequest, _: str) -> Response:
        target = request.query.get("target", "")
        if not input_rules.is_target(target):
            raise invalid("target", "must be HOST:PORT, or grpcs://HOST:PORT for TLS")
        said = await self._mom.register_target(target)
        if said.fault:
            raise Problem(TARGET_UNREAD, said.fault)
        services = [
            {"name": one.name, "refused": one.refused} if one.refused else {"name": one.name, "methods": [*one.methods]}
            for one in said.services
        ]
        return json_response({"target": target, "services": services})

    async def _forget(self, request: web.BaseRequest, service: str) -> Response:
        even = task_filters.flag(request, "evenWithWaiting")
        try:
            said = await self._mom.forget_service(service, even_with_waiting=even)
        except MomRefused as error:
            if error.code is Code.NOT_FOUND:
                raise Problem(NO_SERVICE, "A service is called by its full name, with its package.") from error
            raise
        if not said.forgotten:
            raise Problem(CALLS_WAITING, f"{said.waiting} of its calls wait or run.")
        return json_response(
            {"service": service, "waiting": said.waiting, "replicas": said.replicas, "shipped": said.shipped}
        )

    async def _handle_one(self, text: str, handle: _Handle, done: str) -> Response:
        task_id = self._task_reader.read_id(text)
        # A record that is missing is judged here, or is another task's by now: a later one's with the same idempotency
        # key. One that is there and was not handled is judged below.
        await self._task_reader.get(task_id)
        (result,) = await handle(task_id.queue, [task_id.key])
        task = await self._task_reader.get(task_id)
        if result == pb.DEAD_TASK_RESULT_NOT_DEAD:
            state = task_view.state_of(task).name
            which = "DEAD or FAILED" if done == "replayed" else "DEAD"
            raise Problem(NOT_DEAD, f"The task is {state}: only one that is {which} can be {done}.")
        if result == pb.DEAD_TASK_RESULT_GONE:
            raise Problem(GONE, f"Nothing of the task is left that could be {done}.")
        value = task_view.to_value(task_id, task, self._catalogue.services.get(task.service))
        return json_response(value, headers=NO_STORE)


def _away(error: MomAway) -> Problem:
    detail = f"That can't be told or done now, because {error}; it can be asked for again."
    return Problem(LOOKUP_AWAY, detail, headers=RETRY_AFTER)


def _for_operators(task_id: TaskId, task: task_pb2.Task, service: Service | None) -> dict[str, Any]:
    """Return a task as JSON values, with what its client does not see of its error."""
    value = task_view.to_value(task_id, task, service)
    for name in ("error", "lastError"):
        if name in value and (detail := debug_text(task.error)):
            value[name]["detail"] = detail
    return value


_Handle = Callable[[str, Sequence[str]], Awaitable[Sequence[int]]]
