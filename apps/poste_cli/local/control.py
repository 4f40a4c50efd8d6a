"""The control server of a running `poste up`: shows, stops and starts its parts for the data folder's owner."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from aiohttp import web

from poste_cli.local.supervisor import PartError, Supervisor

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def new_token() -> str:
    """Make the secret that a request has to show."""
    return secrets.token_urlsafe(32)


def application(supervisor: Supervisor, token: str) -> web.Application:
    """Build the server.

    `GET /parts` answers with all parts; `POST /parts/NAME/stop` answers once the part is gone, `POST /parts/NAME/start`
    once it is ready. What can't be done is answered with `{"error": …}`.
    """

    @web.middleware
    async def only_ours(request: web.Request, handler: _Handler) -> web.StreamResponse:
        shown = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(shown, f"Bearer {token}".encode()):
            return web.json_response({"error": "not yours"}, status=401)
        return await handler(request)

    async def parts(_: web.Request) -> web.Response:
        return web.json_response([asdict(view) for view in await supervisor.views()])

    async def act(request: web.Request) -> web.Response:
        name, verb = request.match_info["name"], request.match_info["verb"]
        if name not in supervisor.keepers:
            return web.json_response({"error": f"this `poste up` does not run {name}"}, status=404)
        try:
            await (supervisor.start(name) if verb == "start" else supervisor.stop(name))
        except PartError as error:
            return web.json_response({"error": str(error)}, status=409)
        return web.json_response({})

    app = web.Application(middlewares=[only_ours])
    app.add_routes([web.get("/parts", parts), web.post("/parts/{name}/{verb:start|stop}", act)])
    return app
