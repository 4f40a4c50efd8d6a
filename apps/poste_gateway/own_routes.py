"""The routes of the gateway itself: tasks, queues, services, problems, probes, and the pages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

from aiohttp import web

from poste_gateway.calls import batch
from poste_gateway.calls.batch import Batches
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.clock import Clock
from poste_gateway.http import problems
from poste_gateway.http.problem_types import NO_ROUTE
from poste_gateway.http.problems import Problem
from poste_gateway.http.responses import Response, json_response, text_answer, written_answer
from poste_gateway.limits.clients import client_of
from poste_gateway.openapi import documents
from poste_gateway.openapi.documents import Documents
from poste_gateway.task_routes import TaskRoutes, check_ready
from poste_gateway.tasks import task_view
from poste_gateway.tasks.listings import QUEUES, SERVICES, Listings
from poste_gateway.tasks.operators import Handler, OperatorRoutes
from poste_gateway.ui.pages import DOCS_PATH, Pages
from poste_gateway.ui.pages import ROOT as PAGE

Verbs = Mapping[str, Handler]
#: What stands between a service's name and that of a method.
_METHODS: Final = "methods/"


class Found(NamedTuple):
    """What is at a path of the gateway's own.

    Attributes:
        verbs: The handlers by verb.
        name: The name in the path: a task's id, a queue, a service. A method's is its service's, a slash, and its own.
        route: What the metrics call it: the path, with `*` for the name.
    """

    verbs: Verbs
    name: str
    route: str


class OwnRoutes:
    """Finds and handles the gateway's own routes."""

    def __init__(
        self,
        catalogue: ServiceCatalogue,
        listings: Listings,
        task_routes: TaskRoutes,
        operator_routes: OperatorRoutes,
        *,
        batches: Batches,
        openapi: Documents,
        clock: Clock,
        pages: Pages,
        draining: asyncio.Event,
    ) -> None:
        """Connect the parts.

        Args:
            catalogue: The services.
            listings: Lists services and queues.
            task_routes: The routes of tasks.
            operator_routes: The operators' routes.
            batches: Keeps many calls of one request.
            openapi: Describes the services as OpenAPI has it.
            clock: Compares this host's clock with the store's.
            pages: The page's files and its event stream.
            draining: Set when the process is to stop.
        """
        self._catalogue = catalogue
        self._listings = listings
        self._task_routes = task_routes
        self._clock = clock
        self._draining = draining
        self._openapi = openapi
        self._batches = batches
        self._exact, self._below = self._exact_paths(pages, operator_routes), self._named_paths(pages)
        self._exact[batch.PATH] = {"POST": self._batch}
        #: By the path's prefix and what is behind the name.
        self._behind: dict[tuple[str, str], Verbs] = {
            **{(task_view.TASKS, name): verbs for name, verbs in task_routes.behind.items()},
            (SERVICES, _METHODS): {"GET": self._method},
            **operator_routes.paths,
        }

    def _exact_paths(self, pages: Pages, operator_routes: OperatorRoutes) -> dict[str, Verbs]:
        """Return the handlers of paths without a name in them."""
        return {
            "/v1/services": {"GET": self._services, **operator_routes.exact["/v1/services"]},
            "/v1/queues": {"GET": self._queues},
            "/v1/tasks": operator_routes.exact["/v1/tasks"],
            documents.PATH: {"GET": self._get_openapi},
            "/livez": {"GET": self._livez},
            "/readyz": {"GET": self._readyz},
            "/": {"GET": pages.elsewhere},
            f"{PAGE}/": {"GET": pages.elsewhere},
            PAGE: {"GET": pages.index},
            f"{PAGE}/events": {"GET": pages.events},
            f"{PAGE}/session": {"POST": pages.signing_in.begin, "DELETE": pages.signing_in.end},
            f"{PAGE}/codes": {"POST": pages.signing_in.make_code},
            DOCS_PATH: {"GET": pages.docs},
            f"{DOCS_PATH}/": {"GET": pages.elsewhere},
        }

    def _named_paths(self, pages: Pages) -> dict[str, Verbs]:
        """Return the handlers of paths that end in a name, by what stands before it."""
        return {
            task_view.TASKS: self._task_routes.verbs,
            QUEUES: {"GET": self._queues},
            # There is nothing at the name itself; what is behind it is the operators'.
            SERVICES: {},
            "/problems/": {"GET": self._problem},
            f"{PAGE}/": {"GET": pages.file},
        }

    def find(self, path: str) -> Found | None:
        """Return the handlers of a path; None if the gateway has no such route."""
        if path in self._exact:
            return Found(self._exact[path], "", path)
        for prefix, verbs in self._below.items():
            name = path.removeprefix(prefix)
            if name and name != path:
                named, _, rest = name.partition("/")
                if rest.startswith(_METHODS):
                    method = rest.removeprefix(_METHODS)
                    rest, named = _METHODS, f"{named}/{method}" if named and method else ""
                behind = self._behind.get((prefix, rest))
                if behind is not None and named:
                    return Found(behind, named, f"{prefix}*/{rest}{'*' if rest == _METHODS else ''}")
                return Found(verbs, name, f"{prefix}*") if verbs else None
        return None

    def check_ready(self) -> None:
        """Refuse a request that can't be answered without the catalogue.

        Raises:
            Problem: The gateway does not have it yet.
        """
        check_ready(self._catalogue)

    async def _batch(self, request: web.BaseRequest, _: str) -> Response:
        self.check_ready()
        return await self._batches.handle(request)

    async def _services(self, _: web.BaseRequest, __: str) -> Response:
        return written_answer(await self._listings.services())

    async def _method(self, _: web.BaseRequest, name: str) -> Response:
        self.check_ready()
        service, method = name.split("/", 1)
        return json_response(self._listings.method(service, method))

    async def _queues(self, request: web.BaseRequest, name: str) -> Response:
        if not name:
            return written_answer(await self._listings.all_queues())
        return json_response(await self._listings.queues(name, client=client_of(request), patient=False))

    async def _get_openapi(self, request: web.BaseRequest, _: str) -> Response:
        self.check_ready()
        return await self._openapi.respond(request)

    async def _problem(self, _: web.BaseRequest, name: str) -> Response:
        page = problems.page(name)
        if page is None:
            raise Problem(NO_ROUTE, "There is no problem of this name.")
        return text_answer(page)

    async def _livez(self, _: web.BaseRequest, __: str) -> Response:
        return text_answer("alive\n")

    async def _readyz(self, _: web.BaseRequest, __: str) -> Response:
        reason = self.unready()
        return text_answer("ready\n") if reason is None else text_answer(f"{reason}\n", status=503)

    def unready(self) -> str | None:
        """Return None while this gateway is ready, else why it is not."""
        # Calls that come all the same are served, and said to be not accepted where they would have to be kept.
        if self._draining.is_set():
            return "stopping"
        return self._catalogue.unready or self._catalogue.trouble or self._clock.unready
