"""Every key that Poste has in Redis.

All keys of a queue share the hash tag `{queue}`, so that a script that touches several of them runs on Redis Cluster.
"""

from __future__ import annotations

from typing import Final

#: The queues there are (set).
QUEUES: Final = "poste:queues"
#: The store's random name (string): one that was emptied or replaced has another, or none.
STORE_ID: Final = "poste:store-id"
#: service → its entry in the catalogue (hash).
CATALOGUE: Final = "poste:catalogue"
#: Counts up with every change of the catalogue.
CATALOGUE_VERSION: Final = "poste:catalogue:version"
#: `service address` → when that replica last registered, in ms (zset).
REPLICAS: Final = "poste:replicas"
#: The fingerprint of the key that signs this Redis' task ids.
ID_KEY_FINGERPRINT: Final = "poste:id-key-fingerprint"
#: Which middleware tells the system's figures (string, with a TTL).
SPOKESMAN: Final = "poste:spokesman"
#: The channel on which scripts name the record of a task that ended while somebody waited for it.
ENDED_CHANNEL: Final = "poste:ended"
#: Matches the list of every consumer of every queue.
ANY_TAKEN: Final = "poste:{*}:taken:*"


class QueueKeys:
    """The keys of one queue.

    Attributes:
        ready: Keys of the tasks that wait, the oldest at the right (list).
        leases: incarnation → when its lease is over, in ms (zset).
        graves: Reaped incarnations → when, in ms (zset); their lists are still swept.
        delayed: key → when to retry, in ms (zset).
        dead: key → when it died, in ms (zset).
        counts: Waiting calls and their bytes, running calls, the time of the last pass, what was ever done (hash).
        recent: Keys of the newest tasks, whatever became of them, the newest at the left (list).
        barrier: Counts up with each wait for the disk.
    """

    __slots__ = ("_prefix", "barrier", "counts", "dead", "delayed", "graves", "leases", "queue", "ready", "recent")

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self._prefix = f"poste:{{{queue}}}:"
        self.ready = self._prefix + "ready"
        self.leases = self._prefix + "leases"
        self.graves = self._prefix + "graves"
        self.delayed = self._prefix + "delayed"
        self.dead = self._prefix + "dead"
        self.counts = self._prefix + "counts"
        self.recent = self._prefix + "recent"
        self.barrier = self._prefix + "barrier"

    def taken(self, incarnation: str) -> str:
        """The list of keys that one consumer process has taken."""
        return f"{self._prefix}taken:{incarnation}"

    def record(self, key: str) -> str:
        """The hash that holds one task."""
        return f"{self._prefix}task:{key}"


def split_taken(name: str) -> tuple[str, str]:
    """Return the queue and the incarnation of a `taken:` list's name."""
    queue, _, incarnation = name.removeprefix("poste:{").partition("}:taken:")
    return queue, incarnation
