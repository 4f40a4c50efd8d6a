"""A service process' side of its queue.

::

    consumer ─▶ session ─▶ fetcher ─▶ task_runner ─▶ state
       │           │          └─────▶ beginner ──────▲
       │           └─▶ reconcile, put_off, give_back
       └─▶ shared_store ─▶ pops, sessions, lease ─▶ renewal

A `Consumer` joins its queue, and lives as one session after the other: one lease each. A session's `ConsumerState` is
all that it holds, and what everything that belongs to it works on. A `SharedStore` is for all consumers of a process.
"""

from poste.queue.consumer.consumer import Consumer
from poste.queue.consumer.held_bytes import HeldBytes
from poste.queue.consumer.shared_store import SharedStore
from poste.queue.consumer.task import ClaimedTask, Handle, NotRun, request_ids

__all__ = ["ClaimedTask", "Consumer", "Handle", "HeldBytes", "NotRun", "SharedStore", "request_ids"]
