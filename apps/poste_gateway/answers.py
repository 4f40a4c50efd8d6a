"""What the gateway answers, before it becomes HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from poste.rpc import protojson

JSON: Final = "application/json"
#: Heads what changes from one look to the next.
NO_STORE: Final = {"Cache-Control": "no-store"}


@dataclass(slots=True)
class Account:
    """What is to be said of one request in the log and the metrics; filled on its way.

    Attributes:
        request_id: Its id.
        service: The service that it calls, if it calls one.
        method: The method.
        road: The road that it took: `direct`, `durable`, or `none` if it was refused before.
        outcome: The code, or the name of the problem, that it ended with; `QUEUED` if it was kept.
        facts: What else the log is to say.
    """

    request_id: str
    service: str = ""
    method: str = ""
    road: str = "none"
    outcome: str = "OK"
    facts: dict[str, Any] = field(default_factory=dict)


def json_response(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=protojson.dumps(value), status=status, headers={"Content-Type": JSON, **(headers or {})})
