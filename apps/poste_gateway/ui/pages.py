"""The paths of the pages: `/ui`, their files, `/ui/events` which is the stream of snapshots, and `/docs`.

Who may read may see the services and the queues' figures, as in `/v1/services` and `/v1/queues`; only operators see
tasks.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from aiohttp import web

from poste_gateway.access import audit
from poste_gateway.access.identity import Role
from poste_gateway.http.door import Door, names_key
from poste_gateway.http.problem_types import NOT_ALLOWED, TOO_MANY_WATCHERS
from poste_gateway.http.problems import RETRY_AFTER, Problem
from poste_gateway.http.responses import Response
from poste_gateway.ui.broadcaster import Broadcaster
from poste_gateway.ui.events import EventStream
from poste_gateway.ui.files import DOCS, INDEX, Files
from poste_gateway.ui.signing_in import SigningIn

ROOT: Final = "/ui"
#: The page on which people read the OpenAPI document, and try it.
DOCS_PATH: Final = "/docs"


class Pages:
    """Answers everything below `/ui`, and `/docs`.

    Attributes:
        signing_in: Answers who signs in or out.
    """

    def __init__(self, broadcaster: Broadcaster, door: Door) -> None:
        self.signing_in = SigningIn(door)
        self._broadcaster = broadcaster
        self._door = door
        self._files = Files()

    async def index(self, request: web.BaseRequest, _: str) -> Response:
        """Answer with the page."""
        return await self._files.respond(request, INDEX)

    async def docs(self, request: web.BaseRequest, _: str) -> Response:
        """Answer with the page on which the OpenAPI document is read and tried."""
        return await self._files.respond(request, DOCS)

    async def elsewhere(self, request: web.BaseRequest, _: str) -> Response:
        """Redirect to a page: from its path with a slash behind it, and from `/`."""
        if path := request.path.rstrip("/"):
            return Response(status=308, headers={"Location": path})
        # Not for good: browsers would never forget it.
        return Response(status=302, headers={"Location": ROOT})

    async def file(self, request: web.BaseRequest, name: str) -> Response:
        """Answer with one of its files."""
        return await self._files.respond(request, name)

    async def events(self, request: web.BaseRequest, _: str) -> Response:
        """Answer with the stream of snapshots."""
        why = self._why_guest(request)
        if self._broadcaster.full(operator=why is None):
            raise Problem(TOO_MANY_WATCHERS, "No further page can be served now.", headers=RETRY_AFTER)
        of_session = self._door.of_session(request)
        signed_in = None if of_session is None else of_session.name
        hello: dict[str, Any] = {"operator": why is None, "needs": why, "signedIn": signed_in}
        may_watch = functools.partial(self._may_watch, request, Role.READ if why else Role.LOOK)
        return EventStream(self._broadcaster, operator=why is None, hello=hello, may_watch=may_watch)

    def _may_watch(self, request: web.BaseRequest, role: Role) -> bool:
        """Return whether whoever opened a stream by a role still has it: the key may be revoked meanwhile."""
        try:
            self._door.check(request, role)
        except Problem:
            return False
        return True

    def _why_guest(self, request: web.BaseRequest) -> str | None:
        """Return why a request is not an operator's, as a problem's name; None if it is.

        Raises:
            Problem: Its key is wrong.
        """
        try:
            audit.operates(request, self._door.check(request, Role.LOOK).name)
        except Problem as problem:
            # Any other scheme is meant for a proxy before the gateway that asks for a password.
            if names_key(request) and problem.kind is not NOT_ALLOWED:
                raise
            return problem.kind.name
        return None
