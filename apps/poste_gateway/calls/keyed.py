"""Calls with an idempotency key. Each is kept, be its service up or not: its task's record is what a repeat is told by.

A record's key is made from the idempotency key, so of all calls with it one has the record, whichever gateway,
middleware and process they come by; and what becomes of that one is what becomes of any call that is kept.
"""

from __future__ import annotations

import base64
import hashlib

from google.protobuf.descriptor import Descriptor

from poste.domain.errors import InvalidTaskId
from poste.domain.policy import MethodPolicy
from poste.domain.task_id import TaskId, TaskIds, with_queue
from poste.protojson import plans
from poste.upstream.replica_pool import ReplicaPool
from poste_gateway.calls.enqueuer import Known
from poste_gateway.http.idempotency import IDEMPOTENCY_KEY
from poste_gateway.http.preferences import Preferences
from poste_gateway.http.problem_types import RECORD_LOST
from poste_gateway.http.problems import Problem, invalid


def check(prefer: Preferences, policy: MethodPolicy, *, reads: bool) -> None:
    """Check that a call with a key may be kept; `reads`: by its verb it is for reading only.

    Raises:
        Problem: It may not: a run that is not on record could not be told from a repeat.
    """
    if reads:
        why = "a call by GET, HEAD or TRACE never is"
    elif prefer.no_queue:
        why = "`Prefer: no-queue` forbids it"
    elif not policy.queue_when_away:
        why = "its method's `away` is `reject`"
    else:
        return
    raise invalid(IDEMPOTENCY_KEY, f"can't be honoured: a call with a key is kept, and {why}")


def wait_seconds(prefer: Preferences, policy: MethodPolicy, pool: ReplicaPool) -> float:
    """Return how long the client of a call with a key waits for its answer, in seconds.

    As on the direct road where it does not say: as long as the call may take if its service is up, else not at all.
    """
    if prefer.wait_seconds is not None:
        return prefer.wait_seconds
    if prefer.respond_async or pool.availability == "away":
        return 0.0
    limit = prefer.limit_seconds
    return policy.timeout_seconds if limit is None else min(limit, policy.timeout_seconds)


def first_id(ids: TaskIds, service: str, known: Known) -> TaskId:
    """Return the id of the call that has the record of a key.

    Raises:
        Problem: Its record is damaged.
    """
    try:
        return ids.read(with_queue(service, known.id_rest))
    except InvalidTaskId:
        raise Problem(RECORD_LOST, "A call with this key was accepted, and its record can't be read.") from None


def digest(message: Descriptor, request: bytes) -> str:
    """Return what tells a request from others, however its JSON was written: 128 bits of SHA-256, in base64url."""
    made = plans.class_of(message)
    # The entries of a map have no order of their own.
    canonical = made.SerializeToString(made.FromString(request), deterministic=True)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()[:16]).rstrip(b"=").decode()
