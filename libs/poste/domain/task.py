"""The life of a task: its states, and which may follow which.

::

    QUEUED ──▶ RUNNING ──▶ SUCCEEDED | FAILED | CANCELLED | DEAD
      │  ▲        │
      │  └────────┘ retry, give-back, crash
      └─────────▶ CANCELLED | EXPIRED
    DEAD ──▶ QUEUED       an operator replays it
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


class DeadReason(enum.Enum):
    """Why Poste gave a task up. The value stands for it in the Redis record."""

    ATTEMPTS = "attempts"
    CRASHES = "crashes"
    OUTCOME_UNKNOWN = "outcome-unknown"
