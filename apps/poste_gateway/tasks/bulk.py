"""What operators do to many tasks of a queue at once: replay, purge, cancel or move those that a filter matches.

`POST /v1/queues/{queue}/replay`, `/purge` and `/cancel` take `state`, `method`, `reason` and `minAgeSeconds`, and
answer with how many it was done to::

    {"replayed": 3, "nextPageToken": ""}

One request handles some ten thousand tasks at most, or works for ten seconds: then `nextPageToken` is not empty, and
with `?pageToken=` it goes on there. With `?dryRun=true` nothing is done to any, and they are only counted::

    {"matched": 3, "nextPageToken": ""}

`POST /v1/queues/{queue}/move?target=…` moves what waits, and dead letters, to the queue of another service. Calls
that it could not run stay, and are counted; why, `unfit` says::

    {"moved": 3, "refused": 1, "unfit": [{"method": "Add", "reason": "ledger.v1.Book has no such method"}], …}
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web

from poste.domain import input_rules
from poste.domain.codes import Code
from poste.domain.task import TaskState
from poste.rpc.task_enums import STATES
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.http.problem_types import NO_SERVICE, QUEUE_FULL
from poste_gateway.http.problems import RETRY_AFTER, Problem, invalid
from poste_gateway.http.responses import Response, json_response
from poste_gateway.mom import Mom, MomRefused
from poste_gateway.tasks import task_filters
from poste_gateway.tasks.listings import Listings

#: How many tasks are handled by one call to the middleware.
_BATCH: Final = 500
#: How many tasks one request handles at most, but for the rest of a batch; and how long it works, in seconds.
_MOST: Final = 10_000
_MOST_SECONDS: Final = 10.0
#: How such a moment stands in a token, since the epoch.
_MILLISECONDS: Final = re.compile(r"[0-9]{1,15}", re.ASCII)

#: Does something with some tasks of a queue; returns how many it was done to, by the word for it.
_Act = Callable[[str, Sequence[str]], Awaitable[Mapping[str, int]]]


@dataclass(frozen=True, slots=True)
class _Verb:
    """A verb.

    Attributes:
        states: The states of tasks that it can be done to.
        meant: Those that are meant if none is named.
        words: What is counted, as the answer has it.
    """

    states: Collection[TaskState]
    meant: Collection[TaskState]
    words: Sequence[str]


_REPLAY: Final = _Verb((TaskState.DEAD, TaskState.FAILED), (TaskState.DEAD,), ("replayed",))
_PURGE: Final = _Verb((TaskState.DEAD,), (TaskState.DEAD,), ("purged",))
_CANCEL: Final = _Verb((TaskState.QUEUED, TaskState.RUNNING), (TaskState.QUEUED,), ("cancelled", "askedToStop"))
_MOVE: Final = _Verb(
    (TaskState.QUEUED, TaskState.DEAD, TaskState.FAILED), (TaskState.QUEUED, TaskState.DEAD), ("moved", "refused")
)


class Bulk:
    """Handles the requests for many tasks of a queue."""

    def __init__(self, mom: Mom, listings: Listings) -> None:
        self._mom = mom
        self._listings = listings

    async def replay(self, request: web.BaseRequest, queue: str) -> Response:
        """Have dead letters, or what failed, run again."""
        as_is = task_filters.flag(request, "asIs")

        async def replay(name: str, keys: Sequence[str]) -> Mapping[str, int]:
            return {"replayed": _done(await self._mom.replay_tasks(name, keys, as_is=as_is))}

        return await self._handle(request, queue, _REPLAY, replay)

    async def purge(self, request: web.BaseRequest, queue: str) -> Response:
        """Give dead letters up for good."""
        return await self._handle(request, queue, _PURGE, self._purge)

    async def cancel(self, request: web.BaseRequest, queue: str) -> Response:
        """Cancel what waits; ask what runs to stop, if that is asked for."""
        runs = STATES[TaskState.RUNNING] in _wanted(request, _CANCEL).states

        async def cancel(name: str, keys: Sequence[str]) -> Mapping[str, int]:
            results = await self._mom.cancel_tasks(name, keys, only_waiting=not runs)
            return {
                "cancelled": results.count(pb.CANCEL_TASK_RESULT_DONE),
                "askedToStop": results.count(pb.CANCEL_TASK_RESULT_ASKED),
            }

        return await self._handle(request, queue, _CANCEL, cancel)

    async def move(self, request: web.BaseRequest, queue: str) -> Response:
        """Move what waits, and dead letters, to another service's queue: what that could run."""
        target, dry = request.query.get("target", ""), task_filters.flag(request, "dryRun")
        if not input_rules.is_service(target) or target == queue:
            raise invalid("target", "must be another service's full name")
        unfit: dict[tuple[str, str], None] = {}

        async def move(name: str, keys: Sequence[str]) -> Mapping[str, int]:
            said = await self._moved(name, keys, target, dry=dry)
            unfit.update({(one.method, one.reason): None for one in said.unfit})
            refused = sum(result == pb.MOVE_TASK_RESULT_UNFIT for result in said.results)
            moved = sum(result == pb.MOVE_TASK_RESULT_MOVED for result in said.results)
            return {"matched" if dry else "moved": moved, "refused": refused}

        verb = replace(_MOVE, words=("matched", "refused")) if dry else _MOVE
        counts = await self._count(request, queue, verb, move)
        reasons = [{"method": method, "reason": reason} for method, reason in unfit]
        return json_response({**counts, "unfit": reasons})

    async def _moved(self, queue: str, keys: Sequence[str], target: str, *, dry: bool) -> pb.MoveTasksResponse:
        try:
            return await self._mom.move_tasks(queue, keys, target=target, dry_run=dry)
        except MomRefused as error:
            if error.code is Code.NOT_FOUND:
                raise Problem(NO_SERVICE, "There is no service of the target's name.") from error
            if error.code is Code.RESOURCE_EXHAUSTED:
                raise Problem(QUEUE_FULL, "The target's queue holds as much as it may.", headers=RETRY_AFTER) from error
            raise

    async def _purge(self, queue: str, keys: Sequence[str]) -> Mapping[str, int]:
        return {"purged": _done(await self._mom.purge_tasks(queue, keys))}

    async def _handle(self, request: web.BaseRequest, queue: str, verb: _Verb, act: _Act) -> Response:
        if not task_filters.flag(request, "dryRun"):
            return json_response(await self._count(request, queue, verb, act))

        async def count(_: str, keys: Sequence[str]) -> Mapping[str, int]:
            return {"matched": len(keys)}

        return json_response(await self._count(request, queue, replace(verb, words=("matched",)), count))

    async def _count(self, request: web.BaseRequest, queue: str, verb: _Verb, act: _Act) -> dict[str, int | str]:
        """Do something with the tasks that are meant; returns the answer: how many, and where to go on."""
        wanted = _wanted(request, verb)
        await self._listings.queues(queue)
        counts = dict.fromkeys(verb.words, 0)
        token, seen = request.query.get("pageToken", ""), 0
        end = asyncio.get_running_loop().time() + _MOST_SECONDS
        while True:
            keys, token = await self._page(queue, wanted, token)
            seen += len(keys)
            for word, count in (await act(queue, keys) if keys else {}).items():
                counts[word] += count
            if not token or seen >= _MOST or asyncio.get_running_loop().time() > end:
                return {**counts, "nextPageToken": token}

    async def _page(self, queue: str, wanted: pb.TaskFilter, token: str) -> tuple[list[str], str]:
        """Find some of the tasks; returns their keys, and where to go on."""
        if list(wanted.states) == [STATES[TaskState.DEAD]]:
            return await self._dead_page(queue, wanted, token)
        page = await task_filters.page(self._mom.search_tasks(queue, wanted, _BATCH, token))
        return [one.task.key for one in page.tasks], page.next_page_token

    async def _dead_page(self, queue: str, wanted: pb.TaskFilter, token: str) -> tuple[list[str], str]:
        """Find some of what was dead when the first page was asked for: what dies meanwhile is left for the next time.

        That moment goes along in front of the middleware's own token.
        """
        began, _, place = token.partition("~")
        if token and not _MILLISECONDS.fullmatch(began):
            raise invalid("pageToken", "is not the nextPageToken of a page")
        page = await task_filters.page(self._mom.list_dead_tasks(queue, wanted, _BATCH, place))
        until = int(began) if began else page.read_time.ToMilliseconds()
        keys = [dead.task.key for dead in page.tasks if dead.die_time.ToMilliseconds() <= until]
        over = not page.next_page_token or len(keys) < len(page.tasks)
        return keys, "" if over else f"{until}~{page.next_page_token}"


def _wanted(request: web.BaseRequest, verb: _Verb) -> pb.TaskFilter:
    return task_filters.read(request, verb.states, default=verb.meant)


def _done(results: Sequence[int]) -> int:
    return sum(result == pb.DEAD_TASK_RESULT_DONE for result in results)
