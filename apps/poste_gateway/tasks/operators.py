"""The operators' verbs: see and pause queues, replay and purge what died, make room, register and forget services.

`GET /v1/queues/{queue}/tasks` lists the newest tasks, whatever became of them, the newest first, each without its
response and error; `?pageSize=` is at most 1000, and so many are remembered::

    {"tasks": [{…the task…}]}

`POST /v1/queues/{queue}/pause` and `/resume` answer with the queue's figures, as `GET /v1/queues/{queue}` does.
`GET /v1/queues/{queue}/dead` lists what died, the longest dead first, in pages::

    {"tasks": [{…the task…, "dieTime": "…"}], "nextPageToken": ""}

An error's detail is there what an unexpected exception said, or the handler in a DebugInfo: no client sees that.
`?pageSize=` is at most 1000, `?pageToken=` goes on where a page ended. `POST /v1/tasks/{id}/replay` and `/purge` answer
with the task as its client sees it, `POST /v1/queues/{queue}/replay` and `/purge`, for all that is dead by then, with
`{"replayed": 3}` and `{"purged": 3}`. With `?asIs=true` a replay runs what it replays whatever its method's schema is.

`POST /v1/queues/{queue}/purge-ended` drops all that ended more than a minute ago, with its results, before their times
to live are over, and answers with `{"purged": 63000}`: DEAD tasks stay. A request for a dropped one gets 410 `gone`.

`POST /v1/services?target=HOST:PORT` makes the services known of a server that knows nothing of Poste: what it serves is
read from it, by gRPC server reflection, now and whenever it comes back::

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

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from poste.domain import input_rules
from poste.domain.codes import Code
from poste.domain.task_id import TaskIds
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.grpc_status import debug_text
from poste_gateway.http.operator_auth import OperatorAuth
from poste_gateway.http.problem_types import (
    CALLS_WAITING,
    GONE,
    INVALID_REQUEST,
    LOOKUP_AWAY,
    NO_SERVICE,
    NOT_DEAD,
    TARGET_UNREAD,
)
from poste_gateway.http.problems import RETRY_AFTER, Problem
from poste_gateway.http.responses import NO_STORE, Response, json_response
from poste_gateway.mom import Mom, MomAway, MomRefused
from poste_gateway.tasks import task_view
from poste_gateway.tasks.listings import QUEUES, SERVICES, Listings
from poste_gateway.tasks.task_reader import TaskReader

Handler = Callable[[web.BaseRequest, str], Awaitable[Response]]

_PAGE_SIZE: Final = 100
_MAX_PAGE_SIZE: Final = 1000
#: How many tasks are replayed or purged by one call to the middleware.
_BATCH: Final = 500
_AGAIN: Final = "The middleware gives no answer now; what was asked can be asked again."


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
        operator_auth: OperatorAuth,
    ) -> None:
        """Connect the parts.

        Args:
            catalogue: The services.
            mom: The middleware.
            listings: Reads the queues' figures.
            task_reader: Reads tasks.
            ids: Makes the ids of listed tasks from their keys.
            operator_auth: Checks the operators' token.
        """
        self._catalogue = catalogue
        self._mom = mom
        self._listings = listings
        self._task_reader = task_reader
        self._ids = ids
        self._operator_auth = operator_auth
        #: The handlers by the path.
        self.exact: dict[str, Mapping[str, Handler]] = {
            SERVICES.rstrip("/"): {"POST": self._guarded(self._register)},
        }
        #: The handlers by the path's prefix and the part behind the name.
        self.paths: dict[tuple[str, str], Mapping[str, Handler]] = {
            (QUEUES, "pause"): {"POST": self._guarded(self._pause)},
            (QUEUES, "resume"): {"POST": self._guarded(self._resume)},
            (QUEUES, "tasks"): {"GET": self._guarded(self._recent)},
            (QUEUES, "dead"): {"GET": self._guarded(self._dead)},
            (QUEUES, "replay"): {"POST": self._guarded(self._replay_all)},
            (QUEUES, "purge"): {"POST": self._guarded(self._purge_all)},
            (QUEUES, "purge-ended"): {"POST": self._guarded(self._purge_ended)},
            (SERVICES, "forget"): {"POST": self._guarded(self._forget)},
            (task_view.TASKS, "replay"): {"POST": self._guarded(self._replay)},
            (task_view.TASKS, "purge"): {"POST": self._guarded(self._purge)},
        }

    def _guarded(self, handle: Handler) -> Handler:
        async def guarded(request: web.BaseRequest, name: str) -> Response:
            self._operator_auth.check(request)
            if not self._catalogue.key_agreed:
                raise Problem(LOOKUP_AWAY, _AGAIN, headers=RETRY_AFTER)
            try:
                return await handle(request, name)
            except MomAway as error:
                raise Problem(LOOKUP_AWAY, _AGAIN, headers=RETRY_AFTER) from error

        return guarded

    async def _pause(self, _: web.BaseRequest, queue: str) -> Response:
        await self._listings.queues(queue)
        await self._mom.pause_queue(queue)
        return json_response(await self._listings.queues(queue))

    async def _resume(self, _: web.BaseRequest, queue: str) -> Response:
        await self._listings.queues(queue)
        await self._mom.resume_queue(queue)
        return json_response(await self._listings.queues(queue))

    async def _recent(self, request: web.BaseRequest, queue: str) -> Response:
        await self._listings.queues(queue)
        recent = await self._mom.list_recent_tasks(queue, _page_size(request))
        tasks = [task_view.to_summary(task_view.listed_id(self._ids, queue, one), one.task) for one in recent]
        return json_response({"tasks": tasks}, headers=NO_STORE)

    async def _dead(self, request: web.BaseRequest, queue: str) -> Response:
        await self._listings.queues(queue)
        size = _page_size(request)
        try:
            page = await self._mom.list_dead_tasks(queue, size, request.query.get("pageToken", ""))
        except MomRefused as error:
            if error.code is Code.INVALID_ARGUMENT:
                raise _bad("pageToken", "is not the nextPageToken of a page") from error
            raise
        service = self._catalogue.services.get(queue)
        tasks = []
        for dead in page.tasks:
            value = task_view.to_value(task_view.listed_id(self._ids, queue, dead), dead.task, service)
            if detail := debug_text(dead.task.error):
                value["error"]["detail"] = detail
            tasks.append({**value, "dieTime": task_view.time(dead.die_time)})
        return json_response({"tasks": tasks, "nextPageToken": page.next_page_token}, headers=NO_STORE)

    async def _replay(self, request: web.BaseRequest, text: str) -> Response:
        return await self._handle_one(text, self._replaying(request), "replayed")

    async def _purge(self, _: web.BaseRequest, text: str) -> Response:
        return await self._handle_one(text, self._mom.purge_tasks, "purged")

    async def _replay_all(self, request: web.BaseRequest, queue: str) -> Response:
        return json_response({"replayed": await self._handle_all(queue, self._replaying(request))})

    def _replaying(self, request: web.BaseRequest) -> _Handle:
        return functools.partial(self._mom.replay_tasks, as_is=_flag("asIs", request.query.get("asIs")))

    async def _purge_all(self, _: web.BaseRequest, queue: str) -> Response:
        return json_response({"purged": await self._handle_all(queue, self._mom.purge_tasks)})

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
        if not input_rules.is_address(target):
            raise _bad("target", "must be HOST:PORT")
        said = await self._mom.register_target(target)
        if said.fault:
            raise Problem(TARGET_UNREAD, said.fault)
        services = [
            {"name": one.name, "refused": one.refused} if one.refused else {"name": one.name, "methods": [*one.methods]}
            for one in said.services
        ]
        return json_response({"target": target, "services": services})

    async def _forget(self, request: web.BaseRequest, service: str) -> Response:
        even_with_waiting = _flag("evenWithWaiting", request.query.get("evenWithWaiting"))
        try:
            said = await self._mom.forget_service(service, even_with_waiting=even_with_waiting)
        except MomRefused as error:
            if error.code is Code.NOT_FOUND:
                raise Problem(NO_SERVICE, "There is no service of this name.") from error
            raise
        if not said.forgotten:
            raise Problem(CALLS_WAITING, f"{said.waiting} of its calls wait or run.")
        return json_response(
            {"service": service, "waiting": said.waiting, "replicas": said.replicas, "shipped": said.shipped}
        )

    async def _handle_one(self, text: str, handle: _Handle, done: str) -> Response:
        task_id = self._task_reader.read_id(text)
        (result,) = await handle(task_id.queue, [task_id.key])
        # A record that is missing is judged here; one that is there and was not handled, below.
        task = await self._task_reader.get(task_id)
        if result == pb.DEAD_TASK_RESULT_NOT_DEAD:
            state = task_view.state_of(task).name
            raise Problem(NOT_DEAD, f"The task is {state}: only one that is DEAD can be {done}.")
        if result == pb.DEAD_TASK_RESULT_GONE:
            raise Problem(GONE, f"The task was purged: nothing of it is left that could be {done}.")
        value = task_view.to_value(task_id, task, self._catalogue.services.get(task.service))
        return json_response(value, headers=NO_STORE)

    async def _handle_all(self, queue: str, handle: _Handle) -> int:
        await self._listings.queues(queue)
        count = 0
        async for keys in self._dead_by_now(queue):
            count += sum(result == pb.DEAD_TASK_RESULT_DONE for result in await handle(queue, keys))
        return count

    async def _dead_by_now(self, queue: str) -> AsyncIterator[list[str]]:
        """Yield the keys of what is dead now; what dies meanwhile, perhaps again, is left for the next time."""
        token, now = "", None
        while True:
            page = await self._mom.list_dead_tasks(queue, _BATCH, token)
            now = now or page.read_time.ToNanoseconds()
            keys = [dead.task.key for dead in page.tasks if dead.die_time.ToNanoseconds() <= now]
            if keys:
                yield keys
            token = page.next_page_token
            if not token or len(keys) < len(page.tasks):
                return


_Handle = Callable[[str, Sequence[str]], Awaitable[Sequence[int]]]


def _page_size(request: web.BaseRequest) -> int:
    """Read how many of a list are asked for.

    Raises:
        Problem: The size is none.
    """
    text = request.query.get("pageSize", str(_PAGE_SIZE))
    size = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_PAGE_SIZE)) else 0
    if not 1 <= size <= _MAX_PAGE_SIZE:
        raise _bad("pageSize", f"must be a whole number between 1 and {_MAX_PAGE_SIZE}")
    return size


def _flag(name: str, text: str | None) -> bool:
    """Read a query parameter that is true or false; the latter if it is not there.

    Raises:
        Problem: It says neither.
    """
    if text not in (None, "true", "false"):
        raise _bad(name, "must be true or false")
    return text == "true"


def _bad(field: str, reason: str) -> Problem:
    errors: list[Any] = [{"field": field, "reason": reason}]
    return Problem(INVALID_REQUEST, f"{field} {reason}", errors=errors)
