"""What is there: the services with their routes and replicas, and the queues in figures.

`GET /v1/services`::

    {"services": [{"name": "calculator.v1.SumService", "availability": "up" | "away" | "busy", "queueable": true,
                   "queued": 0, "replicas": {"ready": 1, "known": 1},
                   "methods": [{"name": "Add", "path": "/calculator.v1.SumService/Add",
                                "routes": ["POST /calculator.v1.SumService/Add", "POST /v1/sum"],
                                "idempotent": true, "away": "queue" | "reject", "timeoutSeconds": 30,
                                "queuedTimeoutSeconds": 600}]}]}

`queueable`: calls can be kept, for the worker library registered the service, so somebody will take them; of one that
only the deployment's file knows they can't. `queued` is null while nobody can tell. `GET /v1/queues`, and
`/v1/queues/{queue}` with one queue only::

    {"queues": [{"queue": "calculator.v1.SumService", "service": "calculator.v1.SumService", "queued": 0,
                 "running": 0, "delayed": 0, "dead": 0, "kept": 5, "keptBytes": 1560, "heldBytes": 1560,
                 "maxHeldBytes": 239075328, "oldestAgeSeconds": null, "paused": false, "standsStill": false,
                 "consumers": 1, "enqueued": 5, "replayed": 0, "ended": 5}]}

`kept` are the ended tasks whose results are kept (counted for a 32nd of their time to live too long at most), and
`keptBytes` the store's memory that they take; `heldBytes` is that of all that the queue holds, what waits and what is
dead, too; at `maxHeldBytes` no call is kept any more. `oldestAgeSeconds` is null if no task waits; `enqueued` and
`ended` count all that ever were, `replayed` the DEAD ones that an operator had run again: each ends once more. A queue
that can't be read now (its master in a Redis Cluster is away) is left out.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from poste.rpc.catalogue import Method
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.directory import Directory
from poste_gateway.kinds import LOOKUP_AWAY, NO_QUEUE
from poste_gateway.mom import Mom, MomAway
from poste_gateway.problems import RETRY_AFTER, Problem

QUEUES: Final = "/v1/queues/"
SERVICES: Final = "/v1/services/"


async def services(directory: Directory, mom: Mom) -> dict[str, Any]:
    """Return the catalogue as JSON values; works while the middleware is away."""
    queued = None
    # Asked only if it is there: what can be told without it is told at once.
    if await mom.connected(0.0):
        with contextlib.suppress(MomAway):
            queued = {queue.name: queue.queued + queue.delayed for queue in await mom.list_queues()}
    return {
        "services": [
            {
                "name": name,
                "availability": directory.fleets[name].availability,
                "queueable": service.library,
                "queued": None if queued is None else queued.get(name),
                "replicas": dict(zip(("ready", "known"), directory.fleets[name].counts, strict=True)),
                "methods": [_method(method) for method in service.methods.values()],
            }
            for name, service in sorted(directory.services.items())
        ]
    }


async def queues(directory: Directory, mom: Mom, name: str = "") -> dict[str, Any]:
    """Return the queues, or the one of that name, as JSON values.

    Raises:
        Problem: There is no such queue, or the queues can't be looked up now.
    """
    try:
        found = {queue.name: queue for queue in await mom.list_queues(name)}
    except MomAway as error:
        raise Problem(LOOKUP_AWAY, "The queues can't be looked up now.", headers=RETRY_AFTER) from error
    if name and name not in found:
        if name in directory.services:
            raise Problem(LOOKUP_AWAY, "The queue can't be looked up now.", headers=RETRY_AFTER)
        raise Problem(NO_QUEUE, "There is no queue of this name.")
    return {"queues": [_queue(queue) for _, queue in sorted(found.items()) if name in ("", queue.name)]}


def _queue(queue: pb.Queue) -> dict[str, Any]:
    return {
        "queue": queue.name,
        "service": queue.name,
        "queued": queue.queued,
        "running": queue.running,
        "delayed": queue.delayed,
        "dead": queue.dead,
        "kept": queue.kept,
        "keptBytes": queue.kept_bytes,
        "heldBytes": queue.held_bytes,
        "maxHeldBytes": queue.max_held_bytes,
        "oldestAgeSeconds": queue.oldest_age_seconds if queue.HasField("oldest_age_seconds") else None,
        "paused": queue.paused,
        "standsStill": queue.stands_still,
        "consumers": queue.consumers,
        "enqueued": queue.enqueued,
        "replayed": queue.replayed,
        "ended": queue.ended,
    }


def _method(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "path": method.path,
        "routes": [f"{route.verb} {route.path}" for route in method.routes],
        "idempotent": method.policy.idempotent,
        "away": "queue" if method.policy.queue_when_away else "reject",
        "timeoutSeconds": method.policy.timeout_seconds,
        "queuedTimeoutSeconds": method.policy.queued_timeout_seconds,
    }
