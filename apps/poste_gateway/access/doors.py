"""The role that each of the gateway's own routes needs, by its path and verb: the one list of these doors.

Calls of services need the role `call`, and the right to that method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from poste_gateway.access.identity import Role

#: For everybody: what says nothing about services and tasks.
_OPEN: Final[Mapping[str, Role | None]] = {"GET": None}
_READ: Final = {"GET": Role.READ}
_LOOK: Final = {"GET": Role.LOOK}
_REPLAY: Final = {"POST": Role.REPLAY}
_PURGE: Final = {"POST": Role.PURGE}
_CATALOGUE: Final = {"POST": Role.CATALOGUE}

#: By the route as the metrics have it (`own_routes.Found.route`), by verb; None: no role is needed.
DOORS: Final[Mapping[str, Mapping[str, Role | None]]] = {
    **dict.fromkeys(("/", "/livez", "/readyz", "/problems/*", "/ui", "/ui/", "/ui/*", "/docs", "/docs/"), _OPEN),
    # Tasks on it are for those who have the role `look`, besides.
    "/ui/events": _READ,
    # Who gives a key there shows it by that; and who signs out needs none.
    "/ui/session": {"POST": None, "DELETE": None},
    "/ui/codes": {"POST": Role.LOOK},
    "/openapi.json": _READ,
    "/v1/services": {**_READ, **_CATALOGUE},
    "/v1/services/*/methods/*": _READ,
    "/v1/services/*/forget": _CATALOGUE,
    # Own tasks; those of others are for those who have the role `look`, besides.
    "/v1/tasks": _READ,
    "/v1/tasks:batch": {"POST": Role.CALL},
    "/v1/tasks/*": {**_READ, "DELETE": Role.CALL},
    "/v1/tasks/*/history": _READ,
    "/v1/tasks/*/events": _READ,
    "/v1/tasks/*/call": _LOOK,
    "/v1/tasks/*/replay": _REPLAY,
    "/v1/tasks/*/redeliver": _REPLAY,
    "/v1/tasks/*/purge": _PURGE,
    "/v1/queues": _READ,
    "/v1/queues/*": _READ,
    "/v1/queues/*/tasks": _LOOK,
    "/v1/queues/*/dead": _LOOK,
    "/v1/queues/*/dead-groups": _LOOK,
    "/v1/queues/*/undelivered": _LOOK,
    "/v1/queues/*/replay": _REPLAY,
    "/v1/queues/*/redeliver": _REPLAY,
    "/v1/queues/*/move": _REPLAY,
    "/v1/queues/*/purge": _PURGE,
    "/v1/queues/*/purge-ended": _PURGE,
    "/v1/queues/*/cancel": _PURGE,
    "/v1/queues/*/pause": _CATALOGUE,
    "/v1/queues/*/resume": _CATALOGUE,
}
