"""Calls with an idempotency key. Each is kept, be its service up or not: its task's record is what a repeat is told by.

A record's key is made from the idempotency key, so of all calls with it one has the record, whichever gateway,
middleware and process they come by; and what becomes of that one is what becomes of any call that is kept.
"""

from __future__ import annotations

import base64
import hashlib

from google.protobuf.descriptor import Descriptor

from poste.domain.errors import InvalidTaskId
from poste.domain.task_id import TaskId, TaskIds, with_queue
from poste.protojson import plans
from poste_gateway.calls.enqueuer import Known
from poste_gateway.http.problem_types import RECORD_LOST
from poste_gateway.http.problems import Problem


def first_id(ids: TaskIds, service: str, known: Known) -> TaskId:
    """Return the id of the call that has the record of a key.

    Raises:
        Problem: Its record is damaged.
    """
    try:
        return ids.signed_anew(with_queue(service, known.id_rest))
    except InvalidTaskId:
        raise Problem(RECORD_LOST, "A call with this key was accepted, and its record can't be read.") from None


def digest(message: Descriptor, request: bytes) -> str:
    """Return what tells a request from others, however its JSON was written: 128 bits of SHA-256, in base64url."""
    made = plans.class_of(message)
    # The entries of a map have no order of their own.
    canonical = made.SerializeToString(made.FromString(request), deterministic=True)
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()[:16]).rstrip(b"=").decode()
