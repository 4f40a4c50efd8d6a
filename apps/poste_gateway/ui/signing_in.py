"""`/ui/session`, where a browser gives a key once, or a code in its place, and has a session's cookie from then on.

A link can have a code (`/ui/codes`) where it must not have a key: it is good once, and soon over.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from poste import protojson
from poste_gateway.access import audit
from poste_gateway.access.identity import OPERATING
from poste_gateway.access.sessions import CODE_SECONDS
from poste_gateway.calls import request_body
from poste_gateway.http import session_cookie
from poste_gateway.http.door import Door
from poste_gateway.http.problem_types import INVALID_REQUEST
from poste_gateway.http.problems import Problem
from poste_gateway.http.responses import NO_STORE, Response, json_response

#: How long a browser may take to bring the key, in seconds.
_BODY_SECONDS: Final = 10.0


class SigningIn:
    """Answers who signs in or out."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def begin(self, request: web.BaseRequest, _: str) -> Response:
        """Begin a session: `{"key": "…"}`, or `{"code": "…"}`.

        Raises:
            Problem: It is no one's; or not of the gateway's own page, which could be made another client's then.
        """
        session_cookie.check_own(request)
        given = await _given(request)
        identity, session = self._door.begin_session(request, **given)
        if identity.roles & OPERATING:
            audit.operates(request, identity.name)
        headers = {**NO_STORE, **session_cookie.setting(request, session)}
        return json_response({"name": identity.name}, headers=headers)

    async def end(self, request: web.BaseRequest, _: str) -> Response:
        """Have the browser forget its session.

        Raises:
            Problem: The request is not of the gateway's own page.
        """
        session_cookie.check_own(request)
        return Response(status=204, headers={**NO_STORE, **session_cookie.setting(request, "")})

    async def make_code(self, request: web.BaseRequest, _: str) -> Response:
        """Answer with a code for who has the key that the request brings."""
        code = self._door.make_code(request)
        return json_response({"code": code, "seconds": CODE_SECONDS}, headers=NO_STORE)


async def _given(request: web.BaseRequest) -> dict[str, str]:
    """Return the key, or the code, that a browser brings, by which of them it is.

    Raises:
        Problem: It brings neither, or more.
    """
    body = await request_body.read_whole(request, seconds=_BODY_SECONDS)
    try:
        value = protojson.loads(body)
    except protojson.FieldErrors:
        value = None
    if isinstance(value, dict) and len(value) == 1:
        ((name, text),) = value.items()
        if name in ("key", "code") and isinstance(text, str) and text:
            return {name: text}
    raise Problem(INVALID_REQUEST, 'The body must be {"key": "…"} or {"code": "…"}.')
