"""A call as it is sent to the middleware, and what its client is told if it is not kept."""

from __future__ import annotations

import time
from typing import Final

from poste.domain.policy import MAX_DELAY_SECONDS, MethodPolicy
from poste.domain.task_id import TaskId, TaskIds, without_queue
from poste.rpc.catalogue import Method
from poste.upstream.replica_pool import ReplicaPool
from poste.v1 import mom_service_pb2
from poste_gateway.access.identity import Identity
from poste_gateway.calls.enqueuer import Acceptance, OverQuota
from poste_gateway.catalogue.catalogue import ServiceCatalogue
from poste_gateway.http.idempotency import IDEMPOTENCY_KEY
from poste_gateway.http.not_before import NOT_BEFORE
from poste_gateway.http.preferences import Preferences
from poste_gateway.http.problem_types import (
    ACCEPTANCE_UNKNOWN,
    BUDGET_SPENT,
    KEY_REUSED,
    NOT_ACCEPTED,
    QUEUE_FULL,
    QUOTA_EXCEEDED,
    SERVICE_AWAY,
)
from poste_gateway.http.problems import RETRY_AFTER, Problem, invalid
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


def check_may_be(prefer: Preferences, policy: MethodPolicy, *, reads: bool) -> None:
    """Check that a call with an idempotency key, or for later, may be kept; `reads`: its verb is for reading only.

    Raises:
        Problem: It may not. A run that is not on record could not be told from a repeat, nor wait for its time.
    """
    if reads:
        why = "a call by GET, HEAD or TRACE never is"
    elif prefer.no_queue:
        why = "`Prefer: no-queue` forbids it"
    elif not policy.queue_when_away:
        why = "its method's `away` is `reject`"
    else:
        return
    header, call = (IDEMPOTENCY_KEY, "with a key") if prefer.idempotency_key else (NOT_BEFORE, "for later")
    raise invalid(header, f"can't be honoured: a call {call} is kept, and {why}")


def check_time(field: str, not_before_ms: int, identity: Identity) -> None:
    """Check that a client's calls may be kept until a time, which `field` says; 0: it is none.

    Raises:
        Problem: It is further ahead than they may wait: they would take up the queue's room for as long.
    """
    longest = identity.max_task_ttl_seconds
    # One second more: the time may have been made of one that was rounded.
    if longest < MAX_DELAY_SECONDS and not_before_ms > (time.time() + longest + 1) * 1000:
        raise invalid(field, f"may be at most {longest} seconds ahead with these credentials")


def wait_seconds(prefer: Preferences, policy: MethodPolicy, pool: ReplicaPool) -> float:
    """Return how long the client of such a call waits for its answer, in seconds.

    As on the direct road where it does not say: as long as the call may take if its service is up and it may run now,
    else not at all.
    """
    if prefer.wait_seconds is not None:
        return prefer.wait_seconds
    if prefer.respond_async or prefer.not_before_ms or pool.availability == "away":
        return 0.0
    limit = prefer.limit_seconds
    return policy.timeout_seconds if limit is None else min(limit, policy.timeout_seconds)


def mint(ids: TaskIds, method: Method, prefer: Preferences, identity: Identity) -> TaskId:
    """Return the id that a client's call is kept under."""
    key, policy, client = prefer.idempotency_key, method.policy, identity.client
    return ids.mint(
        method.service,
        client=client,
        random=ids.of_idempotency_key(method.service, method.name, key, client=client) if key else None,
        # A default that its client did not ask for is cut to the method's maximum; and what it may ask for, to its own.
        task_ttl_seconds=min(prefer.task_ttl_seconds, policy.max_task_ttl_seconds, identity.max_task_ttl_seconds),
        result_ttl_seconds=min(
            prefer.result_ttl_seconds, policy.max_result_ttl_seconds, identity.max_result_ttl_seconds
        ),
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
    if prefer.not_before_ms:
        new.not_before_ms = prefer.not_before_ms
    return new


def quota_of(identity: Identity) -> mom_service_pb2.ClientQuota | None:
    """Return the quota that a client's call is kept under; None if it has none."""
    if (quota := identity.quota) is None:
        return None
    return mom_service_pb2.ClientQuota(client=identity.client, **quota._asdict())


def refusal(said: Acceptance | OverQuota, task_id: TaskId, ids: TaskIds) -> Problem:
    """Return the problem of a call that is not kept, or of which that is unknown: its `Location` has an id then."""
    if isinstance(said, OverQuota):
        return _over_quota(said)
    if said is Acceptance.KEY_REUSED:
        return Problem(KEY_REUSED, "The first call with this key had another request. Nothing was accepted.")
    if said is Acceptance.UNKNOWN:
        detail = "The answer whether the call is kept was lost. Read the path that Location names."
        place = {"Location": task_view.location(ids.with_acceptance_unknown(task_id))}
        return Problem(ACCEPTANCE_UNKNOWN, detail, headers=place)
    return not_now(said)


def _over_quota(said: OverQuota) -> Problem:
    quota, use = said
    if 0 < quota.max_waiting_calls <= use.waiting_calls:
        has = f"{use.waiting_calls} of the {quota.max_waiting_calls} waiting calls that it may have"
    else:
        has = f"{use.kept_bytes} of the {quota.max_kept_bytes} bytes that it may have, and no room for this call"
    detail = f"In this service's queue the client has {has}: nothing was accepted."
    return Problem(QUOTA_EXCEEDED, detail, headers=RETRY_AFTER)


def not_now(said: Acceptance) -> Problem:
    """Return the problem of a call that is not kept, and may be later."""
    kind, detail = _AGAIN[said]
    return Problem(kind, detail, headers=RETRY_AFTER)
