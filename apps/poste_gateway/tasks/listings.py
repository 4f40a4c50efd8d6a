"""Lists the services with their routes and replicas, and the queues with their figures.

`GET /v1/services`::

    {"services": [{"name": "calculator.v1.SumService", "availability": "up" | "away" | "busy", "queueable": true,
                   "queued": 0, "replicas": {"ready": 1, "known": 1}, "awayReason": null,
                   "methods": [{"name": "Add", "kind": "unary", "callable": true,
                                "path": "/calculator.v1.SumService/Add",
                                "routes": ["POST /calculator.v1.SumService/Add", "POST /v1/sum"], "notServed": [],
                                "idempotent": true, "away": "queue" | "reject", "requiresIdempotencyKey": false,
                                "timeoutSeconds": 30, "queuedTimeoutSeconds": 600}]}]}

`GET /v1/services/{service}/methods/{method}` is one method as it stands there, with the names of its `request` and its
`response`, and what these are made of (`poste.protojson.outline`).

`awayReason`: why no replica can be connected to, where that may be for its certificate, or for ours.
`notServed`: annotated routes that are not served, each with the reason (`{"route": …, "reason": …}`).
`queueable`: calls can be queued, because there is a consumer: the worker library registered the service, or a courier
runs, which delivers to services without the library. `queued` is null while the middleware is away. `GET /v1/queues`,
and `/v1/queues/{queue}` with one queue only::

    {"queues": [{"queue": "calculator.v1.SumService", "service": "calculator.v1.SumService", "queued": 0,
                 "running": 0, "delayed": 0, "scheduled": 0, "dead": 0, "kept": 5, "keptBytes": 1560, "heldBytes": 1560,
                 "maxHeldBytes": 239075328, "oldestAgeSeconds": null, "paused": false, "standsStill": false,
                 "consumers": 1, "enqueued": 5, "replayed": 0, "ended": 5}]}

- `kept`: the ended tasks whose results are kept. One may be counted for a 32nd of its time to live too long.
- `keptBytes`: the memory that these take in Redis; `heldBytes`: that of all tasks of the queue, waiting and DEAD ones
  too. At `maxHeldBytes` no more calls are accepted.
- `oldestAgeSeconds`: null if no task waits.
- `enqueued`, `ended`: totals since ever; `replayed`: DEAD tasks that an operator replayed. Each ends once more.

A queue that can't be read now (its master in a Redis Cluster is away) is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final, Literal

from poste import protojson
from poste.domain import input_rules
from poste.rpc.catalogue import Method, MethodKind
from poste.rpc.http_rules.rules import PassedOver
from poste.v1 import mom_service_pb2 as pb
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.http.busy import busy
from poste_gateway.http.problem_types import LOOKUP_AWAY, NO_QUEUE, NO_ROUTE, NO_SERVICE
from poste_gateway.http.problems import RETRY_AFTER, Problem
from poste_gateway.limits.fair_queue import Full
from poste_gateway.mom import Mom, MomAway
from poste_gateway.shared_reads import Ended, SharedReads

QUEUES: Final = "/v1/queues/"
SERVICES: Final = "/v1/services/"
#: What is listed.
_Listed = Literal["services", "queues"]


class Listings:
    """Lists services and queues. A whole listing is read once for all requests that came before it began."""

    def __init__(self, catalogue: ServiceCatalogue, mom: Mom) -> None:
        """Connect the parts.

        Args:
            catalogue: The services.
            mom: The middleware, for the queues.
        """
        self._catalogue = catalogue
        self._mom = mom
        self._listings = SharedReads[_Listed, bytes](self._write)

    async def services(self) -> bytes:
        """Return the catalogue as JSON; works while the middleware is away.

        Raises:
            Problem: The gateway is about to end.
        """
        return await self._shared("services")

    async def all_queues(self) -> bytes:
        """Return the queues as JSON.

        Raises:
            Problem: They can't be read now.
        """
        return await self._shared("queues")

    async def queues(self, name: str = "", *, client: str = "", patient: bool = True) -> dict[str, Any]:
        """Return the queues, or the one of that name, as JSON values.

        Args:
            name: The queue; all unless given.
            client: The client that asks for one; each has its share of the turns.
            patient: Wait for a turn even if too many wait.

        Raises:
            Problem: There is no such queue, too many reads wait, or the queues can't be read now.
        """
        if name and not input_rules.is_service(name):
            raise _none()
        try:
            queues = await self._mom.list_queues(name, client=client, patient=patient)
        except MomAway as error:
            raise _away(error) from error
        except Full:
            detail = "Queues are asked for faster than they can be looked up."
            raise busy("listings", detail, peer=client) from None
        found = {queue.name: queue for queue in queues}
        if name and name not in found:
            if name in self._catalogue.services:
                raise Problem(LOOKUP_AWAY, "The queue can't be looked up now.", headers=RETRY_AFTER)
            raise _none()
        return {"queues": [_queue(queue) for _, queue in sorted(found.items()) if name in ("", queue.name)]}

    def method(self, service: str, name: str) -> dict[str, Any]:
        """Return a method, and what its messages are made of, as JSON values.

        Raises:
            Problem: There is none of this name.
        """
        found = self._catalogue.services.get(service)
        if found is None:
            raise Problem(NO_SERVICE, "A service is called by its full name, with its package.")
        method = found.methods.get(name) or found.streams.get(name)
        if method is None:
            raise Problem(NO_ROUTE, f"{service} has no method of this name.")
        return {
            "service": service,
            **_method(method, self._catalogue.routes.passed_over(method)),
            "request": method.input.full_name,
            "response": method.output.full_name,
            **protojson.outline(method.input, method.output),
        }

    async def close(self) -> None:
        """Cancel the reads in flight."""
        await self._listings.close()

    async def _shared(self, listed: _Listed) -> bytes:
        try:
            return await self._listings.get(listed)
        except Ended as error:
            raise _away("the gateway stops") from error

    async def _write(self, listed: _Listed) -> bytes:
        return protojson.dumps(await (self._services() if listed == "services" else self.queues()))

    async def _services(self) -> dict[str, Any]:
        queued = None
        # Only if the middleware is connected: otherwise the answer must not wait for it.
        if await self._mom.connected(0.0):
            with contextlib.suppress(MomAway):
                queued = {queue.name: queue.queued + queue.delayed for queue in await self._mom.list_queues()}
        pools = self._catalogue.pools
        return {
            "services": [
                {
                    "name": name,
                    "availability": pools[name].availability,
                    "queueable": service.queueable,
                    "queued": None if queued is None else queued.get(name),
                    "replicas": dict(zip(("ready", "known"), pools[name].counts, strict=True)),
                    "awayReason": pools[name].trouble,
                    "methods": [
                        _method(method, self._catalogue.routes.passed_over(method)) for method in service.routed
                    ],
                }
                for name, service in sorted(self._catalogue.services.items())
            ]
        }


def _none() -> Problem:
    return Problem(NO_QUEUE, "A queue is called as its service is, by the full name.")


def _away(why: object) -> Problem:
    return Problem(LOOKUP_AWAY, f"The queues can't be looked up now: {why}.", headers=RETRY_AFTER)


def _queue(queue: pb.Queue) -> dict[str, Any]:
    return {
        "queue": queue.name,
        "service": queue.name,
        "queued": queue.queued,
        "running": queue.running,
        "delayed": queue.delayed,
        "scheduled": queue.scheduled,
        "dead": queue.dead,
        "heldAside": queue.held,
        "callbacks": queue.callbacks,
        "undelivered": queue.undelivered,
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


def _method(method: Method, passed_over: Sequence[PassedOver]) -> dict[str, Any]:
    # Routes that another service had first.
    unary = method.kind is MethodKind.UNARY
    queued = unary and method.policy.queue_when_away
    lost = {(one.verb, one.path) for one in passed_over}
    return {
        "name": method.name,
        "kind": method.kind.value,
        "callable": not method.kind.streams_requests,
        "path": method.path,
        "routes": [f"{route.verb} {route.path}" for route in method.routes if (route.verb, route.path) not in lost],
        "notServed": [
            {"route": f"{one.verb} {one.path}", "reason": one.reason} for one in (*method.passed_over, *passed_over)
        ],
        "idempotent": method.policy.idempotent,
        "away": "queue" if queued else "reject",
        "requiresIdempotencyKey": method.policy.requires_idempotency_key,
        "timeoutSeconds": method.policy.timeout_seconds,
        "queuedTimeoutSeconds": method.policy.queued_timeout_seconds if unary else None,
    }
