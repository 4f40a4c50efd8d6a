"""`GET /v1/tasks`: tasks of all queues that a filter matches (`task_queries`), in pages, each without its result.

A client finds its own, and who has the role `look` those of all. Without a key nothing of a client is known by which
its tasks could be told from others', so it finds none. They are searched for in the store, which is dear: a few
searches go on at once, and each for some seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from aiohttp import web

from poste.domain.task_id import TaskIds
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.access import audit
from poste_gateway.access.identity import Role, identity_of
from poste_gateway.http.busy import busy
from poste_gateway.http.door import Door
from poste_gateway.http.responses import NO_STORE, Response, json_response
from poste_gateway.limits.budgets import Budget
from poste_gateway.limits.clients import client_of
from poste_gateway.mom import Mom
from poste_gateway.tasks import task_filters, task_queries, task_view
from poste_gateway.tasks.task_queries import TaskQuery

PATH: Final = task_view.TASKS.rstrip("/")
#: How many searches go on at once, and how many of one client.
_AT_ONCE: Final = 8
_OF_ONE: Final = 2
#: How long one goes on, in seconds, but for its last part.
_SECONDS: Final = 2.0


class _Where(NamedTuple):
    """Where is searched: one queue or all, of one owner and client or all, for one key or any; empty: all."""

    queue: str
    owner: str
    client: str
    key: str


class TaskSearch:
    """Finds tasks."""

    def __init__(self, mom: Mom, ids: TaskIds, door: Door) -> None:
        """Use the middleware's search; who may see all tasks is asked at the door."""
        self._mom, self._ids, self._door = mom, ids, door
        self._running = Budget(_AT_ONCE, _OF_ONE)

    async def find(self, request: web.BaseRequest, _: str) -> Response:
        """Answer with a page of tasks.

        Raises:
            Problem: The filter or the token is wrong, it is not for this client, or too many search.
        """
        identity = identity_of(request)
        sees_all = not identity.client or Role.LOOK in identity.roles
        if sees_all:
            audit.operates(request, self._door.check(request, Role.LOOK).name)
        size, token = task_filters.page_size(request), request.query.get("pageToken", "")
        query = task_queries.parse(request.query.get("filter", ""))
        client = query.client if sees_all else identity.client
        if query.client not in (None, client):
            return _page([], "")
        peer = client_of(request)
        if not self._running.take(peer, 1):
            raise busy("searches", "As many searches for tasks go on here as may.", peer=peer)
        try:
            found, token = await self._found(query, self._where(query, client), size, token)
        finally:
            self._running.give(peer, 1)
        return _page([task_view.to_listed(self._ids, one) for one in found], token)

    def _where(self, query: TaskQuery, client: str | None) -> _Where:
        queue, owner = query.only("service"), "" if client is None else self._ids.owner_of(client)
        if not query.key:
            return _Where(queue, owner, client or "", "")
        method = query.only("method")
        key = self._ids.key_of_idempotency_key(queue, method, query.key, client=client or "")
        return _Where(queue, owner, client or "", key)

    async def _found(self, query: TaskQuery, where: _Where, size: int, token: str) -> tuple[list[pb.ListedTask], str]:
        """Search until a page is full, or for as long as one search may go on; returns where the next goes on too."""
        found: list[pb.ListedTask] = []
        end = asyncio.get_running_loop().time() + _SECONDS
        while True:
            asked = self._mom.search_tasks(
                where.queue,
                query.coarse(),
                size - len(found),
                token,
                owner=where.owner,
                client=where.client,
                key=where.key,
            )
            page = await task_filters.page(asked)
            found += filter(query.matches, page.tasks)
            token = page.next_page_token
            if not token or len(found) >= size or asyncio.get_running_loop().time() > end:
                return found, token


def _page(tasks: Sequence[object], token: str) -> Response:
    return json_response({"tasks": tasks, "nextPageToken": token}, headers=NO_STORE)
