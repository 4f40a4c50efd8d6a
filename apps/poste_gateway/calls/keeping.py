"""A call as it is sent to the middleware, and what its client is told if it is not kept."""

from __future__ import annotations

from typing import Final

from poste.domain.task_id import TaskId, TaskIds, without_queue
from poste.rpc.catalogue import Method
from poste.v1 import mom_service_pb2
from poste_gateway.calls.enqueuer import Acceptance
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.http.preferences import Preferences
from poste_gateway.http.problem_types import (
    ACCEPTANCE_UNKNOWN,
    BUDGET_SPENT,
    KEY_REUSED,
    NOT_ACCEPTED,
    QUEUE_FULL,
    SERVICE_AWAY,
)
from poste_gateway.http.problems import RETRY_AFTER, Problem
from poste_gateway.mom import STORE_AWAY
from poste_gateway.tasks import task_view

NO_CONSUMER: Final = (
    "The call was not kept: no process with the worker library has registered this service, and no courier is there, so"
    " no consumer would take it from a queue."
)
_AGAIN: Final = {
    Acceptance.QUEUE_FULL: (QUEUE_FULL, "The service is away and its queue is full: nothing was accepted."),
    Acceptance.BUDGET_SPENT: (
        BUDGET_SPENT,
        "The queue, with the results kept in it, takes as much room as it may: nothing was accepted.",
    ),
    Acceptance.NO_CONSUMER: (SERVICE_AWAY, NO_CONSUMER),
    Acceptance.NOT_ACCEPTED: (NOT_ACCEPTED, "Nothing was accepted: the call can't be kept now."),
    Acceptance.STORE_AWAY: (NOT_ACCEPTED, f"Nothing was accepted: {STORE_AWAY}."),
}


def check_agreed(catalogue: ServiceCatalogue) -> None:
    """Check that the middleware takes this gateway's ids.

    Raises:
        Problem: It does not, or was not asked yet.
    """
    if not catalogue.key_agreed:
        raise Problem(NOT_ACCEPTED, "Nothing was accepted: the middleware is away.", headers=RETRY_AFTER)


def mint(ids: TaskIds, method: Method, prefer: Preferences) -> TaskId:
    """Return the id that a call is kept under."""
    key, policy = prefer.idempotency_key, method.policy
    return ids.mint(
        method.service,
        random=ids.of_idempotency_key(method.service, method.name, key) if key else None,
        # A default that its client did not ask for is cut to the method's maximum.
        task_ttl_seconds=min(prefer.task_ttl_seconds, policy.max_task_ttl_seconds),
        result_ttl_seconds=min(prefer.result_ttl_seconds, policy.max_result_ttl_seconds),
    )


def new_task(method: Method, task_id: TaskId, request: bytes, prefer: Preferences) -> mom_service_pb2.NewTask:
    """Return a call to be kept, with what every call has."""
    # Field by field: constructor arguments, and a Timestamp made before, would cost twice as much.
    new = mom_service_pb2.NewTask()
    new.service, new.method = method.service, method.name
    new.key, new.request = task_id.key, request
    created, created_ms = new.create_time, task_id.create_ms
    created.seconds, created.nanos = created_ms // 1000, created_ms % 1000 * 1_000_000
    new.task_ttl_seconds, new.result_ttl_seconds = task_id.task_ttl_seconds, task_id.result_ttl_seconds
    new.id_rest = without_queue(task_id)
    new.schema = method.schema.fingerprint
    if prefer.callback_url:
        new.callback_url = prefer.callback_url
    return new


def refusal(said: Acceptance, task_id: TaskId, ids: TaskIds) -> Problem:
    """Return the problem of a call that is not kept, or of which that is unknown: its `Location` has an id then."""
    if said is Acceptance.KEY_REUSED:
        return Problem(KEY_REUSED, "The first call with this key had another request. Nothing was accepted.")
    if said is Acceptance.UNKNOWN:
        detail = "The answer whether the call is kept was lost. Read the path that Location names."
        place = {"Location": task_view.location(ids.with_acceptance_unknown(task_id))}
        return Problem(ACCEPTANCE_UNKNOWN, detail, headers=place)
    return not_now(said)


def not_now(said: Acceptance) -> Problem:
    """Return the problem of a call that is not kept, and may be later."""
    kind, detail = _AGAIN[said]
    return Problem(kind, detail, headers=RETRY_AFTER)
