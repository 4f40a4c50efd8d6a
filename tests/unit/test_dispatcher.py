"""How the dispatcher finds what is at a path."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from support import shop

from poste.domain import id_keys
from poste.rpc.catalogue import describe
from poste_gateway.access.audit import AuditLog
from poste_gateway.access.sessions import Sessions
from poste_gateway.catalogue.route_table import RouteTable
from poste_gateway.dispatcher import Dispatcher
from poste_gateway.http.door import Door
from poste_gateway.own_routes import Found


class CountedRoutes(RouteTable):
    """Services' routes; counts how often it is asked what a path takes."""

    asked = 0

    def verbs(self, path: str, raw_path: str) -> Any:
        self.asked += 1
        return super().verbs(path, raw_path)


class CountedOwnRoutes:
    """Poste's own paths: one."""

    asked = 0

    def find(self, path: str) -> Found | None:
        self.asked += 1
        return Found({"GET": None}, "", path) if path == "/own" else None

    def check_ready(self) -> None:
        """It is."""


@pytest.mark.parametrize(
    ("path", "status", "allow", "expected"),
    [
        ("/own", 204, "GET, HEAD, OPTIONS", (1, 0)),
        ("/v1/quotes", 204, "POST, OPTIONS", (1, 1)),
        ("/nowhere", 404, None, (1, 1)),
    ],
)
async def test_a_path_is_looked_up_once(path: str, status: int, allow: str | None, expected: tuple[int, int]) -> None:
    """A page's preflight, before each of its calls, had its path looked up three times, and each time in two tables."""
    own_routes: Any = CountedOwnRoutes()
    routes = CountedRoutes([describe(shop.entry())])
    call_services: Any = SimpleNamespace(catalogue=SimpleNamespace(routes=routes))
    dispatcher = Dispatcher(
        call_services,
        own_routes,
        door=Door(None, None, Sessions(id_keys.read(b"k" * 32)), anonymous=False),
        hosts=None,
        audit=AuditLog(None),
        cors_origins=("https://app.example",),
        draining=asyncio.Event(),
    )
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = await dispatcher.handle(make_mocked_request("OPTIONS", path, headers=asked))

    assert (answer.status, answer.headers.get("Allow")) == (status, allow)
    assert (own_routes.asked, routes.asked) == expected
