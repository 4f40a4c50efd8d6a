"""The life of a task: its states, and which may follow which.

::

    QUEUED ──▶ RUNNING ──▶ SUCCEEDED | FAILED | CANCELLED | DEAD
      │  ▲        │
      │  └────────┘ retry, give-back, crash
      └─────────▶ CANCELLED | EXPIRED | DEAD       its time is over: DEAD if its handler failed until then
    DEAD, FAILED ──▶ QUEUED       an operator replays it
"""

from __future__ import annotations

import enum


class TaskState(enum.Enum):
    """Where a task is. The value is the letter that stands for it in its Redis record."""

    QUEUED = "Q"
    RUNNING = "R"
    SUCCEEDED = "S"
    FAILED = "F"
    CANCELLED = "C"
    EXPIRED = "E"
    DEAD = "D"

    @property
    def final(self) -> bool:
        """Whether the task has ended."""
        return self not in (TaskState.QUEUED, TaskState.RUNNING)


class TaskEventType(enum.Enum):
    """What may happen to a task. The value is what clients read."""

    ACCEPTED = "accepted"
    #: A process claimed it: an attempt began.
    STARTED = "started"
    #: The handler failed; the task waits for its next attempt.
    RETRIED = "retried"
    #: Its process died under the attempt.
    CRASHED = "crashed"
    #: Its process stopped: that was no attempt.
    GIVEN_BACK = "given-back"
    #: It ran, and was asked to stop.
    CANCEL_REQUESTED = "cancel-requested"
    #: It was DEAD or FAILED, and an operator had it run again.
    REPLAYED = "replayed"
    ENDED = "ended"


class DeadReason(enum.Enum):
    """Why Poste gave a task up, or cancelled it. The value stands for it in the Redis record."""

    ATTEMPTS = "attempts"
    CRASHES = "crashes"
    OUTCOME_UNKNOWN = "outcome-unknown"
    #: Its handler answered, and with more than can be kept.
    RESPONSE_TOO_LARGE = "response-too-large"
    #: It was not run: its method's schema is another, by which its request may say something else.
    SCHEMA_CHANGED = "schema-changed"
    #: Its record can't be read.
    DAMAGED = "damaged"
    #: An operator cancelled it while it waited: it is CANCELLED, not DEAD.
    OPERATOR = "operator"
